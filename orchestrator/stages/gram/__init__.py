"""The kind `gram`: the tiles of all kernel blocks for one pair of shards."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from ntk_dist.kernel.features import KernelKind
from orchestrator.spec.compute_section import GramDType
from orchestrator.stages.base.parameters import KernelDevice
from orchestrator.stages.base.scope import SeedScope
from orchestrator.stages.capture import CaptureParameters, captures
from orchestrator.store.stage import Stage, StageCost, StageKind, Together
from orchestrator.sweep import passes
from orchestrator.sweep.blocks import Block, atoms
from orchestrator.sweep.sizes import workspace_bytes

if TYPE_CHECKING:
    from orchestrator.sweep.variant import Variant

MOST_BYTES = 10 * 10**9
"""Most bytes of a seed's blocks of single groups, where `kernel.blocks` is auto."""


@dataclass(frozen=True)
class GramParameters:
    """Parameters of a stage `gram`.

    Attributes:
        kind: kind of kernel.
        outputs_per_example: rows of the Jacobian that make one row of the kernel.
        gram_dtype: precision of products.
        threads: processors that compute it.
        rows, columns: examples of the rows of the tile, and of its columns.
        blocks: groups of parameters of each block of the tile.
        own_rows: rows of the kernel of an example whose products with each other are stored too, of the examples of the
            rows; 0 for none.
        kernel_device: device that computes it.
    """

    kind: KernelKind
    outputs_per_example: int
    gram_dtype: GramDType
    threads: int
    rows: int
    columns: int
    blocks: tuple[Block, ...]
    own_rows: int
    kernel_device: KernelDevice


def cost(stage: Stage[GramParameters], variant: "Variant") -> StageCost:
    """Return the cost of the products of two shards' rows, of all blocks, and of rows that are made for them."""
    sizes, p = variant.sizes, stage.parameters
    left, right = p.rows * sizes.rows_per_example, p.columns * sizes.rows_per_example
    groups = {group for block in p.blocks for group in block}
    parameters = sum(n for g, n in zip(sizes.groups, sizes.group_parameters, strict=True) if g in groups)
    kernel_rows = left // p.outputs_per_example
    written = 8 * len(p.blocks) * kernel_rows * (right // p.outputs_per_example + p.own_rows)
    read = 0 if stage.within else int(_rows_read(stage, variant, left, right) * parameters * sizes.row_bytes)
    memory, device = _memory(stage, variant)
    products = StageCost(
        product_flops=2.0 * left * right * parameters,
        read_bytes=read,
        written_bytes=written,
        moved_bytes=0 if p.kernel_device.device_bytes is None else read + written,
        memory_bytes=memory,
        device_bytes=device,
    )
    if stage.within and _makes_left_rows(stage, variant):
        return products + passes.rows(variant, p.rows)
    return products


def _makes_left_rows(stage: Stage[GramParameters], variant: "Variant") -> bool:
    """Tell whether it is the first tile of its panel that has these rows, which are then held for the others."""
    column = variant.sizes.shards_of(int(stage.within[-1].parameters.start))
    return column % variant.rows_place.panel_shards == 0


def _rows_read(stage: Stage[GramParameters], variant: "Variant", left: int, right: int) -> float:
    """Return how many of the rows of its two sides a tile reads from the disk, on average, if one worker makes all."""
    sizes = variant.sizes
    if _held(stage, variant) <= 2:
        return left if stage.inputs["left"] == stage.inputs["right"] else left + right
    shards = len(sizes.train_shards), len(sizes.eval_shards)
    return left * _mean_reads(*shards, variant.rows_place.panel_shards, stage.parameters.kind != "asymmetric_sign")


def _held(stage: Stage[GramParameters], variant: "Variant") -> int:
    """Return how many shards of stored rows stay in memory while tiles are made."""
    room = variant.sweep.spec.compute.memory_budget - _making(stage, variant)
    return max(0, room) // variant.sizes.shard_bytes


def _making(stage: Stage[GramParameters], variant: "Variant") -> int:
    p, per_example = stage.parameters, variant.sizes.rows_per_example
    return making_bytes(p, p.rows * per_example, p.columns * per_example)


@cache
def _mean_reads(n_train: int, n_eval: int, panel: int, symmetric: bool) -> float:
    """Return how often a shard is read for each tile, where those of a panel stay in memory until it is done."""
    starts = range(0, n_train, panel)
    read = sum(n_train - (start if symmetric else 0) + n_eval for start in starts)
    tiles = n_train * (n_train + 1) // 2 if symmetric else n_train**2
    return read / (tiles + n_train * n_eval)


def making_bytes(p: GramParameters, rows: int, columns: int) -> int:
    """Return the memory on the host in which a tile is made of Jacobian rows on two sides, these left out."""
    device_bytes = p.kernel_device.device_bytes
    return workspace_bytes(rows, columns) if device_bytes is None else 8 * rows * columns + 2 * device_bytes


def _memory(stage: Stage[GramParameters], variant: "Variant") -> tuple[int, int]:
    """Return the most bytes on the host and on a GPU."""
    sizes, device_bytes = variant.sizes, stage.parameters.kernel_device.device_bytes
    rows = min(sizes.shard_examples, max(sizes.n_train, sizes.n_eval)) * sizes.rows_per_example
    most = stage.together.held if stage.together else len(stage.within)
    resident = min(most, len(sizes.train_shards) + 1) * sizes.row_bytes_of(rows) + sizes.batch_bytes
    read = 2 * rows * max(sizes.group_parameters) * sizes.row_bytes
    if not stage.within and (held := _held(stage, variant)) > 2:
        kept = min(held, len(sizes.train_shards) + len(sizes.eval_shards)) * sizes.shard_bytes
        return _making(stage, variant) + kept, device_bytes or 0
    if device_bytes is None:
        return workspace_bytes(rows, rows) + (resident if stage.within else read), 0
    # On the host: the tile, and two chunks of rows on their way to the GPU.
    host = 8 * rows * rows + 2 * device_bytes
    return (host, device_bytes + resident) if stage.within else (host + read, device_bytes)


def plan(scope: SeedScope) -> None:
    """Add the tiles that some layer set needs, panel by panel: of training shards, then of evaluation shards."""
    sizes, place = scope.variant.sizes, scope.variant.rows_place
    train, evaluation = captures(scope, "train")[: sizes.dual_train_shards], captures(scope, "eval")
    if not train:
        return
    symmetric = scope.variant.sweep.spec.kernel.kind != "asymmetric_sign"
    blocks = kernel_blocks(scope.variant)
    for number, panel in enumerate(place.panels(len(train))):
        key = f"{scope.position}/{scope.seed}/{number}"
        together = Together(key, place.panel_shards + 1) if place.resident else None
        after = range(panel.stop, len(train))
        for row in (*panel, *after) if symmetric else (*panel, *range(panel.start), *after):
            for column in panel:
                if column <= row or not symmetric:
                    scope.add(tile(scope, train[row], train[column], blocks, together))
        for left in evaluation:
            for column in panel:
                scope.add(tile(scope, left, train[column], blocks, together))


def kernel_blocks(variant: "Variant") -> tuple[Block, ...]:
    """Return the blocks that are stored: what `kernel.blocks` says, or groups while they stay small."""
    section = variant.sweep.spec.kernel
    groups = tuple((group,) for group in variant.sizes.dual_groups)
    if section.blocks == "groups" or (section.blocks == "auto" and _block_bytes(variant) * len(groups) < MOST_BYTES):
        return groups
    sets = [each.groups for each in variant.layer_sets]
    if section.additions:
        # Each layer is added to sets that lack it, so that no block may span several.
        layers = {group.layer for group in variant.survey.groups}
        sets += [tuple(group.name for group in variant.survey.groups if group.layer == layer) for layer in layers]
    return atoms(variant.sizes.dual_groups, ([g for g in each if g in variant.sizes.dual_groups] for each in sets))


def _block_bytes(variant: "Variant") -> int:
    """Return the bytes of one block of all tiles."""
    M, M_eval = variant.sizes.kernel_rows(variant.sizes.n_train), variant.sizes.kernel_rows(variant.sizes.n_eval)
    return 8 * (M * (M + 1) // 2 + M_eval * M)


def tile(
    scope: SeedScope,
    left: Stage[CaptureParameters],
    right: Stage[CaptureParameters],
    blocks: Sequence[Block],
    together: Together | None = None,
) -> Stage[GramParameters]:
    """Return the stage that makes some kernel blocks for a pair of shards; rows that stay in memory are made in it."""
    spec = scope.variant.sweep.spec
    parameters = GramParameters(
        kind=spec.kernel.kind,
        outputs_per_example=scope.variant.survey.n_outputs if spec.kernel.outputs == "trace" else 1,
        gram_dtype=spec.compute.gram_dtype,
        threads=spec.compute.threads,
        rows=left.parameters.stop - left.parameters.start,
        columns=right.parameters.stop - right.parameters.start,
        blocks=tuple(blocks),
        own_rows=scope.variant.sizes.kernel_rows_per_example if _has_diagonal(left, right, spec.kernel.kind) else 0,
        kernel_device=KernelDevice.of(spec.compute),
    )
    within = () if together is None else (left,) if left is right else (left, right)
    return Stage(GRAM, parameters, {"left": (left.ref,), "right": (right.ref,)}, within, together)


def _has_diagonal(left: Stage[CaptureParameters], right: Stage[CaptureParameters], kind: KernelKind) -> bool:
    """Tell whether a tile holds K(x, x) of the examples of its rows: one tile does of each evaluation example."""
    return left.parameters.split == "eval" and right.parameters.start == 0 and kind != "asymmetric_sign"


def tiles_between(
    scope: SeedScope, left: Sequence[Stage[CaptureParameters]], right: Sequence[Stage[CaptureParameters]]
) -> list[Stage[GramParameters]]:
    """Return the tiles whose rows are of some shards, and whose columns of some others, row by row."""
    rows, columns = ({stage.stage_id: number for number, stage in enumerate(shards)} for shards in (left, right))
    found: dict[tuple[int, int], Stage[GramParameters]] = {}
    for stage in scope.stages(GRAM):
        row, column = rows.get(stage.inputs["left"][0][1]), columns.get(stage.inputs["right"][0][1])
        if row is not None and column is not None:
            found[row, column] = stage
    return [found[place] for place in sorted(found)]


GRAM = StageKind(
    name="gram",
    parameters=GramParameters,
    version=4,
    meaning="multiplies the rows of two shards: a tile of each kernel block",
    module="orchestrator.stages.gram.compute",
    plan=plan,
    cost=cost,
    advice="lower compute.shard_examples, or raise the budget",
)
