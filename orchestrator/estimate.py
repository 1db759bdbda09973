"""What a sweep costs, told before anything runs: FLOPs, bytes on disk, memory of a worker, time."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.additions_estimate import additions_disk, additions_flops, additions_memory
from orchestrator.batch_size import CROWD, SEVERAL
from orchestrator.combinations_estimate import combine_disk, combine_flops, combine_memory
from orchestrator.errors import BudgetError
from orchestrator.executors.choose import worker_count
from orchestrator.finetune_estimate import finetune_disk, finetune_flops, finetune_memory
from orchestrator.folder import ResultsFolder
from orchestrator.history import History
from orchestrator.plan import Plan
from orchestrator.schedule import missing_stages
from orchestrator.solve_estimate import solves_cost, solves_memory
from orchestrator.stage import Stage
from orchestrator.stages.gram import workspace_bytes
from orchestrator.stages.registry import KINDS, OF_THE_MODEL

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
    for kind in KINDS:
        of_kind = [stage for stage in plan.stages if stage.kind == kind]
        todo = [stage for stage in missing if stage.kind == kind]
        if not of_kind:
            continue
        each = [_stage_cost(plan, stage) for stage in todo]
        flops, disk = sum(cost[0] for cost in each), sum(cost[1] for cost in each)
        seconds: float | None
        if kind in measured:
            seconds = measured[kind] * len(todo)
        else:
            dtype = plan.sweep.spec.row_dtype if kind in OF_THE_MODEL else "float64"
            if todo and dtype not in speed:
                speed[dtype] = _matmul_speed(dtype, plan.sweep.spec.compute.threads)
            seconds = flops / (EFFICIENCY * speed[dtype]) if todo and flops else 0.0 if not todo else None
        memory = max((memory_bytes(plan, stage) for stage in of_kind), default=0)
        found.append(
            Cost(
                kind, len(of_kind), len(todo), flops, disk, memory,
                None if seconds is None else seconds / workers, kind in measured,
            )
        )  # fmt: skip
    return found


def refuse_what_cannot_fit(plan: Plan, folder: ResultsFolder) -> None:
    """Raise an error if a missing stage cannot fit the memory budget, or what it leaves the disk.

    Raises:
        BudgetError: says what does not fit and which setting would make it fit.
    """
    budget = plan.sweep.spec.compute.memory_budget
    missing = missing_stages(plan, folder.artifacts())
    for kind, advice in _ADVICE.items():
        needed = max((memory_bytes(plan, stage) for stage in missing if stage.kind == kind), default=0)
        if needed > budget:
            raise BudgetError(
                f"a {kind} stage needs {human_bytes(needed)} and compute.memory_budget is {human_bytes(budget)}; "
                f"{advice}"
            )
    disk = sum(_stage_cost(plan, stage)[1] for stage in missing)
    free = shutil.disk_usage(_existing(folder.root)).free
    if disk > free:
        raise BudgetError(
            f"the sweep leaves {human_bytes(disk)} and the disk of {folder.root} has {human_bytes(free)} free; "
            "free some, name another results.folder, or ask for fewer examples or layers"
        )


_ADVICE = {
    "precision": "raise the budget, or ask for fewer layers",
    "capture": "lower compute.shard_examples, or raise the budget",
    "gram": "lower compute.shard_examples, or raise the budget",
    "solve": "raise the budget, ask for fewer examples in grid.n_train, set kernel.eigenvectors: false, or, for "
    "layer sets with more parameters than kernel rows, kernel.decomposition: iterative",
    "additions": "raise the budget, ask for fewer examples in grid.n_train, or set kernel.additions: false",
    "finetune": "raise the budget, ask for fewer examples or layers, or set finetune.prefix_cache: false or, unless "
    "the model is divided by `sharding`, finetune.linearization: products",
    "combine": "raise the budget, lower task.n_eval, or set finetune.prefix_cache: false",
}


def memory_bytes(plan: Plan, stage: Stage) -> int:
    """Return the memory that a stage takes for Jacobians and blocks, beside the model and its activations."""
    by_kind: dict[str, Callable[[Plan, Stage], int]] = {
        "batches": _capture_memory,
        "batching": _batching_memory,
        "precision": _precision_memory,
        "capture": _capture_memory,
        "gram": _gram_memory,
        "solve": solves_memory,
        "additions": additions_memory,
        "finetune": finetune_memory,
        "side_by_side": finetune_memory,
        "combine": combine_memory,
    }
    return by_kind[stage.kind](plan, stage) if stage.kind in by_kind else 0


def _capture_memory(plan: Plan, stage: Stage) -> int:
    sizes = plan.of(stage).sizes
    # Rows of a batch, and their copy on the way to the file.
    return 2 * sizes.batch_examples * sizes.rows_per_example * sizes.n_parameters * sizes.row_bytes


def _batching_memory(plan: Plan, stage: Stage) -> int:
    sizes = plan.of(stage).sizes
    # One row of each text of a batch, and those of three texts that are compared.
    return (_tried_together(stage) + 3) * sizes.n_parameters * sizes.row_bytes


def _tried_together(stage: Stage) -> int:
    """Return the most texts that the stage `batching` takes through the model at once."""
    return 1 if stage.parameters["batching"] == "alone" else min(CROWD, int(stage.parameters["batch_examples"]))


def _precision_memory(plan: Plan, stage: Stage) -> int:
    sizes = plan.of(stage).sizes
    # Rows in both precisions, and those of a group in float64.
    return 4 * int(stage.parameters["examples"]) * sizes.rows_per_example * sizes.n_parameters * sizes.row_bytes


def _gram_memory(plan: Plan, stage: Stage) -> int:
    sizes = plan.of(stage).sizes
    rows = min(sizes.shard_examples, max(sizes.n_train, sizes.n_eval)) * sizes.rows_per_example
    mapped = 2 * rows * max(sizes.group_parameters) * sizes.row_bytes
    if stage.parameters["device_bytes"] is not None:
        # The tile, and two chunks of rows on their way to the GPU.
        return mapped + 8 * rows * rows + 2 * int(stage.parameters["device_bytes"])
    return mapped + workspace_bytes(rows, rows)


def _stage_cost(plan: Plan, stage: Stage) -> tuple[float, int]:
    """Return FLOPs and bytes on disk of a stage."""
    by_kind: dict[str, Callable[[Plan, Stage], tuple[float, int]]] = {
        "dataset": _dataset_cost,
        "batches": _batches_cost,
        "head": _head_cost,
        "head_refits": _head_refits_cost,
        "batching": _batching_cost,
        "precision": _precision_cost,
        "capture": _capture_cost,
        "gram": _gram_cost,
        "solve": solves_cost,
        "additions": lambda plan, stage: (additions_flops(plan, stage), additions_disk(plan, stage)),
        "finetune": lambda plan, stage: (finetune_flops(plan, stage), finetune_disk(plan, stage)),
        "side_by_side": lambda plan, stage: (finetune_flops(plan, stage), finetune_disk(plan, stage)),
        "compare": lambda *_: (0.0, 0),
        "combine": lambda plan, stage: (combine_flops(plan, stage), combine_disk(stage)),
    }
    return by_kind[stage.kind](plan, stage)


def _dataset_cost(plan: Plan, stage: Stage) -> tuple[float, int]:
    sizes = plan.of(stage).sizes
    return 0.0, int((sizes.n_train + sizes.n_eval) * (plan.of(stage).survey.mean_tokens * 8 + 24))


def _batches_cost(plan: Plan, stage: Stage) -> tuple[float, int]:
    # Small batches, and the largest that there can be: with as many examples as a batch may have.
    return _row_flops(plan, stage, SEVERAL + int(stage.parameters["batch_examples"])), 0


def _head_cost(plan: Plan, stage: Stage) -> tuple[float, int]:
    sizes, survey = plan.of(stage).sizes, plan.of(stage).survey
    n, d = sizes.n_train, int(survey.model["hidden_size"])
    features = 2.0 * survey.model["n_parameters"] * survey.mean_tokens * n
    # The singular value decomposition of the features takes about 6 n d^2 (Golub and Van Loan, figure 8.6.1).
    return features + 6.0 * max(n, d) * min(n, d) ** 2, 8 * (n + survey.n_outputs) * (d + 1)


def _head_refits_cost(plan: Plan, stage: Stage) -> tuple[float, int]:
    sizes, survey = plan.of(stage).sizes, plan.of(stage).survey
    n, C = sizes.n_train, survey.n_outputs
    q = min(n, int(survey.model["hidden_size"])) + 1
    # Products with the Hessians of all refits, twice n^2 q C additions and multiplications each; about 40 are needed.
    return 40 * 4.0 * n * n * q * C, 8 * n * q * (C + 1)


def _batching_cost(plan: Plan, stage: Stage) -> tuple[float, int]:
    survey = plan.of(stage).survey
    # Forward and back for one output: two texts a few times, and a batch of them.
    n_texts = 8 + _tried_together(stage)
    return 4.0 * int(survey.model["n_parameters"]) * survey.mean_tokens * n_texts, 0


def _precision_cost(plan: Plan, stage: Stage) -> tuple[float, int]:
    return 2 * _row_flops(plan, stage, stage.parameters["examples"]), 0


def _row_flops(plan: Plan, stage: Stage, n_examples: int) -> float:
    sizes, survey = plan.of(stage).sizes, plan.of(stage).survey
    return 2.0 * int(survey.model["n_parameters"]) * survey.mean_tokens * n_examples * (1 + sizes.rows_per_example)


def _capture_cost(plan: Plan, stage: Stage) -> tuple[float, int]:
    sizes = plan.of(stage).sizes
    n = stage.parameters["stop"] - stage.parameters["start"]
    return _row_flops(plan, stage, n), n * sizes.rows_per_example * (sizes.n_parameters + 1) * sizes.row_bytes


def _gram_cost(plan: Plan, stage: Stage) -> tuple[float, int]:
    sizes, p = plan.of(stage).sizes, stage.parameters
    rows = min(sizes.shard_examples, sizes.n_train) * sizes.rows_per_example
    parameters = sum(n for g, n in zip(sizes.groups, sizes.group_parameters, strict=True) if g in p["groups"])
    kernel_rows = rows // p["outputs_per_example"]
    return 2.0 * rows * rows * parameters, kernel_rows**2 * 8 * len(p["groups"])


def _measured_seconds(folder: ResultsFolder) -> dict[str, float]:
    """Return the mean time of the finished stages of each kind, from the journals."""
    history = History(folder.journals)
    history.update()
    return history.mean_seconds()


def _matmul_speed(dtype: str, threads: int) -> float:
    """Return FLOPs a second of a matrix product of this machine, from the fastest of five."""
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


def human_bytes(count: float) -> str:
    """Write a number of bytes for people: 1536 becomes `1.5 kB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)
