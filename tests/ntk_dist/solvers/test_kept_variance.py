"""Predictive variances are those of Bayesian linear regression, which a ridge solution is the mean of."""

import mpmath
import numpy as np
import pytest

from ntk_dist.solvers.decomposition import Decomposition
from ntk_dist.solvers.eigen import EigenDecomposition
from ntk_dist.solvers.evidence import prior_variance
from ntk_dist.solvers.kept_path import KeptPath
from ntk_dist.solvers.primal import PrimalDecomposition
from ntk_dist.solvers.tridiagonal import TridiagonalDecomposition

LAMBDAS = np.array([1e-6, 1e-3, 0.2, 1.0, 40.0, 1e7])
SHAPES = [(12, 30, 1), (12, 5, 1), (9, 4, 3), (6, 50, 2), (20, 20, 1)]


def problem(M: int, p: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows for training and for evaluation, and a residual; the last two evaluation rows were trained on, and are 0."""
    draw = np.random.default_rng(M + p + k)
    J, E = draw.standard_normal((M, p)), draw.standard_normal((7, p))
    E[-2], E[-1] = J[0], 0
    return J, E, draw.standard_normal((M, k))


def kept_of(J: np.ndarray, E: np.ndarray, r: np.ndarray, *, primal: bool) -> KeptPath:
    decomposition: Decomposition
    if primal:
        decomposition = PrimalDecomposition(lambda: iter([J]), *J.shape, decompose=EigenDecomposition)
        kept = decomposition.keep(r, iter([E[:3], E[3:]]), variance=True)
    else:
        decomposition = EigenDecomposition(J @ J.T)
        kept = decomposition.keep(r, iter([E @ J.T]), variance=True, diagonal=np.sum(E**2, axis=1))
    return KeptPath.from_arrays(kept.arrays(), primal=primal, size=len(J))


def expected(J: np.ndarray, E: np.ndarray) -> np.ndarray:
    """e e' - e J' (J J' + lambda I)^-1 J e' = lambda e (lambda I + J'J)^-1 e' of each row e, in 40 digits, (L, 7).

    It is lambda / tau^2 times the variance of e d for weights d ~ N(0, (tau^2 / lambda) I) and noise of variance tau^2
    (Bishop 2006, equations 3.54 and 3.59).
    """
    with mpmath.workdps(40):
        train, rows = mpmath.matrix(J.tolist()), mpmath.matrix(E.tolist())
        K, across, own = train * train.T, rows * train.T, rows * rows.T
        found = np.empty((len(LAMBDAS), len(E)))
        for number, value in enumerate(LAMBDAS):
            inverse = mpmath.inverse(K + mpmath.mpf(float(value)) * mpmath.eye(len(J)))
            for e in range(len(E)):
                found[number, e] = own[e, e] - (across[e, :] * inverse * across[e, :].T)[0]
    return found


@pytest.mark.parametrize(("M", "p", "k"), SHAPES)
@pytest.mark.parametrize("primal", [False, True])
def test_it_is_that_of_bayesian_linear_regression(M: int, p: int, k: int, primal: bool):
    J, E, r = problem(M, p, k)
    if primal and p > M:
        pytest.skip("fewer rows than features are decomposed as a kernel")
    kept = kept_of(J, E, r, primal=primal)
    assert kept.variance is not None
    found, wanted = kept.variance.unexplained(kept.eigenvalues, LAMBDAS), expected(J, E)
    # What lies in the span of the training rows is the difference of numbers as large as k(x, x) in a kernel.
    rounding = 0.0 if primal else 1e-14 * np.sum(E**2, axis=1)
    assert (np.abs(found - wanted) <= 1e-10 * wanted + rounding).all()
    assert (found[:, -1] == 0).all()
    path = kept.ridge_path(r, LAMBDAS)
    scaled = kept.variance.predictive_variance(path, r, kept.eigenvalues)
    np.testing.assert_allclose(scaled, (prior_variance(path, r) / LAMBDAS)[:, None] * found, rtol=1e-15)


@pytest.mark.parametrize("primal", [False, True])
def test_directions_that_no_training_example_has_keep_their_variance(primal: bool):
    J, E, r = problem(12, 5, 1)
    J[:, 2] = 0  # a parameter that moves no training output
    J[5] = J[6]
    kept = kept_of(J, E, r, primal=primal)
    assert kept.variance is not None
    found, wanted = kept.variance.unexplained(kept.eigenvalues, LAMBDAS), expected(J, E)
    np.testing.assert_allclose(found[:, :5], wanted[:, :5], rtol=1e-10)


def test_a_kernel_of_zeros_explains_nothing():
    J, E, r = problem(4, 6, 1)
    kept = kept_of(0 * J, E, r, primal=False)
    assert kept.variance is not None
    np.testing.assert_array_equal(kept.variance.unexplained(kept.eigenvalues, LAMBDAS), [np.sum(E**2, axis=1)] * 6)


def test_nothing_is_kept_unasked_or_without_eigenvectors():
    J, E, r = problem(6, 9, 1)
    rows, diagonal = E @ J.T, np.sum(E**2, axis=1)
    assert EigenDecomposition(J @ J.T).keep(r, iter([rows])).variance is None
    without = TridiagonalDecomposition(J @ J.T)
    assert without.keep(r, iter([rows]), variance=True, diagonal=diagonal).variance is None
    primal = PrimalDecomposition(lambda: iter([J]), *J.shape, decompose=TridiagonalDecomposition)
    assert primal.keep(r, iter([E]), variance=True).variance is None
