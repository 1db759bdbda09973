"""The square float64 matrices that the decompositions take."""

import numpy as np

from ntk_dist.arrays import FloatArray
from ntk_dist.errors import NonFiniteError, NtkError


class KernelShapeError(NtkError):
    """A kernel matrix is not square, not float64, or does not fit what it is used with."""


def as_lapack(K: FloatArray) -> FloatArray:
    """Check that K (M, M) is a non-empty square float64 matrix and return it in Fortran order.

    A writable matrix in Fortran order is returned itself, so that LAPACK overwrites it in place; any other
    is copied. Raises KernelShapeError.
    """
    if K.ndim != 2 or K.shape[0] != K.shape[1] or not K.size or K.dtype != np.float64:
        raise KernelShapeError(
            f"a kernel must be a non-empty square float64 matrix, got shape {K.shape} and dtype {K.dtype}: "
            "sum its blocks in float64 before decomposing it"
        )
    return np.require(K, requirements=["F_CONTIGUOUS", "WRITEABLE"])


def check_finite(K: FloatArray, *, lower_only: bool) -> None:
    """Raise NonFiniteError, with an offending place, if K (M, M) holds nan or inf.

    With `lower_only` the entries above the diagonal are ignored.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        if np.isfinite(K.sum()):
            return
    for column in range(K.shape[1]):
        first = column if lower_only else 0
        bad = np.flatnonzero(~np.isfinite(K[first:, column]))
        if bad.size:
            raise NonFiniteError(
                f"the kernel entry of rows {first + int(bad[0])} and {column} is not finite: "
                "look for nan or inf in the Jacobian rows of these two examples"
            )
