"""The ends of a spectrum from products with the kernel alone."""

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from ntk_dist.arrays import FloatArray
from ntk_dist.kernel.tile_operator import TileOperator
from ntk_dist.solvers.lanczos import LanczosRuns

COUNT = 4
EXTREMES_STEPS = 512
EXTREMES_TOLERANCE = 1e-12
_LOOK_EVERY = 16


@dataclass(frozen=True, eq=False)
class End:
    """Distinct eigenvalues at one end of a spectrum, from the end inwards.

    values: (q,), Rayleigh quotients: the first is not beyond the end of the spectrum, but may fall short of it.
    residuals: (q,), |K v - s v| for unit vectors v: an eigenvalue lies within that distance of s (Parlett, The
        Symmetric Eigenvalue Problem, theorem 4.5.1).
    """

    values: FloatArray
    residuals: FloatArray


def ends_of_spectrum(K: TileOperator, *, norm: float, seed: int, max_steps: int = EXTREMES_STEPS) -> tuple[End, End]:
    """Return the COUNT largest and the COUNT smallest distinct eigenvalues of K (M, M), fewer where there are fewer.

    They are Ritz values of one Lanczos process that is never restarted, from a random vector that `seed` draws. It ends
    once all residuals are below EXTREMES_TOLERANCE times `norm`, |K|_F, or after `max_steps`. An eigenvalue that is
    separated from the next by a gap has at most the square of its residual over that gap as error.

    Restarted searches, as scipy's eigsh has them, did worse where small eigenvalues lie close together: of
    1,500 eigenvalues i^-2 a thousand products of eigsh gave none of the smallest, 512 steps its first five digits.
    """
    runs = LanczosRuns(K, np.random.default_rng([seed, 1]).standard_normal((K.shape[0], 1)), max_steps)
    while runs.running:
        runs.advance()
        if runs.steps % _LOOK_EVERY == 0 and _converged(runs, EXTREMES_TOLERANCE * norm):
            break
    _, vectors = scipy.linalg.eigh_tridiagonal(*runs.tridiagonal(0))
    outermost = _outermost(vectors.shape[1])
    basis = runs.lift(0, np.asarray(vectors[:, outermost], dtype=np.float64))
    images = K.matmat(basis)
    values = np.einsum("mq,mq->q", basis, images)
    residuals = np.linalg.norm(images - basis * values, axis=0)
    q = min(COUNT, vectors.shape[1])
    return End(values[-q:][::-1].copy(), residuals[-q:][::-1].copy()), End(values[:q], residuals[:q])


def _converged(runs: LanczosRuns, tolerance: float) -> bool:
    _, vectors = scipy.linalg.eigh_tridiagonal(*runs.tridiagonal(0))
    last = vectors[-1, _outermost(vectors.shape[1])]
    return bool((np.abs(last) * runs.next_norms[0] <= tolerance).all())


def _outermost(size: int) -> list[int]:
    """Return the places of the COUNT outermost of `size` ascending values on each side, each once."""
    return sorted({*range(min(COUNT, size)), *range(max(0, size - COUNT), size)})
