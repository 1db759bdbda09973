"""What flow, contributions and evidence add to the solve stage that decomposes the kernel anyway.

    python -m benchmarks.one_decomposition [--rounds 9] [--threads 1] [--small]

One layer set of a small Llama with random weights: 12 groups, M = 1,000, 300 evaluation examples, 13 lambdas,
`eigenvectors: true`. Its blocks are computed once. Then, in turn and in this process, the solve stage without and with
`kernel.contributions` and 16 `kernel.flow_times`, each with the numbers of its cells (evidence among them) and, in the
second case, the rows of the tables `contributions` and `flow`; and the second with one of the two at a time. Aim: at
most 1.3 times the stage without. Ratios are of processor time within a round, as median (smallest to largest).
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from benchmarks.solve_stages import Grid, Silent, seconds, spec_for, spread, write_inputs
from orchestrator.engine.run import resolve, run
from orchestrator.engine.worker.execute import StageWorker
from orchestrator.plan.plan import make_plan
from orchestrator.spec import Spec
from orchestrator.stages.base.cells import Solve
from orchestrator.stages.context.failures import Status
from orchestrator.stages.context.finished import Finished
from orchestrator.stages.solve.further_rows import contributions_rows, flow_rows
from orchestrator.stages.solve.rows import dataset_of, paths_of
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.survey import surveys

GRID = Grid("one", 6, 128, ("q_proj", "v_proj"), ["all_layers"], 13, 1000, 300)
SMALL = Grid("one", 6, 32, ("q_proj", "v_proj"), ["all_layers"], 13, 60, 30)
FLOW = {"logspace": {"start": 1.0, "stop": 1e6, "count": 16}, "scale": "sigma_max"}
ASKED: dict[str, dict[str, Any]] = {
    "without": {},
    "contributions": {"contributions": True},
    "flow": {"flow_times": FLOW},
    "both": {"contributions": True, "flow_times": FLOW},
}


class Asked:
    """The solve stage of a spec that asks for something, beside blocks that are stored already."""

    def __init__(self, folder: Path, threads: int, grid: Grid, kernel: dict[str, Any]) -> None:
        tree = spec_for(folder, grid, threads).model_dump(mode="json")
        tree["kernel"] |= {"eigenvectors": True, "blocks": "groups"} | kernel
        spec = Spec.model_validate(tree)
        ending = run(spec, folder, Silent())
        if ending.report.failures:
            raise SystemExit(ending.report.failures[0].message)
        self.folder = ResultsFolder(spec.folder)
        self.sweep = resolve(spec, folder, self.folder)
        self.plan = make_plan(self.sweep, surveys(self.sweep, self.folder.artifacts()))
        (self.solve,) = self.plan.filled_by(Solve)

    def compute(self) -> None:
        """Compute the stage anew, in a worker of its own, and all that its tables have of it."""
        store, stage = self.folder.artifacts(), self.solve.stage
        for path in (store.root / "solve").glob(f"{stage.stage_id}*"):
            path.unlink()
        if StageWorker(self.sweep, self.folder).execute(stage).status is not Status.FINISHED:
            raise SystemExit("a stage failed")
        finished = Finished(self.plan, store)
        list(paths_of(self.plan, self.solve, store.read(*stage.ref), dataset_of(finished, self.solve)))
        if stage.parameters.contributions:
            list(contributions_rows(finished))
        if stage.parameters.flow is not None:
            list(flow_rows(finished))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    grid = SMALL if given.small else GRID
    took: dict[str, list[float]] = {name: [] for name in ASKED}
    with tempfile.TemporaryDirectory() as temporary, threadpool_limits(given.threads):
        folder = Path(temporary)
        write_inputs(folder, grid)
        asked = {name: Asked(folder, given.threads, grid, kernel) for name, kernel in ASKED.items()}
        for number in range(given.rounds + 1):
            for name, each in asked.items():
                processor, _ = seconds(each.compute)
                if number:  # the first round loads libraries
                    took[name].append(processor)
    print(f"M = {grid.n_train}, {given.threads} threads, {given.rounds} rounds")
    print(f"seconds without: {spread(took['without'])}")
    for name in list(ASKED)[1:]:
        print(f"{name}: {spread([a / b for a, b in zip(took[name], took['without'], strict=True)])} times without")


if __name__ == "__main__":
    main()
