"""The stage `additions`: the effect of adding a layer on the spectrum of a layer set, with its bounds."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from ntk_dist.arrays import FloatArray
from ntk_dist.solvers.band import reduce_symmetric
from ntk_dist.solvers.eigen import EigenDecomposition
from ntk_dist.solvers.reduced import ReducedDecomposition
from ntk_dist.spectrum.bounds import added_block_bounds, first_order_extremes, violation
from ntk_dist.spectrum.spectrum import condition_number, machine_epsilon, noise_floor, products_eps
from orchestrator.errors import BrokenBoundError
from orchestrator.stages.additions import AdditionsParameters
from orchestrator.stages.additions.residual import residual_of
from orchestrator.stages.additions.ridge_forms import check_forms, inverse_form, ridge_forms
from orchestrator.stages.context.blocks import sum_tiles
from orchestrator.stages.context.work import Product, Work
from orchestrator.stages.solve.path import Strengths, for_solving
from orchestrator.store.stage import Stage

Row = dict[str, float | FloatArray]
"""Numbers of a row of the table, by column."""

_Decomposed = EigenDecomposition | ReducedDecomposition[Any]


def compute(stage: Stage[AdditionsParameters], work: Work) -> Product:
    """Add to each layer set the groups that it lacks of each layer, block by block.

    The artifact holds the numbers of the table `additions`: one array (R,) for each column, or (R, L) for those with a
    number for each lambda, with a row for each layer set and each block added to it, in the order of the stage's
    parameters.

    Raises:
        BrokenBoundError: an eigenvalue, a condition number or a ridge form lies outside of what is proven for it.
    """
    kernels = _Kernels(stage, work)
    layer_sets, added = stage.parameters.layer_sets, stage.parameters.added
    rows: dict[int, list[Row]] = {}
    # The largest first: a layer set that is the sum of another one and its block is then decomposed once.
    for position in sorted(range(len(layer_sets)), key=lambda position: -len(layer_sets[position])):
        rows[position] = kernels.additions(layer_sets[position], added[position])
    in_order = [row for position in range(len(layer_sets)) for row in rows[position]]
    arrays = {name: np.array([row[name] for row in in_order]) for name in in_order[0]}
    return Product({}, work.write_arrays(stage, arrays))


@dataclass(frozen=True, eq=False)
class _Sum:
    """What is kept of the kernel of some groups: no matrix.

    Attributes:
        sigma_max, sigma_min: its extreme eigenvalues.
        noise_floor: the level below which its eigenvalues are noise.
        trace: its trace.
        ridge_form: from lambdas (L,) to r^T (K + lambda I)^-1 r (L,).
    """

    sigma_max: float
    sigma_min: float
    noise_floor: float
    trace: float
    ridge_form: Callable[[FloatArray], FloatArray]


class _Kernels:
    """Sums of the stored blocks of one problem and what is kept of each; each sum is decomposed once."""

    def __init__(self, stage: Stage[AdditionsParameters], work: Work) -> None:
        self._parameters = stage.parameters
        self._tiles = [*work.inputs(stage, "tiles"), *work.inputs(stage, "further_tiles")]
        self._size = stage.parameters.n_train * stage.parameters.rows_per_example
        self._residual = residual_of(stage, work, self._tiles)
        self._sums: dict[frozenset[str], _Sum] = {}

    def additions(self, groups: Sequence[str], added: Sequence[Sequence[str]]) -> list[Row]:
        """Return a row for each of the blocks `added` to the layer set of `groups`."""
        K = self._matrix(groups)
        decomposition = EigenDecomposition(K.copy(order="F"))
        kernel = self._sum_of(groups, lambda: decomposition)
        p = self._parameters
        lambdas = Strengths(p.lambdas, p.lambda_scale).of(kernel.trace, self._size)
        solved, has_unit = for_solving(lambdas), not np.isnan(lambdas).any()

        def row(block_groups: Sequence[str]) -> Row:
            S = self._matrix(block_groups)
            first_order = first_order_extremes(
                decomposition.eigenvectors, decomposition.eigenvalues, S, resolution=kernel.noise_floor
            )
            both = self._sum_of([*groups, *block_groups], lambda: reduce_symmetric(K + S))
            block = self._sum_of(block_groups, lambda: reduce_symmetric(S))
            found = _numbers(kernel, block, both, first_order, self._parameters.sigma)
            forms = ridge_forms(
                kernel.ridge_form(solved),
                both.ridge_form(solved),
                solved,
                block_max=block.sigma_max,
                kernel_min=kernel.sigma_min - kernel.noise_floor,
            )
            what = f"{'+'.join(block_groups)} added to {'+'.join(groups)}"
            _check(found, what)
            check_forms(forms, kernel.noise_floor + block.noise_floor + both.noise_floor, what)
            return {**found, **{name: values if has_unit else lambdas for name, values in forms.items()}}

        return [row(block_groups) for block_groups in added]

    def _matrix(self, groups: Sequence[str]) -> FloatArray:
        """Return the sum of the blocks of `groups`, (M, M), both triangles filled."""
        rows_per_example = self._parameters.rows_per_example
        K = sum_tiles(self._tiles, groups, (self._size, self._size), rows_per_example)
        for column in range(self._size):  # in place, for copies of the triangles would be as large as K
            K[column, column + 1 :] = K[column + 1 :, column]
        return K

    def _sum_of(self, groups: Collection[str], decompose: Callable[[], _Decomposed]) -> _Sum:
        """Return what is kept of the kernel of `groups`."""
        key = frozenset(groups)
        if key not in self._sums:
            found = decompose()
            smallest, largest = float(found.eigenvalues[0]), float(found.eigenvalues[-1])
            floor = noise_floor(
                largest,
                size=found.size,
                trace=found.trace,
                jacobian_eps=machine_epsilon(self._parameters.dtype, self._parameters.row_dtype),
                gram_eps=products_eps(self._parameters.gram_dtype, tf32=self._parameters.tf32),
            )
            form = partial(inverse_form, found.matrix, found.rotated(self._residual))
            self._sums[key] = _Sum(largest, smallest, floor, found.trace, form)
        return self._sums[key]


def _numbers(
    kernel: _Sum,
    block: _Sum,
    both: _Sum,
    first_order: tuple[float, float],
    sigma: float,
) -> dict[str, float]:
    smallest, largest = first_order
    bounds = added_block_bounds(
        kernel_max=kernel.sigma_max,
        kernel_min=kernel.sigma_min,
        block_max=block.sigma_max,
        block_min=block.sigma_min,
        sigma=sigma,
    )
    return {
        "kernel_sigma_max": kernel.sigma_max,
        "kernel_sigma_min": kernel.sigma_min,
        "kernel_condition_number": condition_number(kernel.sigma_max, kernel.sigma_min, sigma),
        "block_sigma_max": block.sigma_max,
        "block_sigma_min": block.sigma_min,
        "sigma_max": both.sigma_max,
        "sigma_min": both.sigma_min,
        "noise_floor": both.noise_floor,
        "condition_number": condition_number(both.sigma_max, both.sigma_min, sigma),
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
