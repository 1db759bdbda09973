"""What all kept data of decompositions share: arrays in the order that they have in a file, and orthonormal bases."""

from dataclasses import fields

import numpy as np
import scipy.linalg

from ntk_dist.arrays import FloatArray

TOLERANCE = 1e-14
"""Directions of the space that are smaller than this, relative to the largest, are rounding errors."""


class InCOrder:
    """Arrays in the order that they have in a file: sums over them then have the same bits before and after."""

    def __post_init__(self) -> None:
        for each in fields(self):  # type: ignore[arg-type]
            value = getattr(self, each.name)
            if isinstance(value, np.ndarray):
                object.__setattr__(self, each.name, np.ascontiguousarray(value))


def orthonormal_basis(columns: FloatArray) -> FloatArray:
    """Return an orthonormal basis (q, m) of columns (q, N), which all count equally, independently of their norms.

    Columns that are zero or not finite are left out. Pivoting tells how many directions there are.
    """
    sizes = np.linalg.norm(columns, axis=0)
    usable = np.isfinite(sizes) & (sizes > 0)
    if not usable.any():
        return np.empty((len(columns), 0))
    scaled = np.asfortranarray(columns[:, usable] / sizes[usable])
    (reflectors, tau), R, _ = scipy.linalg.qr(scaled, mode="raw", pivoting=True, overwrite_a=True, check_finite=False)
    diagonal = np.abs(np.diag(R))
    m = int((diagonal > TOLERANCE * diagonal[0]).sum())
    basis: FloatArray
    basis, _, info = scipy.linalg.lapack.dorgqr(reflectors[:, :m], tau[:m])
    if info:
        raise AssertionError(f"orgqr refused its argument {-info}")
    return basis
