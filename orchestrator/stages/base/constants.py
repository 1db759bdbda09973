"""Columns that all rows of a variant have in common."""

from pathlib import Path
from typing import Any

from ntk_dist.spectrum.lora_rank import rank_threshold
from orchestrator.stages.base.cells import Solve
from orchestrator.sweep.variant import Variant


def variant_constants(variant: Variant) -> dict[str, Any]:
    """Return the values that all rows of a variant share, by column."""
    spec, sources = variant.sweep.spec, variant.sweep.sources
    return {
        "sweep": spec.name,
        "model": _short(spec.model.path, sources.model.revision),
        "task": variant.choice.task or _short(spec.task.data, sources.data.revision),
        "task_kind": spec.task.kind,
        "adapter": spec.adapter.kind,
        "adapter_rank": spec.adapter.rank if spec.adapter.kind == "lora" else None,
        "head": spec.head.kind,
        "head_in_kernel": spec.head.in_kernel,
        "head_trained": spec.head_trained,
        "kernel": spec.kernel.kind,
        "outputs": spec.kernel.outputs,
        "dtype": spec.model.dtype,
        "learning_rate": spec.finetune.learning_rate if spec.finetune else None,
        "n_eval": spec.task.n_eval,
    }


def _short(location: str, revision: str | None) -> str:
    return location if revision is not None else Path(location).name


def solve_constants(variant: Variant, solve: Solve) -> dict[str, Any]:
    """Return the values that all rows about a solve stage share, by column."""
    n_trained = variant.sizes.trained_with(solve.n_train)
    trained = {"finetune_n_train": n_trained} if variant.sweep.spec.finetune else {}
    constants = variant_constants(variant) | {"seed": solve.seed, "n_train": solve.n_train, **trained}
    if variant.sweep.spec.adapter.kind != "lora":
        return constants
    return constants | {"rank_threshold": rank_threshold(n_trained, variant.sizes.rows_per_example)}
