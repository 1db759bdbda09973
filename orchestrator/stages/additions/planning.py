"""The stages that add layers to layer sets: for each layer set, every layer of the grid that it lacks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.stages.additions import ADDITIONS, AdditionsParameters
from orchestrator.stages.base.cells import Filled
from orchestrator.stages.base.scope import SeedScope, refs
from orchestrator.stages.capture import captures
from orchestrator.stages.dataset import DATASET
from orchestrator.stages.gram import GRAM, GramParameters, tile
from orchestrator.store.stage import Inputs, Stage
from orchestrator.sweep.layer_sets import LayerSet
from orchestrator.sweep.variant import Variant

LAYER_SETS_A_STAGE = 8
"""Layer sets of one stage, which decomposes their common sums once; it affects the last bits of the numbers."""


@dataclass(frozen=True)
class Addition:
    """The groups of a layer that a layer set lacks.

    Attributes:
        layer_set: the layer set.
        layer: number of the layer.
        groups: the groups of the layer that other layer sets of the grid have and this one has not.
        n_parameters: parameters of those groups.
    """

    layer_set: LayerSet
    layer: int
    groups: tuple[str, ...]
    n_parameters: int


@dataclass(frozen=True, kw_only=True)
class Additions(Filled):
    """A stage `additions` and the rows that it fills.

    Attributes:
        rows: the additions to layer sets, in the order of the artifact's arrays.
    """

    stage: Stage[AdditionsParameters]
    rows: tuple[Addition, ...]


def plan_additions(scope: SeedScope) -> None:
    """Add, for each training-set size, stages for all layer sets that lack a layer, and the tiles that they need."""
    added = [rows for layer_set in scope.variant.layer_sets if (rows := list(_lacking(scope.variant, layer_set)))]
    tiles = _tiles(scope)
    further = _further_tiles(scope, added, tiles)
    for n_train in dict.fromkeys(scope.variant.sweep.spec.grid.n_train):
        shards = scope.variant.sizes.shards_of(n_train)
        inputs: Inputs = scope.inputs(n_train, DATASET) | {
            role: refs([stage for place, stages in of_role.items() if max(place) < shards for stage in stages])
            for role, of_role in (("tiles", tiles), ("further_tiles", further))
        }
        for start in range(0, len(added), LAYER_SETS_A_STAGE):
            part = added[start : start + LAYER_SETS_A_STAGE]
            stage = Stage(ADDITIONS, _parameters(scope.variant, n_train, part), inputs)
            if stage.stage_id in scope.planning.stages:
                continue  # variants that differ in the learning rate alone add the same
            scope.planning.fill(
                Additions(
                    stage=stage,
                    variant=scope.position,
                    seed=scope.seed,
                    n_train=n_train,
                    rows=tuple(row for of_set in part for row in of_set),
                )
            )


def _lacking(variant: Variant, layer_set: LayerSet) -> Iterator[Addition]:
    """Yield the missing groups of each layer that the grid touches."""
    facts = [group for group in variant.survey.groups if group.name in variant.sizes.groups and group.layer is not None]
    for layer in sorted({group.layer for group in facts if group.layer is not None}):
        lacking = [group for group in facts if group.layer == layer and group.name not in layer_set.groups]
        if lacking:
            n_parameters = sum(group.n_parameters for group in lacking)
            yield Addition(layer_set, layer, tuple(group.name for group in lacking), n_parameters)


Tiles = dict[tuple[int, int], list[Stage[GramParameters]]]
"""Tiles by the positions of the shards of their rows and columns; several hold different blocks."""


def _tiles(scope: SeedScope) -> Tiles:
    """Return the tiles of pairs of training shards that `solve` stages read, by the positions of the shards."""
    positions = {
        stage.stage_id: position
        for groups in scope.variant.row_sets
        for position, stage in enumerate(captures(scope, "train", groups))
    }
    found: Tiles = {}
    for stage in scope.stages(GRAM):
        left, right = (positions.get(stage.inputs[side][0][1]) for side in ("left", "right"))
        if left is not None and right is not None:
            found.setdefault((left, right), []).append(stage)
    return dict(sorted(found.items()))


def _further_tiles(scope: SeedScope, added: Sequence[Sequence[Addition]], tiles: Tiles) -> Tiles:
    """Add the stages that make kernel blocks for additions that no `solve` stage reads; return them by shards.

    Layer sets with few parameters are solved without blocks. Existing blocks are used as they are, so that additions
    can join a sweep that was run without them.
    """
    sizes = scope.variant.sizes
    used = {name for rows in added for row in rows for name in (*row.layer_set.groups, *row.groups)}
    needed = [name for name in sizes.groups if name in used]
    shards = captures(scope, "train", scope.variant.rows_with(needed))
    found: Tiles = {}
    for row, left in enumerate(shards):
        for column, right in enumerate(shards[: row + 1]):
            there = sizes.dual_groups if (row, column) in tiles else ()
            lacking = [name for name in needed if name not in there]
            if lacking:
                found[row, column] = [scope.add(tile(scope, left, right, [(name,) for name in lacking]))]
    return found


def _parameters(variant: Variant, n_train: int, part: Sequence[Sequence[Addition]]) -> AdditionsParameters:
    spec = variant.sweep.spec
    return AdditionsParameters(
        n_train=n_train,
        rows_per_example=variant.sizes.kernel_rows_per_example,
        sigma=spec.kernel.sigma,
        dtype=spec.model.dtype,
        row_dtype=spec.row_dtype,
        gram_dtype=spec.compute.gram_dtype,
        threads=spec.compute.threads,
        tf32=spec.compute.tf32,
        layer_sets=tuple(rows[0].layer_set.groups for rows in part),
        added=tuple(tuple(row.groups for row in rows) for rows in part),
        task_kind=spec.task.kind,
        n_outputs=variant.survey.n_outputs,
        outputs=spec.kernel.outputs,
        lambdas=spec.grid.lambdas.numbers(),
        lambda_scale=spec.grid.lambdas.scale,
    )
