"""The ends of a spectrum from products with the kernel alone."""

import inspect
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, eigsh

from ntk_dist.kernel_matrix import FloatArray
from ntk_dist.tile_operator import TileOperator

Side = Literal["largest", "smallest"]

COUNT = 4
TOLERANCE = 1e-12
SEARCH: dict[Side, tuple[int, int]] = {"largest": (64, 6), "smallest": (512, 2)}
"""Vectors that ARPACK keeps, and how often it fills them anew: small eigenvalues of kernels lie close together, and of
restarted searches those that keep more vectors need fewer products."""


@dataclass(frozen=True, eq=False)
class End:
    """Eigenvalues at one end of a spectrum, from the end inwards.

    values: (q,), Rayleigh quotients: the first is not beyond the end of the spectrum, but may fall short of it.
    residuals: (q,), |K v - s v| for unit vectors v: an eigenvalue lies within that distance of s (Parlett, The
        Symmetric Eigenvalue Problem, theorem 4.5.1).
    converged: whether all that were asked for were found to the tolerance.
    """

    values: FloatArray
    residuals: FloatArray
    converged: bool


def end_of_spectrum(K: TileOperator, side: Side, *, norm: float, seed: int) -> End:
    """Return the COUNT outermost eigenvalues of K (M, M) on one side, by scipy's eigsh (ARPACK).

    `norm` is |K|_F. K + |K|_F I is searched for the largest and K - |K|_F I for the smallest: ARPACK asks for
    residuals relative to an eigenvalue, which next to 0 none could meet. Residuals are thus about TOLERANCE times
    |K|_F, and eigenvalues that are separated from the next have the square of that over the gap as error. A search
    ends after its restarts (SEARCH); what was found by then is returned. `seed` draws the start. A kernel with no more
    rows than vectors are kept is decomposed as it is.
    """
    M = K.shape[0]
    if SEARCH[side][0] >= M:  # ARPACK would keep as much, and look for directions that there are not
        _, vectors = np.linalg.eigh(K.times(np.eye(M)))
        vectors, converged = vectors[:, -COUNT:] if side == "largest" else vectors[:, :COUNT], True
    else:
        vectors, converged = _by_arpack(K, side, norm, seed)
    images = K.times(vectors)
    values = np.einsum("mq,mq->q", vectors, images)
    residuals = np.linalg.norm(images - vectors * values, axis=0)
    inwards = np.argsort(values) if side == "smallest" else np.argsort(-values)
    return End(values[inwards], residuals[inwards], converged)


def _by_arpack(K: TileOperator, side: Side, norm: float, seed: int) -> tuple[FloatArray, bool]:
    """Return the eigenvectors (M, q) that ARPACK found, and whether it found all."""
    shift, which = (norm, "LA") if side == "largest" else (-norm, "SA")
    vectors_kept, restarts = SEARCH[side]
    generator = np.random.default_rng(seed)
    options: dict[str, Any] = {"which": which, "v0": generator.standard_normal(K.shape[0])}
    # Of scipy 1.17 and later, whose restarts are random unless they are told how.
    if "rng" in inspect.signature(eigsh).parameters:
        options["rng"] = generator
    try:
        _, vectors = eigsh(
            K.linear_operator(shift), COUNT, ncv=vectors_kept, maxiter=restarts, tol=TOLERANCE,
            **options,
        )  # fmt: skip
    except ArpackNoConvergence as error:
        return np.asarray(error.eigenvectors, dtype=np.float64), False
    except ArpackError:  # it ran out of directions, as in a kernel of zeros
        return np.empty((K.shape[0], 0)), False
    return np.asarray(vectors, dtype=np.float64), True
