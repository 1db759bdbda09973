"""Sweeps from a program: planned and run by their spec, as the command does it."""

import os
from pathlib import Path

from orchestrator.engine.run import Ending, resolve, run
from orchestrator.engine.schedule import Progress
from orchestrator.errors import SpecError
from orchestrator.plan.plan import Plan, make_plan
from orchestrator.spec import Spec, read_spec
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.on_change import OnChange
from orchestrator.sweep.survey import surveys
from slurm.ray.gpus import allocator_settings


class _Quiet:
    """Takes the progress of a run, and shows nothing."""

    def begin(self, totals: dict[str, int], finished: dict[str, int]) -> None:
        pass

    def advance(self, kind: str) -> None:
        pass

    def note(self, message: str) -> None:
        pass


def plan_sweep(spec: Spec | str | Path, *, trust_remote_code: bool = False) -> Plan:
    """Return the plan of a sweep: its cells, and the stages that fill them. Nothing is computed.

    Args:
        spec: the spec's file, in whose folder relative paths start; of a `Spec` they start in the current folder.
        trust_remote_code: whether code that comes with the model may run, where the spec asks for it.

    Raises:
        SweepError: a named subclass says what is wrong with the spec, the model or the data.
    """
    checked, place = _read(spec)
    folder = ResultsFolder(checked.folder)
    sweep = resolve(checked, place, folder, trusts_code=trust_remote_code)
    return make_plan(sweep, surveys(sweep, folder.artifacts()), folder.artifacts())


def run_sweep(
    spec: Spec | str | Path,
    *,
    on_change: OnChange | str = OnChange.REFUSE,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> Ending:
    """Run a sweep until every cell is in the tables, or failed; go on where an earlier run ended.

    Args:
        spec: as for `plan_sweep`.
        on_change: what to do if the results folder holds other numbers: `refuse`, keep the `stored`, take the `given`.
        trust_remote_code: as for `plan_sweep`.
        progress: is told how it goes; None tells nobody.

    Returns:
        The plan, the stages computed and failed, and the number of cells in the tables. Failed stages raise nothing.

    Raises:
        SweepError: the spec, the model, the data or the results folder do not allow it; nothing was lost.
    """
    checked, place = _read(spec)
    if checked.compute.executor == "inline" and checked.group_size > 1:
        raise SpecError(
            f"the inline executor runs in one process, and sharding.group_size is {checked.group_size}: set "
            "compute.executor: ray, or give the spec to the command under torchrun"
        )
    if checked.compute.device == "cuda":
        os.environ.update(allocator_settings(os.environ))  # of use if torch is not loaded yet
    return run(checked, place, progress or _Quiet(), on_change=OnChange(on_change), trusts_code=trust_remote_code)


def _read(spec: Spec | str | Path) -> tuple[Spec, Path]:
    if isinstance(spec, Spec):
        return spec, Path.cwd()
    path = Path(spec).expanduser()
    return read_spec(path), path.parent
