"""Costs of a sweep, estimated before anything runs: operations, bytes, memory of a worker, time."""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import BudgetError
from orchestrator.plan.plan import Plan, missing_stages
from orchestrator.plan.speeds import Speeds, processor_speeds, speeds_of
from orchestrator.spec.quantities import human_bytes
from orchestrator.stages.registry import KINDS
from orchestrator.stages.solve import SOLVE, SolveParameters
from orchestrator.store.history import History
from orchestrator.store.stage import Stage, StageCost
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.workers import worker_count


@dataclass(frozen=True)
class Cost:
    """The cost of the missing stages of one kind.

    Attributes:
        kind: stage kind.
        stages: stages in the plan.
        missing: stages that are to be computed.
        flops: floating-point operations of those.
        read_bytes: bytes that they read from the disk, at most.
        written_bytes: bytes that they leave there.
        moved_bytes: bytes that they bring to a GPU and back.
        memory_bytes: most memory that one of them takes for Jacobians and blocks on the host, beside the model.
        device_bytes: most memory that one of them takes for them on a GPU.
        seconds: time of those on all workers together; None where it cannot be told.
        measured: whether the time comes from finished stages of this sweep.
    """

    kind: str
    stages: int
    missing: int
    flops: float
    read_bytes: int
    written_bytes: int
    moved_bytes: int
    memory_bytes: int
    device_bytes: int
    seconds: float | None
    measured: bool


def costs(plan: Plan, folder: ResultsFolder, speeds: Speeds | None, *, workers: int | None = None) -> list[Cost]:
    """Return the cost of each kind of stage that a plan has, in the order in which they run.

    The time of a kind whose stages have run in this folder is what they took, in proportion to the costs of those that
    are missing.

    Args:
        plan: the plan.
        folder: its results folder.
        speeds: speeds of a worker; None where they are unknown.
        workers: workers that share the time; None takes those of this machine.
    """
    workers = workers or worker_count(plan.sweep)
    missing = missing_stages(plan, folder.artifacts())
    history = History(folder.journals)
    history.update()
    taken = history.stage_seconds()
    means = {kind: seconds for kind, (seconds, _) in history.times().items()}
    found = []
    for name, kind in KINDS.items():
        of_kind = [stage for stage in plan.stages if stage.of is kind]
        if not of_kind:
            continue
        cost_of = {stage.stage_id: plan.cost_of(stage) for stage in of_kind}
        todo = [cost_of[stage.stage_id] for stage in missing if stage.of is kind]
        done = [(taken[stage_id], cost) for stage_id, cost in cost_of.items() if stage_id in taken]
        seconds = _seconds(todo, done, means.get(name), speeds)
        found.append(
            Cost(
                kind=name,
                stages=len(of_kind),
                missing=len(todo),
                flops=sum(cost.flops for cost in todo),
                read_bytes=sum(cost.read_bytes for cost in todo),
                written_bytes=sum(cost.written_bytes for cost in todo),
                moved_bytes=sum(cost.moved_bytes for cost in todo),
                memory_bytes=max(cost.memory_bytes for cost in cost_of.values()),
                device_bytes=max(cost.device_bytes for cost in cost_of.values()),
                seconds=None if seconds is None else seconds / workers,
                measured=name in means,
            )
        )
    return found


def seconds_of_stages(plan: Plan, folder: ResultsFolder) -> dict[str, float]:
    """Return the seconds that one stage of each missing kind takes a worker, as far as they can be told.

    Where a GPU is not known they are those of a processor, which still say how kinds compare.
    """
    spec = plan.sweep.spec
    found = costs(plan, folder, speeds_of(spec, folder) or processor_speeds(spec), workers=1)
    return {
        cost.kind: round(cost.seconds / cost.missing, 6) for cost in found if cost.missing and cost.seconds is not None
    }


def _seconds(
    todo: Sequence[StageCost], done: Sequence[tuple[float, StageCost]], mean: float | None, speeds: Speeds | None
) -> float | None:
    """Return the time of stages on one worker; None where it cannot be told.

    Args:
        todo: their costs.
        done: times and costs of finished stages of the kind that the plan has.
        mean: mean time of all finished stages of the kind; None where there is none.
        speeds: speeds of a worker; None where they are unknown.
    """
    if not todo:
        return 0.0
    if speeds is None or (mean is not None and not done):
        return None if mean is None else mean * len(todo)
    predicted = sum(map(speeds.seconds, todo))
    if not done:
        return predicted
    return predicted * sum(seconds for seconds, _ in done) / sum(speeds.seconds(cost) for _, cost in done)


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
                f"{kind.advice}",
                key="compute.memory_budget",
            )
    disk = sum(cost.written_bytes for _, cost in each)
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


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)
