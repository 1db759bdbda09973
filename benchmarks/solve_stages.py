"""Cost of solve stages and tables beside their algebra, end to end, from stored blocks to Parquet files.

    python -m benchmarks.solve_stages [--rounds 3] [--threads 1] [--small]

Two sweeps of a small Llama with random weights on made-up sentences, inline. Their blocks are computed once; then, in
turn and in this process, as many times as there are rounds:

- the solve stages alone, and the tables, as a run computes them: reading and checking blocks, sums, decompositions,
  what is kept, checksums, records, journal, the cells of every lambda with their metrics, Parquet;
- the same algebra done plainly, for the same layer sets, from blocks that are in memory: sums of the blocks between
  training examples and of those for evaluation, each from scratch, LAPACK's sytrd and sterf; beside that `eigvalsh`;
- a Cholesky factorization, its solution and its prediction for some cells, times their number.

`layers` has 16 layers of 7 targets, M = 512: each layer, prefixes and suffixes, 45 layer sets x 13 lambdas; aim for the
stages: at most 1.6 times `eigvalsh`. `subsets` has 6 layers of 2 targets, M = 1,000: 63 layer sets x 100 lambdas; aim
for stages and tables: at most 1.3 times the algebra. Ratios are of processor time, as median (smallest to largest).
"""

import argparse
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.linalg
from scipy.linalg import lapack
from threadpoolctl import threadpool_limits
from transformers import BertTokenizerFast, LlamaConfig

from orchestrator.engine.run import resolve, run
from orchestrator.engine.worker.execute import StageWorker
from orchestrator.plan.plan import Plan, make_plan
from orchestrator.results.tables.write import collect
from orchestrator.spec import Spec
from orchestrator.stages.context.failures import Status
from orchestrator.stages.context.problem import load_problem
from orchestrator.stages.context.work import Work
from orchestrator.stages.context.worker_state import WorkerState
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.survey import surveys

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
ALL_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
CELLS_BY_CHOLESKY = 40


@dataclass(frozen=True)
class Grid:
    """A sweep of this benchmark."""

    name: str
    layers: int
    hidden: int
    targets: tuple[str, ...]
    layer_sets: list[Any]
    lambdas: int
    n_train: int
    n_eval: int


GRIDS = (
    Grid("layers", 16, 256, ALL_TARGETS, ["each_layer", "prefixes", "suffixes"], 13, 512, 256),
    Grid("subsets", 6, 128, ("q_proj", "v_proj"), [{"subsets": 6}], 100, 1000, 872),
)
SMALL = (
    Grid("layers", 4, 32, ALL_TARGETS, ["each_layer", "prefixes", "suffixes"], 13, 60, 30),
    Grid("subsets", 3, 32, ("q_proj", "v_proj"), [{"subsets": 3}], 10, 60, 30),
)


class Silent:
    """Progress that nobody watches."""

    def begin(self, totals: dict[str, int], finished: dict[str, int]) -> None: ...
    def advance(self, kind: str) -> None: ...
    def note(self, message: str) -> None: ...


def write_inputs(folder: Path, grid: Grid) -> None:
    """Write a model without weights, its tokenizer, and sentences of 17 words on average."""
    words = [f"w{number}" for number in range(1000)]
    (folder / "vocabulary.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    BertTokenizerFast(str(folder / "vocabulary.txt")).save_pretrained(folder / "model")
    LlamaConfig(
        vocab_size=len(words) + 5, hidden_size=grid.hidden, intermediate_size=grid.hidden * 11 // 4,
        num_hidden_layers=grid.layers, num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=128,
        pad_token_id=0,
    ).save_pretrained(folder / "model")  # fmt: skip
    draw = random.Random(0)
    n = 2 * (grid.n_train + grid.n_eval)
    texts = [" ".join(draw.choices(words, k=draw.randint(4, 30))) for _ in range(n)]
    pq.write_table(pa.table({"text": texts, "label": [number % 2 for number in range(n)]}), folder / "data.parquet")


def spec_for(folder: Path, grid: Grid, threads: int) -> Spec:
    return Spec.model_validate({
        "name": grid.name,
        "model": {"path": "model", "weights": "random"},
        "task": {"data": "data.parquet", "kind": "classification", "n_eval": grid.n_eval, "max_length": 64},
        "adapter": {"rank": 8, "lora_alpha": 16, "target_modules": list(grid.targets)},
        "head": {"kind": "random", "in_kernel": False},
        "kernel": {"outputs": "margin"},
        "grid": {
            "lambdas": {"logspace": {"start": 1e-5, "stop": 10.0, "count": grid.lambdas}, "scale": "trace"},
            "layer_sets": grid.layer_sets, "n_train": [grid.n_train],
        },
        "compute": {"executor": "inline", "threads": threads, "memory_budget": "4GB", "shard_examples": grid.n_train},
        "results": {"folder": str(folder / "results")},
    })  # fmt: skip


class Sweep:
    """A sweep whose blocks are stored, and its algebra."""

    def __init__(self, folder: Path, grid: Grid, threads: int) -> None:
        write_inputs(folder, grid)
        self.threads = threads
        spec = spec_for(folder, grid, threads)
        ending = run(spec, folder, Silent())
        if ending.report.failures:
            raise SystemExit(ending.report.failures[0].message)
        self.folder = ResultsFolder(spec.folder)
        self.sweep = resolve(spec, folder, self.folder)
        self.plan: Plan = make_plan(self.sweep, surveys(self.sweep, self.folder.artifacts()))
        self.stages = [solve.stage for solve in self.plan.solves]
        work, first = Work(WorkerState(self.sweep, self.folder)), self.stages[0]
        self.residual = load_problem(first, work).residual
        (tile,), (eval_tile,) = work.inputs(first, "tiles"), work.inputs(first, "eval_tiles")
        self.train = {name: np.array(tile.array(name)) for name in tile.names()}
        self.evaluation = {name: np.array(eval_tile.array(name)) for name in eval_tile.names()}
        self.layer_sets: list[list[str]] = [groups for stage in self.stages for groups in stage.parameters.layer_sets]

    def solve(self) -> None:
        """Compute all solve stages anew, in a worker of their own."""
        store = self.folder.artifacts()
        shutil.rmtree(store.root / "solve")
        worker = StageWorker(self.sweep, self.folder)
        for stage in self.stages:
            if worker.execute(stage).status is not Status.FINISHED:
                raise SystemExit("a stage failed")

    def tables(self) -> None:
        """Write all tables anew."""
        shutil.rmtree(self.folder.tables)
        if collect(self.plan, self.folder) != self.plan.n_cells:
            raise SystemExit("some cell is missing")

    def kernels(self) -> Iterator[tuple[FloatArray, FloatArray]]:
        for groups in self.layer_sets:
            yield summed(self.train, groups), summed(self.evaluation, groups)

    def sums(self) -> None:
        for _ in self.kernels():
            pass

    def algebra(self) -> None:
        for K, _ in self.kernels():
            work, _ = lapack.dsytrd_lwork(len(K), lower=1)
            # Symmetric, so that its transpose in the order of Fortran is itself.
            _, diagonal, off, _, _ = lapack.dsytrd(K.T, lower=1, lwork=int(work), overwrite_a=1)
            lapack.dsterf(diagonal, off)

    def eigvalsh(self) -> None:
        for K, _ in self.kernels():
            scipy.linalg.eigvalsh(K)

    def cholesky(self) -> None:
        """Solve some cells, one after the other."""
        K, evaluation = next(self.kernels())
        for cell in range(CELLS_BY_CHOLESKY):
            A = K.copy(order="F")
            A[np.diag_indices_from(A)] += (1 + cell) * np.trace(K) / len(K)
            factor = scipy.linalg.cho_factor(A, lower=True, overwrite_a=True, check_finite=False)
            evaluation @ scipy.linalg.cho_solve(factor, self.residual, check_finite=False)


def summed(blocks: dict[str, FloatArray], groups: list[str]) -> FloatArray:
    total = blocks[groups[0]].copy()
    for group in groups[1:]:
        total += blocks[group]
    return total


def seconds(do: Callable[[], None]) -> tuple[float, float]:
    """Return the processor time and the time that something takes."""
    begun = time.process_time(), time.perf_counter()
    do()
    return time.process_time() - begun[0], time.perf_counter() - begun[1]


def spread(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def measure(grid: Grid, rounds: int, threads: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        sweep = Sweep(Path(temporary), grid, threads)
        parts = (sweep.solve, sweep.tables, sweep.sums, sweep.algebra, sweep.eigvalsh, sweep.cholesky)
        took: dict[str, list[tuple[float, float]]] = {part.__name__: [] for part in parts}
        with threadpool_limits(threads):
            for number in range(rounds + 1):
                for part in parts:
                    found = seconds(part)
                    if number:  # the first round loads libraries
                        took[part.__name__].append(found)
    cpu = {name: [processor for processor, _ in found] for name, found in took.items()}
    sets, cells = len(sweep.layer_sets), sweep.plan.n_cells

    def ratio(upper: list[float], lower: list[float]) -> str:
        return spread([a / b for a, b in zip(upper, lower, strict=True)])

    both = [a + b for a, b in zip(cpu["solve"], cpu["tables"], strict=True)]
    decomposed = [a - b for a, b in zip(cpu["eigvalsh"], cpu["sums"], strict=True)]
    loop = [one * cells / CELLS_BY_CHOLESKY for one in cpu["cholesky"]]
    print(f"{grid.name}: {sets} layer sets x {grid.lambdas} lambdas, M = {grid.n_train}, {threads} thread(s)")
    print(f"  solve stages / eigvalsh: {ratio(cpu['solve'], decomposed)}")
    print(f"  solve stages and tables / (sums + sytrd + sterf): {ratio(both, cpu['algebra'])}")
    print(f"  a Cholesky a cell / solve stages and tables: {ratio(loop, both)}")
    for name, found in took.items():
        print(f"  {name}: {spread([processor for processor, _ in found])} s of processor, "
              f"{spread([wall for _, wall in found])} s")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="tiny grids, in seconds; their numbers mean nothing")
    parser.add_argument("--only", choices=[grid.name for grid in GRIDS], help="one of the two sweeps")
    given = parser.parse_args()
    for grid in SMALL if given.small else GRIDS:
        if given.only in (None, grid.name):
            measure(grid, given.rounds, given.threads)


if __name__ == "__main__":
    main()
