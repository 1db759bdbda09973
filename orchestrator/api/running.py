"""Sweeps from a program: planned and run by their spec, as the command does it."""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.api.progress import in_notebook, shown_progress
from orchestrator.api.results import Run
from orchestrator.cli.arguments import given_spec
from orchestrator.documents import Overrides
from orchestrator.environment import refuse_what_is_too_old
from orchestrator.errors import SpecError
from orchestrator.spec import Spec, change_spec, make_spec
from orchestrator.spec.naming_lines import naming_lines
from orchestrator.spec.places import given_path
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.on_change import OnChange
from slurm.ray.gpus import allocator_settings

if TYPE_CHECKING:
    from orchestrator.engine.schedule import Progress
    from orchestrator.plan.plan import Plan

SpecGiven = Spec | Mapping[str, Any] | str | Path
"""A spec: checked, as a dictionary with the keys of its file, or the path of its file."""

STOPPED = "interrupted; finished stages are kept. Run the same spec again to go on."
"""What the exception of an interrupted run says."""

_SILENT = {
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "DATASETS_VERBOSITY": "critical",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Variables by which libraries show no bars or warnings of their own; those that the user has set stay."""


def plan_sweep(spec: SpecGiven, *, overrides: Overrides = (), trust_remote_code: bool = False) -> "Plan":
    """Return the plan of a sweep: its cells, and the stages that fill them. Nothing is computed.

    Args:
        spec: the spec's file, in whose folder relative paths start, or the results folder of a sweep; of a dictionary
            or a `Spec` they start in the current folder.
        overrides: values that take the place of the spec's: `{"grid.seeds": [0, 1]}`, or `["grid.seeds=[0,1]"]`.
        trust_remote_code: whether code that comes with the model may run, where the spec asks for it.

    Raises:
        SweepError: a named subclass says what is wrong with the spec, the model or the data.
    """
    from orchestrator.engine.run import resolve
    from orchestrator.plan.plan import make_plan
    from orchestrator.sweep.survey import surveys

    refuse_what_is_too_old()
    checked, place = _read(spec, overrides)
    folder = ResultsFolder(checked.folder)
    with naming_lines(checked), _silent_libraries():
        sweep = resolve(checked, place, folder, trusts_code=trust_remote_code)
        return make_plan(sweep, surveys(sweep, folder.artifacts()), folder.artifacts())


def run_sweep(
    spec: SpecGiven,
    progress: "bool | Progress" = True,
    *,
    overrides: Overrides = (),
    on_change: OnChange | str = OnChange.REFUSE,
    trust_remote_code: bool = False,
) -> Run:
    """Run a sweep until every cell is in the tables, or failed; go on where an earlier run ended.

    Scripts need no `if __name__ == "__main__":` for it, and other programs may work on the same sweep meanwhile.

    Args:
        spec: as for `plan_sweep`.
        progress: whether to show how it goes: as bars on standard error, in a notebook as one small table. Something
            else may be told instead.
        overrides: as for `plan_sweep`.
        on_change: what to do if the results folder holds other numbers: `refuse`, keep the `stored`, take the `given`.
        trust_remote_code: as for `plan_sweep`.

    Returns:
        The results, with what was computed and what failed. Failed stages raise nothing.

    Raises:
        SweepError: the spec, the model, the data or the results folder do not allow it; nothing was lost.
        KeyboardInterrupt: the user stopped it (Ctrl-C, or the stop button of a notebook). Finished stages are kept,
            and their cells are in the tables; the next run of the same spec goes on from there.
    """
    refuse_what_is_too_old()
    checked, place = _read(spec, overrides)
    if checked.compute.executor == "inline" and checked.group_size > 1:
        raise SpecError(
            f"the inline executor runs in one process, and sharding.group_size is {checked.group_size}: set "
            "compute.executor: ray, or give the spec to the command under torchrun",
            key="compute.executor",
        )
    if checked.compute.device == "cuda":
        os.environ.update(allocator_settings(os.environ))  # of use if torch is not loaded yet
    change = _on_change(on_change)
    try:
        from orchestrator.engine.run import run

        shown = shown_progress(progress, ResultsFolder(checked.folder))
        with naming_lines(checked), _silent_libraries(), shown as told:
            ending = run(checked, place, told, on_change=change, trusts_code=trust_remote_code)
    except KeyboardInterrupt:
        stopped = KeyboardInterrupt(STOPPED)
    else:
        return Run(ending)
    # outside of the handler, so that no traceback of what was interrupted is shown
    raise stopped


def _on_change(given: OnChange | str) -> OnChange:
    try:
        return OnChange(given)
    except ValueError:
        raise SpecError(f"there is no on_change `{given}`; there are: {', '.join(OnChange)}") from None


def _read(spec: SpecGiven, overrides: Overrides) -> tuple[Spec, Path]:
    """Return a checked spec, and the folder in which its relative paths start."""
    if isinstance(spec, Spec):
        return change_spec(spec, overrides), Path.cwd()
    if isinstance(spec, Mapping):
        return make_spec(spec, name="the dictionary", overrides=overrides), Path.cwd()
    if not isinstance(spec, str | Path):
        raise SpecError(f"a spec is a path, a dictionary or a Spec, not of the type {type(spec).__name__}")
    if "\n" in str(spec):
        raise SpecError("this is the text of a spec, not its path; ntksweep.parse_spec(text) reads it")
    return given_spec(given_path(spec), overrides)


@contextmanager
def _silent_libraries() -> Iterator[None]:
    added = {name: value for name, value in _SILENT.items() if name not in os.environ}
    os.environ.update(added)
    ray = logging.getLogger("ray.widgets")
    level = ray.level
    try:
        with warnings.catch_warnings():
            if in_notebook():  # both miss ipywidgets, which nothing here needs
                warnings.filterwarnings("ignore", message="IProgress not found")
                ray.setLevel(logging.WARNING)
            yield
    finally:
        ray.setLevel(level)
        for name in added:
            os.environ.pop(name, None)
