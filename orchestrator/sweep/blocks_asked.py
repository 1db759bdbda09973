"""What a results folder was asked to store kernel blocks for, run by run: what was made of them stays."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from orchestrator.spec import Spec
from orchestrator.spec.grid_section import LayerSetChoice


class BlocksAsked(BaseModel):
    """The values of a spec from which its kernel blocks follow, for one model.

    Attributes:
        layer_sets: layer sets of the grid, as the spec gives them.
        n_train: training-set sizes, which decide what is solved from blocks.
        blocks: what each block sums.
        additions: whether layers are added to layer sets.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    layer_sets: tuple[LayerSetChoice, ...]
    n_train: tuple[int, ...]
    blocks: Literal["auto", "groups", "atoms"]
    additions: bool

    @classmethod
    def by(cls, spec: Spec) -> "BlocksAsked":
        """Return what a spec asks for."""
        grid, kernel = spec.grid, spec.kernel
        return cls(layer_sets=grid.layer_sets, n_train=grid.n_train, blocks=kernel.blocks, additions=kernel.additions)

    def within(self, spec: Spec) -> Spec:
        """Return a spec that asks for it, and is another one in everything else."""
        grid = spec.grid.model_copy(update={"layer_sets": self.layer_sets, "n_train": self.n_train})
        kernel = spec.kernel.model_copy(update={"blocks": self.blocks, "additions": self.additions})
        return spec.model_copy(update={"grid": grid, "kernel": kernel})


def with_asked(before: Sequence[BlocksAsked], spec: Spec) -> list[BlocksAsked]:
    """Return what was asked for before, and what a spec asks for if that is new."""
    asked = BlocksAsked.by(spec)
    return [*before] if asked in before else [*before, asked]
