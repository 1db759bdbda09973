"""How far a plan's times and bytes are from what the run then takes, kind by kind.

    python -m benchmarks.predicted [SPEC ...] [--probe] [--command]

Each spec (some of examples/ by default, the larger ones reduced) is planned and then run in this process, on one
worker, in a results folder of its own. Measured are seconds of processor time, so that other programs do not count;
bytes written are those of the artifacts' files. The libraries are loaded before.

With --command the spec is also run by `ntksweep run`, in processes of its own: on Ray, in another results folder. The
line "starting" has the predicted time to start beside that of the folder's journal, and the line "command" the whole
plan beside what the command took, both by the clock: other programs count.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.stage_costs import Meter, Quiet
from orchestrator.engine.run import resolve, run
from orchestrator.loading import load_model_libraries
from orchestrator.plan.estimate import Cost, costs
from orchestrator.plan.plan import make_plan
from orchestrator.plan.probe import probed_speeds
from orchestrator.plan.speeds import speeds_of
from orchestrator.plan.starting import Starting, starting
from orchestrator.spec import Spec, read_spec
from orchestrator.store.history import History
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.survey import surveys
from orchestrator.sweep.workers import worker_count

EXAMPLES = Path(__file__).parents[1] / "examples"

REDUCED: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "quickstart.yaml": {},
    "as-published-minilm.yaml": {},
    "ratings.yaml": {},
    "lp-ft.yaml": {"grid": {"layer_sets": [{"layers": [[5], [4, 5], [2, 3, 4, 5]]}, "all_layers"]}},
    "paper-minilm.yaml": {
        "grid": {
            "seeds": [0],
            "tasks": {"amazon": {"data": "data/amazon.parquet"}},
            "layer_sets": [{"layers": [[0], [5], [3, 4, 5]]}, "all_layers"],
            "lambdas": {"values": [1.0, 100.0], "scale": "trace"},
        }
    },
}
"""Examples, with sections of which some keys are replaced."""


@dataclass(frozen=True)
class Measured:
    """What the stages of a kind took: seconds of one worker, and bytes of their artifacts."""

    seconds: float
    written_bytes: int


def spec_in(path: Path, folder: Path, changes: Mapping[str, Mapping[str, Any]], *, executor: str = "inline") -> Path:
    """Write a spec with some changes, whose results go to a folder of their own; return its path."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    for section, values in changes.items():
        content[section] |= values
    content.setdefault("results", {})["folder"] = str(folder / "results")
    content.setdefault("compute", {})["executor"] = executor
    # beside the original, because its paths are relative to it
    written = path.with_name(f".{path.stem}-predicted.yaml")
    written.write_text(yaml.safe_dump(content), encoding="utf-8")
    return written


def planned(spec: Spec, base: Path, *, probe: bool, workers: int | None = 1) -> tuple[list[Cost], Starting | None]:
    """Return the costs of a plan, of one worker or another number of them, and its time to start."""
    folder = ResultsFolder(spec.folder)
    sweep = resolve(spec, base, folder, trusts_code=False)
    plan = make_plan(sweep, surveys(sweep, folder.artifacts()), folder.artifacts())
    speeds = probed_speeds(plan, folder) if probe else speeds_of(spec, folder)
    return costs(plan, folder, speeds, workers=workers), starting(plan, folder)


def measured(meter: Meter, folder: ResultsFolder) -> dict[str, Measured]:
    """Return what each kind took in a finished results folder."""
    return {
        kind: Measured(
            cost.seconds,
            sum(file.stat().st_size for file in (folder.root / "artifacts" / kind).rglob("*") if file.is_file()),
        )
        for kind, cost in meter.costs.items()
    }


def compare(path: Path, changes: Mapping[str, Mapping[str, Any]], *, probe: bool) -> None:
    """Print predicted and measured figures of a spec."""
    with tempfile.TemporaryDirectory() as scratch:
        written = spec_in(path, Path(scratch), changes)
        try:
            spec = read_spec(written)
            before, _ = planned(spec, written.parent, probe=probe)
            meter = Meter()
            with meter.watching():
                run(spec, written.parent, Quiet())
            found = measured(meter, ResultsFolder(spec.folder))
        finally:
            written.unlink()
    print(f"{path.name}\n{'kind':12}{'predicted s':>12}{'measured s':>12}{'ratio':>8}{'written: ratio':>16}")
    for cost in before:
        took = found[cost.kind]
        ratio = (cost.seconds or 0.0) / took.seconds
        written_ratio = cost.written_bytes / max(1, took.written_bytes)
        print(f"{cost.kind:12}{cost.seconds or 0.0:12.2f}{took.seconds:12.2f}{ratio:8.2f}{written_ratio:16.2f}")
    total, all_of = sum(cost.seconds or 0.0 for cost in before), sum(found[cost.kind].seconds for cost in before)
    print(f"{'all':12}{total:12.2f}{all_of:12.2f}{total / all_of:8.2f}\n", flush=True)


def compare_command(path: Path, changes: Mapping[str, Mapping[str, Any]], *, probe: bool) -> None:
    """Print what a plan says of starting and of the whole, beside what the command takes on Ray by the clock."""
    with tempfile.TemporaryDirectory() as scratch:
        written = spec_in(path, Path(scratch), changes, executor="ray")
        try:
            spec = read_spec(written)
            folder = ResultsFolder(spec.folder)
            found, start = planned(spec, written.parent, probe=probe, workers=None)
            began = time.perf_counter()
            subprocess.run([sys.executable, "-m", "ntksweep", "run", str(written)], check=True, capture_output=True)
            whole = time.perf_counter() - began
            workers = worker_count(folder.existing())
            history = History(folder.journals)
            history.update()
            taken = history.starting("ray")
        finally:
            written.unlink()
    if start is None or taken is None:
        raise SystemExit("the run computed nothing")
    print(f"{path.name} by the clock, {workers} workers\n{'':12}{'predicted s':>12}{'measured s':>12}{'ratio':>8}")
    total = start.seconds + sum(cost.seconds or 0.0 for cost in found)
    for name, predicted, took in (
        ("Ray", start.workers_up, taken[0]),
        ("libraries", start.libraries, taken[1]),
        ("starting", start.seconds, sum(taken)),
        ("command", total, whole),
    ):
        print(f"{name:12}{predicted:12.2f}{took:12.2f}{predicted / took:8.2f}")
    print(flush=True)


def main() -> None:
    """Read the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specs", nargs="*", type=Path, metavar="SPEC")
    parser.add_argument("--probe", action="store_true", help="measure the speeds first, as `plan --probe` does")
    parser.add_argument("--command", action="store_true", help="also run the command on Ray, by the clock")
    given = parser.parse_args()
    load_model_libraries()
    for path in given.specs or [EXAMPLES / name for name in REDUCED]:
        compare(path, REDUCED.get(path.name, {}), probe=given.probe)
        if given.command:
            compare_command(path, REDUCED.get(path.name, {}), probe=given.probe)


if __name__ == "__main__":
    main()
