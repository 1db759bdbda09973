"""The kind `gram`: the tiles of all groups' kernel blocks for one pair of shards."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ntk_dist.kernel.features import KernelKind
from orchestrator.spec.compute_section import GramDType
from orchestrator.stages.base.parameters import KernelDevice
from orchestrator.stages.base.scope import SeedScope
from orchestrator.stages.capture import CaptureParameters, captures
from orchestrator.store.stage import Stage, StageCost, StageKind
from orchestrator.sweep.sizes import workspace_bytes

if TYPE_CHECKING:
    from orchestrator.sweep.variant import Variant


@dataclass(frozen=True)
class GramParameters:
    """Parameters of a stage `gram`.

    Attributes:
        kind: kind of kernel.
        outputs_per_example: rows of the Jacobian that make one row of the kernel.
        gram_dtype: precision of products.
        threads: processors that compute it.
        groups: groups of parameters, each with a tile of its own.
        kernel_device: device that computes it.
    """

    kind: KernelKind
    outputs_per_example: int
    gram_dtype: GramDType
    threads: int
    groups: tuple[str, ...]
    kernel_device: KernelDevice


def cost(stage: Stage[GramParameters], variant: "Variant") -> StageCost:
    """Return the cost of the products of two shards' rows, of all groups."""
    sizes, p = variant.sizes, stage.parameters
    rows = min(sizes.shard_examples, sizes.n_train) * sizes.rows_per_example
    parameters = sum(n for g, n in zip(sizes.groups, sizes.group_parameters, strict=True) if g in p.groups)
    kernel_rows = rows // p.outputs_per_example
    return StageCost(2.0 * rows * rows * parameters, kernel_rows**2 * 8 * len(p.groups), _memory(stage, variant))


def _memory(stage: Stage[GramParameters], variant: "Variant") -> int:
    sizes, device_bytes = variant.sizes, stage.parameters.kernel_device.device_bytes
    rows = min(sizes.shard_examples, max(sizes.n_train, sizes.n_eval)) * sizes.rows_per_example
    mapped = 2 * rows * max(sizes.group_parameters) * sizes.row_bytes
    if device_bytes is not None:
        # The tile, and two chunks of rows on their way to the GPU.
        return mapped + 8 * rows * rows + 2 * device_bytes
    return mapped + workspace_bytes(rows, rows)


def plan(scope: SeedScope) -> None:
    """Add the tiles that some layer set needs: of pairs of training shards, then of evaluation and training shards."""
    sizes = scope.variant.sizes
    needed = captures(scope, "train")[: sizes.dual_train_shards]
    symmetric = scope.variant.sweep.spec.kernel.kind != "asymmetric_sign"
    for row, left in enumerate(needed):
        for right in needed[: row + 1] if symmetric else needed:
            scope.add(tile(scope, left, right, sizes.dual_groups))
    for left in captures(scope, "eval") if needed else []:
        for right in needed:
            scope.add(tile(scope, left, right, sizes.dual_groups))


def tile(
    scope: SeedScope, left: Stage[CaptureParameters], right: Stage[CaptureParameters], groups: Sequence[str]
) -> Stage[GramParameters]:
    """Return the stage that makes the kernel blocks of some groups for a pair of shards."""
    spec = scope.variant.sweep.spec
    parameters = GramParameters(
        kind=spec.kernel.kind,
        outputs_per_example=scope.variant.survey.n_outputs if spec.kernel.outputs == "trace" else 1,
        gram_dtype=spec.compute.gram_dtype,
        threads=spec.compute.threads,
        groups=tuple(groups),
        kernel_device=KernelDevice.of(spec.compute),
    )
    return Stage(GRAM, parameters, {"left": (left.ref,), "right": (right.ref,)})


def tiles_between(
    scope: SeedScope, left: Sequence[Stage[CaptureParameters]], right: Sequence[Stage[CaptureParameters]]
) -> list[Stage[GramParameters]]:
    """Return the tiles whose rows are of some shards, and whose columns of some others."""
    rows, columns = ({stage.stage_id for stage in shards} for shards in (left, right))
    return [
        stage
        for stage in scope.stages(GRAM)
        if stage.inputs["left"][0][1] in rows and stage.inputs["right"][0][1] in columns
    ]


GRAM = StageKind(
    name="gram",
    parameters=GramParameters,
    version=1,
    meaning="multiplies the rows of two shards: a tile of each group's kernel block",
    module="orchestrator.stages.gram.compute",
    plan=plan,
    cost=cost,
    advice="lower compute.shard_examples, or raise the budget",
)
