"""Cost of the stages of a sweep on this machine: processor time, calls that write, waits for the disk, bytes written.

    python benchmarks/stage_costs.py [SPEC] [--rounds N]

Runs the spec (the quickstart by default) from the start, every stage in this process, in a results folder of its own.
"beside the model" leaves out the passes through the model and the gradients that a stage asks for: what is left of
`capture` is what it takes to keep rows.
"""

import argparse
import os
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from finetune.model.scorer import Scorer
from orchestrator.engine.run import run
from orchestrator.engine.worker.execute import StageWorker
from orchestrator.results.tables import write as tables
from orchestrator.spec import read_spec

QUICKSTART = Path(__file__).parents[1] / "examples" / "quickstart.yaml"


class Quiet:
    """Takes the progress of a run and says nothing."""

    def begin(self, totals: dict[str, int], finished: dict[str, int]) -> None: ...
    def advance(self, kind: str) -> None: ...
    def note(self, message: str) -> None: ...


@dataclass
class Cost:
    """Time and calls of all stages of a kind together."""

    stages: int = 0
    seconds: float = 0.0
    in_model: float = 0.0
    writes: int = 0
    syncs: int = 0
    written: int = 0


class Meter:
    """Counts what this process does, for the kind of stage that it is at."""

    def __init__(self) -> None:
        self.costs: dict[str, Cost] = defaultdict(Cost)
        self._kind = "between stages"

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count inside."""
        with ExitStack() as stack:
            for name in ("write", "pwrite", "pwritev"):
                stack.enter_context(mock.patch.object(os, name, self._writing(getattr(os, name))))
            for name in ("fsync", "fdatasync"):
                stack.enter_context(mock.patch.object(os, name, self._syncing(getattr(os, name))))
            stack.enter_context(mock.patch.object(Scorer, "begin_rows", self._passing(Scorer.begin_rows)))
            stack.enter_context(
                mock.patch.object(StageWorker, "_release_after", self._executing(StageWorker._release_after))
            )
            stack.enter_context(mock.patch("orchestrator.engine.run.collect", self._as_kind("tables", tables.collect)))
            begun = time.process_time()
            yield
            rest = time.process_time() - begun - sum(cost.seconds for cost in self.costs.values())
            self.costs["between stages"].seconds += rest

    def _executing(self, execute: Callable[..., Any]) -> Callable[..., Any]:
        def measured(worker: Any, task: Any, *arguments: Any) -> Any:
            return self._as_kind(task[0].kind, execute)(worker, task, *arguments)

        return measured

    def _as_kind(self, kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*arguments: Any, **options: Any) -> Any:
            before, self._kind, begun = self._kind, kind, time.process_time()
            try:
                return call(*arguments, **options)
            finally:
                self.costs[kind].stages += 1
                self.costs[kind].seconds += time.process_time() - begun
                self._kind = before

        return measured

    def _passing(self, rows: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*arguments: Any, **options: Any) -> Any:
            begun = time.process_time()
            try:
                return rows(*arguments, **options)
            finally:
                self.costs[self._kind].in_model += time.process_time() - begun

        return measured

    def _writing(self, write: Callable[..., int]) -> Callable[..., int]:
        def measured(*arguments: Any) -> int:
            written = write(*arguments)
            self.costs[self._kind].writes += 1
            self.costs[self._kind].written += written
            return written

        return measured

    def _syncing(self, sync: Callable[..., None]) -> Callable[..., None]:
        def measured(file: int) -> None:
            self.costs[self._kind].syncs += 1
            sync(file)

        return measured


def main() -> None:
    """Run a sweep and print a line a kind of stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", nargs="?", type=Path, default=QUICKSTART)
    parser.add_argument("--rounds", type=int, default=1, help="runs; of each number the least is shown")
    arguments = parser.parse_args()
    spec = read_spec(arguments.spec)
    rounds = [measured_run(spec, arguments.spec.resolve().parent) for _ in range(arguments.rounds)]
    print(f"{'':16}{'stages':>8}{'CPU s':>9}{'beside the model':>18}{'writes':>9}{'syncs':>7}{'MB':>9}")
    for kind in rounds[0]:
        costs = [each[kind] for each in rounds]
        seconds, beside = min(c.seconds for c in costs), min(c.seconds - c.in_model for c in costs)
        first = costs[0]
        counts = f"{first.writes:>9,}{first.syncs:>7,}{first.written / 1e6:>9,.1f}"
        print(f"{kind:16}{first.stages:>8,}{seconds:>9.2f}{beside:>18.2f}{counts}")
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(f"peak memory of the process {usage.ru_maxrss / 1e3:,.0f} MB")


def measured_run(spec: Any, folder: Path) -> dict[str, Cost]:
    """Return by kind of stage what one run of a spec took."""
    meter = Meter()
    with tempfile.TemporaryDirectory() as results, meter.watching():
        inline = spec.compute.model_copy(update={"executor": "inline"})
        target = spec.results.model_copy(update={"folder": Path(results) / "sweep"})
        run(spec.model_copy(update={"compute": inline, "results": target}), folder, Quiet())
    return dict(meter.costs)


if __name__ == "__main__":
    main()
