"""A variant of a sweep, with the facts that planning needs."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from orchestrator.sweep.blocks import block_name
from orchestrator.sweep.choices import Choice
from orchestrator.sweep.folder import Sweep
from orchestrator.sweep.layer_sets import HEAD, LayerSet
from orchestrator.sweep.refinements import Groups, Refinement, asked_before, refinements, row_sets
from orchestrator.sweep.residency import RowsPlace, rows_place
from orchestrator.sweep.sizes import Sizes
from orchestrator.sweep.survey_facts import Survey


@dataclass(frozen=True)
class Variant:
    """One task, rank and learning rate of a sweep's grid.

    Attributes:
        choice: its task, rank and learning rate.
        sweep: the sweep with only these.
        survey: facts about its model and data.
        sizes: how many rows, shards and tiles there are.
        layer_sets: the layer sets of the grid.
        reads_rows: why some stages read Jacobian rows from the disk; empty where none does.
    """

    choice: Choice
    sweep: Sweep
    survey: Survey
    sizes: Sizes
    layer_sets: tuple[LayerSet, ...]
    reads_rows: str = ""

    @cached_property
    def rows_place(self) -> RowsPlace:
        """Where the Jacobian rows are kept."""
        from orchestrator.sweep.passes import rows

        flops = rows(self, 1, self.sizes.groups).model_flops
        return rows_place(self.sweep, self.survey, self.sizes, self.reads_rows, flops)

    @cached_property
    def asked_before(self) -> "tuple[Variant, ...]":
        """The variant as its results folder was asked for it before, run by run."""
        return tuple(asked_before(self))

    @cached_property
    def row_sets(self) -> tuple[Groups, ...]:
        """Groups of the rows that were asked for, run by run."""
        return row_sets(self)

    def rows_with(self, groups: Iterable[str]) -> Groups:
        """Return the groups of the rows that serve some groups: those of the first run that asked for all of them."""
        if len(self.row_sets) == 1:
            return self.row_sets[0]
        wanted = frozenset(groups)
        return next(each for each in self.row_sets if wanted.issubset(each))

    @cached_property
    def rows_used(self) -> tuple[Groups, ...]:
        """The `row_sets` of kernel blocks, and of layer sets if rows are read for them, in their order."""
        used = {each.rows for each in self.refinements}
        if self.reads_rows:
            used |= {self.rows_with(each.groups) for each in self.layer_sets}
        return tuple(each for each in self.row_sets if each in used)

    @cached_property
    def refinements(self) -> tuple[Refinement, ...]:
        """The kernel blocks that are stored, in the order in which they were asked for."""
        return refinements(self)

    @cached_property
    def blocks(self) -> tuple[str, ...]:
        """Names of all kernel blocks that are stored."""
        return tuple(block_name(block) for each in self.refinements for block in each.blocks)

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return self.survey.model.n_layers

    @cached_property
    def layers_below(self) -> dict[str, int]:
        """How many layers lie below each group; none below modules outside the layers, for some have them above."""
        found = {group.name: group.layer or 0 for group in self.survey.groups}
        return found | {HEAD: self.n_layers}
