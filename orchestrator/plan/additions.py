"""The stages that add layers to layer sets: for each layer set, every layer of the grid that it lacks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from orchestrator.spec import Spec
from orchestrator.stages.additions import ADDITIONS, AdditionsParameters
from orchestrator.store.stage import Stage
from orchestrator.sweep.layer_sets import GroupFacts, LayerSet
from orchestrator.sweep.sizes import Sizes

LAYER_SETS_A_STAGE = 8
"""Layer sets of one stage, which decomposes their common sums once; it affects the last bits of the numbers."""

MakeTile = Callable[[Stage, Stage, Sequence[str]], Stage]
Place = tuple[int, int]


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


@dataclass(frozen=True)
class Additions:
    """A stage `additions` and the rows that it fills.

    Attributes:
        stage: the stage.
        seed: seed of the grid.
        n_train: training examples.
        rows: the additions to layer sets, in the order of the artifact's arrays.
        variant: position of the variant that they belong to.
    """

    stage: Stage[AdditionsParameters]
    seed: int
    n_train: int
    rows: tuple[Addition, ...]
    variant: int = 0


class AdditionsPlanner:
    """Plans the additions of one seed.

    Args:
        spec: the spec.
        sizes: how many rows and shards there are.
        layer_sets: the layer sets of the grid.
        groups: every group of the model, in the model's order.
        shards: the captures of training examples.
        tiles: the stages that make the kernel blocks which `solve` stages read, by the positions of their shards.
        make_tile: returns the stage that makes the kernel blocks of some groups for a pair of shards.
    """

    def __init__(
        self,
        *,
        spec: Spec,
        sizes: Sizes,
        layer_sets: Sequence[LayerSet],
        groups: Sequence[GroupFacts],
        shards: Sequence[Stage],
        tiles: Mapping[Place, Stage],
        make_tile: MakeTile,
    ) -> None:
        self._spec = spec
        self._sizes = sizes
        self._layer_sets = layer_sets
        self._groups = groups
        self._shards = shards
        self._tiles = tiles
        self._make_tile = make_tile

    @cached_property
    def further_tiles(self) -> dict[Place, Stage]:
        """The stages that make kernel blocks for additions that no `solve` stage reads, by shards.

        Layer sets with few parameters are solved without blocks. Existing blocks are used as they are, so that
        additions can join a sweep that was run without them.
        """
        used = {name for rows in self._added for row in rows for name in (*row.layer_set.groups, *row.groups)}
        needed = [name for name in self._sizes.groups if name in used]
        found = {}
        for row, left in enumerate(self._shards):
            for column, right in enumerate(self._shards[: row + 1]):
                there = self._sizes.dual_groups if (row, column) in self._tiles else ()
                lacking = [name for name in needed if name not in there]
                if lacking:
                    found[row, column] = self._make_tile(left, right, lacking)
        return found

    def additions(self, seed: int) -> Iterator[Additions]:
        """Yield the stages that add layers: for each training-set size, stages for all layer sets that lack a layer."""
        for n_train in dict.fromkeys(self._spec.grid.n_train):
            inputs = self._inputs(n_train)
            for start in range(0, len(self._added), LAYER_SETS_A_STAGE):
                part = self._added[start : start + LAYER_SETS_A_STAGE]
                stage = Stage(ADDITIONS, self._parameters(n_train, part), inputs)
                yield Additions(stage, seed, n_train, tuple(row for rows in part for row in rows))

    @cached_property
    def _added(self) -> list[list[Addition]]:
        """Missing groups of each layer that the grid touches, for each layer set that lacks some."""
        added = [list(self._lacking(layer_set)) for layer_set in self._layer_sets]
        return [rows for rows in added if rows]

    def _lacking(self, layer_set: LayerSet) -> Iterator[Addition]:
        facts = [group for group in self._groups if group.name in self._sizes.groups and group.layer is not None]
        for layer in sorted({group.layer for group in facts if group.layer is not None}):
            lacking = [group for group in facts if group.layer == layer and group.name not in layer_set.groups]
            if lacking:
                n_parameters = sum(group.n_parameters for group in lacking)
                yield Addition(layer_set, layer, tuple(group.name for group in lacking), n_parameters)

    def _inputs(self, n_train: int) -> dict[str, tuple[tuple[str, str], ...]]:
        shards = self._sizes.shards_of(n_train)
        return {
            role: tuple((tile.kind, tile.stage_id) for place, tile in tiles.items() if max(place) < shards)
            for role, tiles in (("tiles", self._tiles), ("further_tiles", self.further_tiles))
        }

    def _parameters(self, n_train: int, part: Sequence[Sequence[Addition]]) -> AdditionsParameters:
        compute = self._spec.compute
        return AdditionsParameters(
            n_train=n_train,
            rows_per_example=self._sizes.kernel_rows_per_example,
            sigma=self._spec.kernel.sigma,
            dtype=self._spec.model.dtype,
            row_dtype=self._spec.row_dtype,
            gram_dtype=compute.gram_dtype,
            threads=compute.threads,
            tf32=compute.tf32,
            layer_sets=tuple(rows[0].layer_set.groups for rows in part),
            added=tuple(tuple(row.groups for row in rows) for rows in part),
        )
