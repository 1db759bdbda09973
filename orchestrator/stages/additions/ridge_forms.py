"""The form r^T (K + lambda I)^-1 r before and after a layer is added, and the bounds that are proven for it."""

import numpy as np

from ntk_dist.arrays import FloatArray
from ntk_dist.solvers.shifted import ShiftedMatrix
from ntk_dist.spectrum.bounds import added_block_form_factor, violation
from orchestrator.errors import BrokenBoundError


def inverse_form(matrix: ShiftedMatrix, rotated: FloatArray, lambdas: FloatArray) -> FloatArray:
    """Return tr r^T (T + lambda I)^-1 r, (L,), for r (M, k) in the basis in which the kernel is T."""
    return np.array([np.vdot(rotated, matrix.solve(rotated, float(shift))) for shift in lambdas])


def ridge_forms(
    before: FloatArray, after: FloatArray, lambdas: FloatArray, *, block_max: float, kernel_min: float
) -> dict[str, FloatArray]:
    """Return the columns with a number for each lambda, (L,) each.

    Args:
        before: form of the layer set's kernel K.
        after: that of K + S.
        lambdas: absolute.
        block_max: largest eigenvalue of S.
        kernel_min: what the smallest eigenvalue of K is at least.
    """
    least = added_block_form_factor(max(block_max, 0.0), kernel_min, lambdas)
    return {
        "lambdas": lambdas,
        "kernel_ridge_form": before,
        "ridge_form": after,
        "ridge_form_lower": before * least,
    }


def check_forms(forms: dict[str, FloatArray], noise: float, what: str) -> None:
    """Check the forms of each lambda at which they are numbers.

    Args:
        forms: of a block added to a layer set.
        noise: what rounding may move eigenvalues by, and so forms by this share of lambda.
        what: the block and the layer set.

    Raises:
        BrokenBoundError: a bound is violated by more than 1e-9 and rounding can explain.
    """
    scale = forms["kernel_ridge_form"] * (1 + 1e9 * noise / forms["lambdas"])
    for smaller, larger in (("ridge_form_lower", "ridge_form"), ("ridge_form", "kernel_ridge_form")):
        broken = np.flatnonzero(violation(forms[smaller], forms[larger], scale) > 0)
        if len(broken):
            first = int(broken[0])
            raise BrokenBoundError(
                f"{what}, lambda {forms['lambdas'][first]}: {smaller} is {forms[smaller][first]} and cannot exceed "
                f"{larger}, {forms[larger][first]}: that is an error in ntksweep; please report it with the spec"
            )
