"""Costs of a sweep, estimated before anything runs: FLOPs, bytes on disk, memory of a worker, time."""

import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import BudgetError
from orchestrator.plan.plan import Plan, missing_stages
from orchestrator.spec.quantities import human_bytes
from orchestrator.stages.registry import KINDS
from orchestrator.stages.solve import SOLVE, SolveParameters
from orchestrator.store.history import History
from orchestrator.store.stage import Stage
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.workers import worker_count

EFFICIENCY = 0.5
"""Share of the speed of one large matrix product that a stage reaches, where nothing was measured yet."""


@dataclass(frozen=True)
class Cost:
    """The cost of the missing stages of one kind.

    Attributes:
        kind: stage kind.
        stages: stages in the plan.
        missing: stages that are to be computed.
        flops: floating-point operations of those.
        disk_bytes: bytes that they leave.
        memory_bytes: most memory that one of them takes for Jacobians and blocks, beside the model.
        seconds: time of those on all workers together; None where it cannot be told.
        measured: whether the time comes from finished stages of this sweep.
    """

    kind: str
    stages: int
    missing: int
    flops: float
    disk_bytes: int
    memory_bytes: int
    seconds: float | None
    measured: bool


def costs(plan: Plan, folder: ResultsFolder, *, workers: int | None = None) -> list[Cost]:
    """Return the cost of each kind of stage that a plan has, in the order in which they run.

    Args:
        plan: the plan.
        folder: its results folder.
        workers: workers that share the time; None takes those of this machine.
    """
    workers = workers or worker_count(plan.sweep)
    missing = missing_stages(plan, folder.artifacts())
    measured = _measured_seconds(folder)
    speed: dict[str, float] = {}
    found = []
    for name, kind in KINDS.items():
        of_kind = [stage for stage in plan.stages if stage.of is kind]
        todo = [stage for stage in missing if stage.of is kind]
        if not of_kind:
            continue
        each = [plan.cost_of(stage) for stage in todo]
        flops, disk = sum(cost.flops for cost in each), sum(cost.disk_bytes for cost in each)
        seconds: float | None
        if name in measured:
            seconds = measured[name] * len(todo)
        else:
            dtype = plan.sweep.spec.row_dtype if kind.runs_model else "float64"
            if todo and dtype not in speed:
                speed[dtype] = _matmul_speed(dtype, plan.sweep.spec.compute.threads)
            seconds = flops / (EFFICIENCY * speed[dtype]) if todo and flops else 0.0 if not todo else None
        memory = max((plan.cost_of(stage).memory_bytes for stage in of_kind), default=0)
        found.append(
            Cost(
                name, len(of_kind), len(todo), flops, disk, memory,
                None if seconds is None else seconds / workers, name in measured,
            )
        )  # fmt: skip
    return found


def seconds_of_stages(plan: Plan, folder: ResultsFolder) -> dict[str, float]:
    """Return the seconds that one stage of each kind takes a worker; kinds whose time cannot be told are left out."""
    return {
        cost.kind: round(cost.seconds / cost.missing, 6)
        for cost in costs(plan, folder, workers=1)
        if cost.missing and cost.seconds is not None
    }


def refuse_what_cannot_fit(plan: Plan, folder: ResultsFolder) -> None:
    """Raise an error if a missing stage exceeds the memory budget, or its results exceed the free disk space.

    Raises:
        BudgetError: names what does not fit and the setting that would make it fit.
    """
    budget = plan.sweep.spec.compute.memory_budget
    missing = missing_stages(plan, folder.artifacts())
    each = [(stage.of, plan.cost_of(stage)) for stage in missing]
    for kind in KINDS.values():
        needed = max((cost.memory_bytes for of, cost in each if of is kind), default=0)
        if kind.advice and needed > budget:
            raise BudgetError(
                f"a {kind.name} stage needs {human_bytes(needed)} and compute.memory_budget is {human_bytes(budget)}; "
                f"{kind.advice}"
            )
    disk = sum(cost.disk_bytes for _, cost in each)
    free = shutil.disk_usage(_existing(folder.root)).free
    if disk > free:
        raise BudgetError(
            f"the sweep leaves {human_bytes(disk)} and the disk of {folder.root} has {human_bytes(free)} free; "
            "free some, name another results.folder, or ask for fewer examples or layers"
        )


@dataclass(frozen=True)
class Kernels:
    """Numbers of kernels of a plan that are decomposed, or of those that are multiplied with instead.

    Attributes:
        planned: how many there are.
        missing: how many of them belong to unfinished stages.
    """

    planned: int
    missing: int


def kernels(plan: Plan, missing: Sequence[Stage], *, iterative: bool) -> Kernels:
    """Return the numbers of kernels, planned and missing, that solve stages decompose or else multiply with."""

    def count(stages: Iterable[Stage]) -> int:
        solves: dict[str, SolveParameters] = {stage.stage_id: stage.parameters for stage in stages if stage.of is SOLVE}
        return sum(len(p.layer_sets) for p in solves.values() if (p.iterative is not None) == iterative)

    return Kernels(count(plan.stages), count(missing))


def _measured_seconds(folder: ResultsFolder) -> dict[str, float]:
    """Return the mean time of the finished stages of each kind, from the journals."""
    history = History(folder.journals)
    history.update()
    return history.mean_seconds()


def _matmul_speed(dtype: str, threads: int) -> float:
    """Return the FLOPs per second of a matrix product on this machine, from the fastest of five."""
    import numpy as np
    from threadpoolctl import threadpool_limits

    size = 512  # large enough to reach it, and 0.01 s on one processor
    matrix = np.ones((size, size), dtype)
    with threadpool_limits(limits=threads):
        matrix @ matrix
        times = []
        for _ in range(5):
            started = time.perf_counter()
            matrix @ matrix
            times.append(time.perf_counter() - started)
    return 2.0 * size**3 / min(times)


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)
