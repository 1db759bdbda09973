"""The stage `additions`: the effect of adding a layer on the spectrum of a layer set, with its bounds."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict

import numpy as np

from ntk_dist.arrays import FloatArray
from ntk_dist.solvers.band import reduce_symmetric
from ntk_dist.solvers.decomposition import Decomposition
from ntk_dist.solvers.eigen import EigenDecomposition
from ntk_dist.spectrum.bounds import added_block_bounds, first_order_extremes, violation
from ntk_dist.spectrum.spectrum import condition_number, machine_epsilon, noise_floor, products_eps
from orchestrator.errors import BrokenBoundError
from orchestrator.stages.additions import AdditionsParameters
from orchestrator.stages.context.blocks import sum_tiles
from orchestrator.stages.context.work import Product, Work
from orchestrator.store.stage import Stage


def compute(stage: Stage[AdditionsParameters], work: Work) -> Product:
    """Add to each layer set the groups that it lacks of each layer, block by block.

    The artifact holds the numbers of the table `additions`: one array (R,) for each column, with a row for each layer
    set and each block added to it, in the order of the stage's parameters.

    Raises:
        BrokenBoundError: an eigenvalue or a condition number lies outside of what is proven for it.
    """
    kernels = _Kernels(stage, work)
    layer_sets, added = stage.parameters.layer_sets, stage.parameters.added
    rows: dict[int, list[dict[str, float]]] = {}
    # The largest first: a layer set that is the sum of another one and its block is then decomposed once.
    for position in sorted(range(len(layer_sets)), key=lambda position: -len(layer_sets[position])):
        rows[position] = kernels.additions(layer_sets[position], added[position])
    in_order = [row for position in range(len(layer_sets)) for row in rows[position]]
    arrays = {name: np.array([row[name] for row in in_order]) for name in in_order[0]}
    return Product({}, work.write_arrays(stage, arrays))


class _Kernels:
    """Sums of the stored blocks of one problem and their extreme eigenvalues; each sum is decomposed once."""

    def __init__(self, stage: Stage[AdditionsParameters], work: Work) -> None:
        self._parameters = stage.parameters
        self._tiles = [*work.inputs(stage, "tiles"), *work.inputs(stage, "further_tiles")]
        self._size = stage.parameters.n_train * stage.parameters.rows_per_example
        self._ends: dict[frozenset[str], dict[str, float]] = {}

    def additions(self, groups: Sequence[str], added: Sequence[Sequence[str]]) -> list[dict[str, float]]:
        """Return a row for each of the blocks `added` to the layer set of `groups`."""
        K = self._matrix(groups)
        decomposition = EigenDecomposition(K.copy(order="F"))
        kernel = self._ends_of(groups, lambda: decomposition)

        def row(block_groups: Sequence[str]) -> dict[str, float]:
            S = self._matrix(block_groups)
            first_order = first_order_extremes(
                decomposition.eigenvectors, decomposition.eigenvalues, S, resolution=kernel["noise_floor"]
            )
            both = self._ends_of([*groups, *block_groups], lambda: reduce_symmetric(K + S))
            block = self._ends_of(block_groups, lambda: reduce_symmetric(S))
            found = _numbers(kernel, block, both, first_order, self._parameters.sigma)
            _check(found, f"{'+'.join(block_groups)} added to {'+'.join(groups)}")
            return found

        return [row(block_groups) for block_groups in added]

    def _matrix(self, groups: Sequence[str]) -> FloatArray:
        """Return the sum of the blocks of `groups`, (M, M), both triangles filled."""
        rows_per_example = self._parameters.rows_per_example
        K = sum_tiles(self._tiles, groups, (self._size, self._size), rows_per_example)
        for column in range(self._size):  # in place, for copies of the triangles would be as large as K
            K[column, column + 1 :] = K[column + 1 :, column]
        return K

    def _ends_of(self, groups: Collection[str], decompose: Callable[[], Decomposition]) -> dict[str, float]:
        """Return the extreme eigenvalues of the kernel of `groups` and the level below which eigenvalues are noise."""
        key = frozenset(groups)
        if key not in self._ends:
            found = decompose()
            smallest, largest = float(found.eigenvalues[0]), float(found.eigenvalues[-1])
            floor = noise_floor(
                largest,
                size=found.size,
                trace=found.trace,
                jacobian_eps=machine_epsilon(self._parameters.dtype, self._parameters.row_dtype),
                gram_eps=products_eps(self._parameters.gram_dtype, tf32=self._parameters.tf32),
            )
            self._ends[key] = {"sigma_max": largest, "sigma_min": smallest, "noise_floor": floor}
        return self._ends[key]


def _numbers(
    kernel: dict[str, float],
    block: dict[str, float],
    both: dict[str, float],
    first_order: tuple[float, float],
    sigma: float,
) -> dict[str, float]:
    smallest, largest = first_order
    bounds = added_block_bounds(
        kernel_max=kernel["sigma_max"],
        kernel_min=kernel["sigma_min"],
        block_max=block["sigma_max"],
        block_min=block["sigma_min"],
        sigma=sigma,
    )
    return {
        "kernel_sigma_max": kernel["sigma_max"],
        "kernel_sigma_min": kernel["sigma_min"],
        "kernel_condition_number": condition_number(kernel["sigma_max"], kernel["sigma_min"], sigma),
        "block_sigma_max": block["sigma_max"],
        "block_sigma_min": block["sigma_min"],
        **both,
        "condition_number": condition_number(both["sigma_max"], both["sigma_min"], sigma),
        **asdict(bounds),
        "sigma_max_first_order": largest,
        "sigma_min_first_order": smallest,
        "condition_number_first_order": condition_number(largest, smallest, sigma),
        "sigma": sigma,
    }


def _check(row: dict[str, float], what: str) -> None:
    """Check each number of a row against the bounds that are proven for it.

    Raises:
        BrokenBoundError: a bound is violated by more than rounding can explain.
    """
    size = row["kernel_sigma_max"] + row["block_sigma_max"]
    # Rounding changes condition numbers by as much as it changes eigenvalues, relative to the denominator.
    condition_size = row["condition_number_upper"] * (1 + size / (max(row["sigma_min"], 0.0) + row["sigma"]))
    # First-order estimates are Rayleigh quotients, so that bounds are proven for them too.
    proven = (
        ("sigma_max_lower", "sigma_max", size),
        ("sigma_max", "sigma_max_upper", size),
        ("sigma_max_first_order", "sigma_max", size),
        ("sigma_min_lower", "sigma_min", size),
        ("sigma_min", "sigma_min_upper", size),
        ("sigma_min", "sigma_min_first_order", size),
        ("condition_number", "condition_number_upper", condition_size),
    )
    for smaller, larger, scale in proven:
        if not violation(row[smaller], row[larger], scale) == 0:
            raise BrokenBoundError(
                f"{what}: {smaller} is {row[smaller]} and cannot exceed {larger}, {row[larger]}: that is an error in "
                "ntksweep; please report it with the spec"
            )
