"""LAPACK's reduction of a symmetric matrix in two stages, to a band and to tridiagonal form, which scipy does not wrap.

Bischof, Lang and Sun, A framework for symmetric band reduction, 2000; Haidar, Ltaief and Dongarra, Parallel reduction
to condensed forms for symmetric eigenvalue problems using aggregated fine-grained and memory-aware kernels, 2011.
"""

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from scipy.linalg import cython_lapack

from ntk_dist.arrays import FloatArray

SYMBOLS = ("scipy_{}_", "{}_")
"""How names of LAPACK's routines are spelled: in the OpenBLAS of scipy's own wheels, and in any other library."""

_LENGTH = ctypes.c_size_t(1)  # of a text argument, which Fortran takes after all others


class TwoStage:
    """The routines sytrd_sy2sb and sytrd_sb2st of one library."""

    def __init__(self, sy2sb: Callable[..., Any], sb2st: Callable[..., Any]) -> None:
        self._sy2sb = sy2sb
        self._sb2st = sb2st

    def to_band(self, A: FloatArray, width: int) -> tuple[FloatArray, FloatArray]:
        """Return the band of Q^T A Q and the scales of the reflectors of Q = diag(I, Q'), which replace A.

        The reflectors of Q' stand in A[width:, :-width] as qr would leave them.

        Args:
            A: (M, M) in Fortran order, of which the lower triangle is read.
            width: diagonals of the band below the main one, from 1 to M - 1.

        Returns:
            The diagonals (width + 1, M), the main one first, each from its first column on; and (M - width,).
        """
        n = len(A)
        band, tau = np.zeros((width + 1, n), order="F"), np.zeros(n - width)

        def reduce(work: FloatArray, length: int) -> None:
            matrix = (_number(n), _number(width), _at(A), _number(n), _at(band), _number(width + 1), _at(tau))
            self._call(self._sy2sb, b"L", *matrix, _at(work), _number(length))

        found = np.empty(1)
        reduce(found, -1)
        reduce(np.empty(int(found[0])), int(found[0]))
        return band, tau

    def to_tridiagonal(self, band: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return diagonal (M,) and off-diagonal (M - 1,) of a matrix with the eigenvalues of `band` (width + 1, M)."""
        width, n = len(band) - 1, band.shape[1]
        copied = np.array(band, order="F")
        diagonal, off = np.empty(n), np.empty(n - 1)

        def reduce(reflectors: FloatArray, work: FloatArray, lengths: tuple[int, int]) -> None:
            matrix = (_number(n), _number(width), _at(copied), _number(width + 1), _at(diagonal), _at(off))
            space = (_at(reflectors), _number(lengths[0]), _at(work), _number(lengths[1]))
            self._call(self._sb2st, b"Y", b"N", b"L", *matrix, *space)

        reflectors, work = np.empty(1), np.empty(1)
        reduce(reflectors, work, (-1, -1))
        lengths = int(reflectors[0]), int(work[0])
        reduce(np.empty(lengths[0]), np.empty(lengths[1]), lengths)
        return diagonal, off

    @staticmethod
    def _call(routine: Callable[..., Any], *arguments: Any) -> None:
        info = ctypes.c_int64(0)
        texts = sum(isinstance(each, bytes) for each in arguments)
        routine(*arguments, ctypes.byref(info), *[_LENGTH] * texts)
        if info.value:
            raise AssertionError(f"LAPACK refused an argument: info = {info.value}")


@cache
def find_two_stage(symbols: Sequence[str] = SYMBOLS) -> TwoStage | None:
    """Return the routines of the library that scipy's LAPACK comes from; None where it has them under no such name."""
    try:
        # A library's own symbols are looked up, and then those of the libraries that it is linked to.
        library = ctypes.CDLL(cython_lapack.__file__)
    except OSError:
        return None
    for symbol in symbols:
        found = [getattr(library, symbol.format(name), None) for name in ("dsytrd_sy2sb", "dsytrd_sb2st")]
        if found[0] is not None and found[1] is not None:
            return TwoStage(found[0], found[1])
    return None


def _number(value: int) -> Any:
    # 64 bits: a library with integers of 32 reads the lower half.
    return ctypes.byref(ctypes.c_int64(value))


def _at(array: FloatArray) -> Any:
    return array.ctypes.data_as(ctypes.c_void_p)
