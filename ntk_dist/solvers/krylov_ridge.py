"""Ridge paths from products with the kernel alone: conjugate gradients for every lambda in one Krylov space.

Written here, for scipy's `cg` solves for one lambda at a time, each with products of its own.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from ntk_dist.arrays import FloatArray
from ntk_dist.kernel.tile_operator import TileOperator
from ntk_dist.solvers.kept_krylov import KeptKrylovPath
from ntk_dist.solvers.kept_path import path_basis
from ntk_dist.solvers.lanczos import LanczosRuns
from ntk_dist.solvers.ridge import check_path
from ntk_dist.solvers.shifted import TridiagonalMatrix

RIDGE_STEPS = 512
RIDGE_TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class KrylovRidge:
    """The data from which the ridge path of any lambda follows without another product with the kernel.

    kept: the path.
    steps: size of the Krylov space.
    complete: whether a smaller lambda would not have led to more steps.
    """

    kept: KeptKrylovPath
    steps: int
    complete: bool


def krylov_ridge(
    K: TileOperator,
    evaluation: TileOperator,
    residual: FloatArray,
    lowest: float,
    *,
    max_steps: int = RIDGE_STEPS,
    tolerance: float = RIDGE_TOLERANCE,
) -> KrylovRidge:
    """Solve (K + lambda I) alpha = r for residual r (M, k) and every lambda from `lowest` on, absolute.

    K and K + lambda I have the same Krylov spaces, so that alpha = |r| V (T + lambda I)^{-1} e_1 is for every lambda
    what conjugate gradients arrive at after as many steps (Frommer and Maass, SIAM J. Sci. Comput. 20, 1999), here
    from one Lanczos process with reorthogonalization for each target. Steps end when the residual for `lowest` is
    below `tolerance` times |lambda alpha|, or after `max_steps`. For larger lambdas it is below that as well: it falls
    as lambda grows, being the product of the couplings over det(T + lambda I), and |lambda alpha| grows.

    `evaluation` is K(eval, train), (M_eval, M), multiplied once. Raises LambdaError, KernelShapeError.
    """
    residual, _ = check_path(residual, np.array([lowest]), K.shape[0])
    M, k = residual.shape
    runs = LanczosRuns(K, residual, max_steps)
    while runs.running and not _converged(runs, lowest, tolerance):
        runs.advance()
    steps, complete = runs.steps, not runs.running
    diagonal, off = _padded_tridiagonals(runs)
    norms, bases = runs.norms, [_basis(runs, c) for c in range(k)]
    m = max(basis.shape[1] for basis in bases)
    basis, train = np.zeros((k, diagonal.shape[1], m)), np.zeros((M, k, m))
    for c, own in enumerate(bases):
        basis[c, : own.shape[0], : own.shape[1]] = own
        train[:, c, : own.shape[1]] = runs.lift(c, own)
    del runs  # frees hundreds of vectors before the next steps
    images = K.matmat(train.reshape(M, k * m)).reshape(M, k, m)
    check = np.stack([_triangle(residual[:, [c]], train[:, c], images[:, c]) for c in range(k)])
    del images
    predicted = evaluation.matmat(train.reshape(M, k * m)).reshape(evaluation.shape[0], k, m)
    return KrylovRidge(KeptKrylovPath(diagonal, off, norms, basis, train, predicted, check), steps, complete)


def _converged(runs: LanczosRuns, shift: float, tolerance: float) -> bool:
    """Tell whether the systems of all targets are solved, from the residuals that the recurrence itself gives."""
    if not runs.steps:
        return False
    left, size = 0.0, 0.0
    for c, coupling in enumerate(runs.next_norms):
        if runs.lengths[c]:
            y = TridiagonalMatrix(*runs.tridiagonal(c)).solve(_start(runs, c), shift)
            left += float(coupling * y[-1, 0]) ** 2
            size += float(np.vdot(y, y))
    # Not <=, because a singular system, which is nan, gets no better.
    return not np.sqrt(left) > tolerance * shift * np.sqrt(size)


def _start(runs: LanczosRuns, c: int) -> FloatArray:
    """Return |r_c| e_1, (lengths[c], 1)."""
    start = np.zeros((int(runs.lengths[c]), 1))
    start[:1] = runs.norms[c]
    return start


def _padded_tridiagonals(runs: LanczosRuns) -> tuple[FloatArray, FloatArray]:
    """Return the diagonals (k, q) and off-diagonals (k, q - 1) of all T, those that are smaller with zeros."""
    k, q = len(runs.lengths), int(runs.lengths.max())
    diagonals, offs = np.zeros((k, q)), np.zeros((k, max(q - 1, 0)))
    for c in range(k):
        diagonal, off = runs.tridiagonal(c)
        diagonals[c, : len(diagonal)], offs[c, : len(off)] = diagonal, off
    return diagonals, offs


def _basis(runs: LanczosRuns, c: int) -> FloatArray:
    """Return a basis of the solutions of a target for all lambdas within its Krylov space, (lengths[c], m)."""
    diagonal, off = runs.tridiagonal(c)
    if not len(diagonal):
        return np.empty((0, 0))
    eigenvalues: FloatArray = np.asarray(scipy.linalg.eigvalsh_tridiagonal(diagonal, off), dtype=np.float64)
    return path_basis(TridiagonalMatrix(diagonal, off), _start(runs, c), eigenvalues)


def _triangle(*columns: FloatArray) -> FloatArray:
    """Return the triangle R of a QR factorization of columns (M, c) that stand side by side: |R x| is the norm of x."""
    beside = np.empty((len(columns[0]), sum(each.shape[1] for each in columns)), order="F")
    np.concatenate(columns, axis=1, out=beside)
    # `raw`, for it alone makes no copy as tall as the columns.
    _, triangle = scipy.linalg.qr(beside, mode="raw", overwrite_a=True, check_finite=False)
    return np.asarray(triangle)
