"""Greedy forward selection of layers from stored kernel blocks, seed by seed, beside baselines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.errors import SpecError
from orchestrator.results.selection.baselines import baseline_values, weight_conditions
from orchestrator.results.selection.criteria import Criterion
from orchestrator.results.selection.stored import StoredKernels, layers_of
from orchestrator.stages.base.cells import Solve
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.resources import limited_threads
from orchestrator.sweep.variant import Variant


@dataclass(frozen=True)
class Step:
    """A step of forward selection.

    Attributes:
        layer: the layer that it added.
        value: the criterion of the layers chosen so far, this one included.
        baselines: the criterion of as many layers chosen otherwise, by the name of the baseline.
    """

    layer: int
    value: float
    baselines: Mapping[str, float]


@dataclass(frozen=True)
class SeedSelection:
    """The choices of forward selection with the kernels of one seed."""

    seed: int
    steps: list[Step]


@dataclass(frozen=True)
class Selection:
    """Forward selection of a sweep.

    Attributes:
        layers: the layers that it chose among.
        seeds: what each seed chose, in the order of the grid.
        agreement: for each step, the number of seeds that had chosen the same layers as the first one, in any order,
            the first one included.
        without_weights: why there are no baselines by weight condition number; empty if there are.
    """

    layers: list[int]
    seeds: list[SeedSelection]
    agreement: list[int]
    without_weights: str


def select_layers(
    variant: Variant, solves: Sequence[Solve], folder: ResultsFolder, criterion: Criterion, n_layers: int
) -> Selection:
    """Choose layers one at a time, each the one that makes the criterion best, for every seed by itself.

    It begins with the head, where that is in the kernel, and else with nothing. No model is run.

    Args:
        variant: a variant of the sweep.
        solves: the stages that fill its cells.
        folder: the results folder of the sweep.
        criterion: the criterion.
        n_layers: number of layers to choose.

    Raises:
        SpecError: the grid has fewer layers.
        ResultsError: kernel blocks are not stored; the message names them, and how to get them.
    """
    layers = layers_of(variant, solves)
    if not 1 <= n_layers <= len(layers):
        raise SpecError(
            f"--greedy {n_layers}: the sweep's layer sets touch {len(layers)} layers; give 1 to {len(layers)}"
        )
    spec = variant.sweep.spec
    with limited_threads(spec.compute.threads):
        weights, without_weights = weight_conditions(variant, layers)
        seeds = [
            _of_seed(StoredKernels(variant, solves, folder, seed), seed, criterion, n_layers, weights)
            for seed in dict.fromkeys(spec.grid.seeds)
        ]
    chosen = [[step.layer for step in each.steps] for each in seeds]
    return Selection(list(layers), seeds, agreement(chosen), without_weights)


def forward_selection(kernels: StoredKernels, criterion: Criterion, n_layers: int) -> list[tuple[int, float]]:
    """Return (layer, value) of each step: the added layer and the criterion of all layers chosen so far.

    The kernel of the chosen layers is kept, so that a candidate costs its own block and one decomposition. Among
    equally good layers the lowest is chosen.
    """
    chosen: list[tuple[int, float]] = []
    kernel = kernels.start()
    left = list(kernels.layers)
    for _ in range(n_layers):
        values = {layer: kernels.value(kernel.plus(kernels.block(layer)), criterion) for layer in left}
        best = min(left, key=lambda layer: criterion.badness(values[layer]))
        chosen.append((best, values[best]))
        left.remove(best)
        kernel = kernel.plus(kernels.block(best))
    return chosen


def agreement(chosen: Sequence[Sequence[int]]) -> list[int]:
    """Return for each step the number of sequences with the same layers so far as the first one."""
    return [sum(set(each[:end]) == set(chosen[0][:end]) for each in chosen) for end in range(1, len(chosen[0]) + 1)]


def _of_seed(
    kernels: StoredKernels, seed: int, criterion: Criterion, n_layers: int, weights: Mapping[int, float]
) -> SeedSelection:
    steps = [
        Step(layer, value, baseline_values(kernels, criterion, size, weights))
        for size, (layer, value) in enumerate(forward_selection(kernels, criterion, n_layers), start=1)
    ]
    return SeedSelection(seed, steps)
