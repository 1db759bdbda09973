"""The kind `gram`: the tiles of all kernel blocks for one pair of shards."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ntk_dist.kernel.features import KernelKind
from orchestrator.spec.compute_section import GramDType
from orchestrator.stages.base.parameters import KernelDevice
from orchestrator.stages.base.scope import SeedScope
from orchestrator.stages.capture import CaptureParameters, Split, captures
from orchestrator.store.stage import Stage, StageCost, StageKind, Together
from orchestrator.sweep.blocks import Block

if TYPE_CHECKING:
    from orchestrator.sweep.variant import Variant

Capture = Stage[CaptureParameters]


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
    from orchestrator.stages.gram.costs import gram_cost

    return gram_cost(stage, variant)


def plan(scope: SeedScope) -> None:
    """Add the tiles that some layer set needs, panel by panel: of training shards, then of evaluation shards."""
    sizes, place = scope.variant.sizes, scope.variant.rows_place
    for number, refinement in enumerate(scope.variant.refinements):
        train = captures(scope, "train", refinement.rows)[: sizes.dual_train_shards]
        evaluation = captures(scope, "eval", refinement.rows)
        for position, panel in enumerate(place.panels(len(train))):
            key = f"{scope.position}/{scope.seed}/{number}/{position}"
            together = Together(key, place.panel_shards + 1) if place.resident else None
            for left, right in _pairs(scope, panel, train, evaluation):
                _tiles_of(scope, number).append(scope.add(tile(scope, left, right, refinement.blocks, together)))


def _pairs(
    scope: SeedScope, panel: range, train: Sequence[Capture], evaluation: Sequence[Capture]
) -> Iterator[tuple[Capture, Capture]]:
    """Yield the shards of the rows and of the columns of each tile of a panel."""
    symmetric = scope.variant.sweep.spec.kernel.kind != "asymmetric_sign"
    after = range(panel.stop, len(train))
    for row in (*panel, *after) if symmetric else (*panel, *range(panel.start), *after):
        for column in panel:
            if column <= row or not symmetric:
                yield train[row], train[column]
    for left in evaluation:
        for column in panel:
            yield left, train[column]


def tile(
    scope: SeedScope,
    left: Capture,
    right: Capture,
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


def _has_diagonal(left: Capture, right: Capture, kind: KernelKind) -> bool:
    """Tell whether a tile holds K(x, x) of the examples of its rows: one tile does of each evaluation example."""
    return left.parameters.split == "eval" and right.parameters.start == 0 and kind != "asymmetric_sign"


def tiles_of_kernel(
    scope: SeedScope, split: Split, n_train: int, refinements: Sequence[int]
) -> list[Stage[GramParameters]]:
    """Return the tiles of the kernel of a split's examples and the first `n_train` training examples, row by row.

    Those of each refinement, given by its position, follow those of the one before.
    """
    found: list[Stage[GramParameters]] = []
    shards = scope.variant.sizes.shards_of(n_train)
    for refinement in refinements:
        groups = scope.variant.refinements[refinement].rows
        right = captures(scope, "train", groups)[:shards]
        left = right if split == "train" else captures(scope, split, groups)
        rows, columns = ({stage.stage_id: number for number, stage in enumerate(side)} for side in (left, right))
        placed: dict[tuple[int, int], Stage[GramParameters]] = {}
        for stage in _tiles_of(scope, refinement):
            row, column = rows.get(stage.inputs["left"][0][1]), columns.get(stage.inputs["right"][0][1])
            if row is not None and column is not None:
                placed[row, column] = stage
        found += (placed[place] for place in sorted(placed))
    return found


def _tiles_of(scope: SeedScope, refinement: int) -> list[Stage[GramParameters]]:
    """Return the tiles of a refinement that were added to a seed so far, a list to add to."""
    return scope.kept((GRAM.name, refinement), list)


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
