"""Limits on the stages and cells of a plan, checked before any of them is made."""

from collections.abc import Sequence
from math import comb

from orchestrator.errors import SpecError
from orchestrator.spec.grid_section import LayerSetChoice, SubsetsUpTo
from orchestrator.sweep.layer_sets import KEY
from orchestrator.sweep.variant import Variant

MOST_LAYER_SETS = 100_000
"""Layer sets that one choice of a grid may describe."""

MOST_STAGES = 500_000
"""Stages of a plan, each with files of its own; planning takes a minute for each million."""

MOST_CELLS = 100_000_000
"""Cells of a grid, each a row of the tables."""


def refuse_too_many_layer_sets(choices: Sequence[LayerSetChoice], n_layers: int) -> None:
    """Raise an error if a choice describes more layer sets than can be listed.

    Args:
        choices: the section `grid.layer_sets` of a spec.
        n_layers: number of layers of the model that have a target.

    Raises:
        SpecError: names the choice.
    """
    for choice in choices:
        if not isinstance(choice, SubsetsUpTo):
            continue
        count = sum(comb(n_layers, size) for size in range(1, min(choice.subsets, n_layers) + 1))
        if count > MOST_LAYER_SETS:
            raise SpecError(
                f"the {n_layers} layers of this model have {count:.3g} subsets of up to "
                f"{choice.subsets} layers, and {MOST_LAYER_SETS:,} are the most; give a smaller `subsets`",
                key=KEY,
            )


def refuse_too_many_stages(variant: Variant, n_variants: int) -> None:
    """Raise an error if the plan of a sweep would have more stages or cells than can be planned.

    Args:
        variant: a variant of the sweep.
        n_variants: how many variants it has.

    Raises:
        SpecError: names the cause of their large number.
    """
    grid, sizes = variant.sweep.spec.grid, variant.sizes
    seeds = len(set(grid.seeds)) * n_variants
    train, evaluation = sizes.shards_of(sizes.n_train), -(-sizes.n_eval // sizes.shard_examples)
    shards = train + evaluation
    tiles = sizes.dual_train_shards * (sizes.dual_train_shards + 1) // 2 + sizes.dual_train_shards * evaluation
    tiles *= len(variant.refinements)
    problems = seeds * len(set(grid.n_train))
    strengths = len(grid.lambdas.numbers())
    if seeds * (shards + tiles) > MOST_STAGES:
        raise SpecError(
            f"the plan would have {seeds * (shards + tiles):.3g} stages, and {MOST_STAGES:,} are the most: {seeds:,} "
            f"seeds, each with {shards:,} shards of {sizes.shard_examples} examples and "
            f"{tiles:,} kernel tiles; set compute.shard_examples larger, or give fewer seeds or examples",
            key="grid",
        )
    each = _stages_of_a_layer_set(variant, strengths)
    by_set = problems * len(variant.layer_sets) * each
    if seeds * (shards + tiles) + by_set > MOST_STAGES:
        raise SpecError(
            f"the plan would have about {by_set:,} stages that solve and train, and {MOST_STAGES:,} stages are the "
            f"most: {problems:,} sets of task, rank, learning rate, seed and training-set size, and "
            f"{len(variant.layer_sets):,} layer sets with {each} stages each; give fewer, or divide them among several "
            "specs",
            key="grid",
        )
    cells = problems * len(variant.layer_sets) * strengths
    if cells > MOST_CELLS:
        raise SpecError(
            f"the grid would have {cells:,} cells, and {MOST_CELLS:,} are the most: {problems:,} sets of task, "
            f"rank, learning rate, seed and training-set size, {len(variant.layer_sets):,} layer sets and "
            f"{strengths:,} lambdas; give fewer",
            key="grid",
        )


def _stages_of_a_layer_set(variant: Variant, strengths: int) -> int:
    """Return the most stages that solve and train a layer set of one seed and training-set size."""
    finetune = variant.sweep.spec.finetune
    if finetune is None:
        return 1
    # The model, its linearization, and their comparison.
    return 1 + 3 * -(-strengths // finetune.stacked_cells)
