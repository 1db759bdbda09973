"""The evidence is the log-density of the residuals under the prior whose mean is the ridge solution."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from ntk_dist.solvers.eigen import EigenDecomposition
from ntk_dist.solvers.evidence import log_evidence, prior_variance
from ntk_dist.solvers.primal import PrimalDecomposition
from ntk_dist.solvers.tridiagonal import TridiagonalDecomposition

LAMBDAS = np.array([1e-3, 0.2, 1.0, 40.0])
SHAPES = [(12, 30, 1), (12, 5, 1), (9, 4, 3), (6, 50, 2)]


def problem(M: int, p: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(M + p + k)
    return draw.standard_normal((M, p)), draw.standard_normal((M, k))


def decompositions(J: np.ndarray) -> list:
    found = [EigenDecomposition(J @ J.T), TridiagonalDecomposition(J @ J.T)]
    if J.shape[1] < len(J):
        found.append(PrimalDecomposition(lambda: iter([J]), *J.shape, decompose=TridiagonalDecomposition))
    return found


@pytest.mark.parametrize(("M", "p", "k"), SHAPES)
def test_it_is_the_density_of_a_normal_distribution(M: int, p: int, k: int):
    J, r = problem(M, p, k)
    for decomposition in decompositions(J):
        kept = decomposition.keep(r, iter([J if decomposition.eigenvalues.size < M else J @ J.T]))
        path = kept.ridge_path(r, LAMBDAS)
        tau_squared, found = prior_variance(path, r), log_evidence(path, r, kept.eigenvalues)
        for value, size, evidence in zip(LAMBDAS, tau_squared, found, strict=True):
            shifted = J @ J.T + value * np.eye(M)
            best = value * np.sum(r * np.linalg.solve(shifted, r)) / r.size
            assert size == pytest.approx(best, rel=1e-10)
            normal = multivariate_normal(np.zeros(M), best * shifted / value)
            assert evidence == pytest.approx(sum(normal.logpdf(column) for column in r.T), rel=1e-10)
            # no other size of the prior makes the residuals more likely
            for other in (0.9, 1.1):
                less = multivariate_normal(np.zeros(M), other * best * shifted / value)
                assert sum(less.logpdf(column) for column in r.T) < evidence


@pytest.mark.parametrize(("M", "p", "k"), SHAPES)
def test_it_is_the_evidence_of_bayesian_linear_regression(M: int, p: int, k: int):
    """Weights d ~ N(0, tau^2/lambda I), r = J d + noise of variance tau^2 (Bishop 2006, equation 3.86)."""
    J, r = problem(M, p, k)
    kept = EigenDecomposition(J @ J.T).keep(r, iter([J @ J.T]))
    path = kept.ridge_path(r, LAMBDAS)
    sizes, found = prior_variance(path, r), log_evidence(path, r, kept.eigenvalues)
    for value, tau_squared, evidence in zip(LAMBDAS, sizes, found, strict=True):
        alpha, beta = value / tau_squared, 1 / tau_squared
        A = alpha * np.eye(p) + beta * J.T @ J
        mean = beta * np.linalg.solve(A, J.T @ r)
        error = beta / 2 * np.sum((r - J @ mean) ** 2) + alpha / 2 * np.sum(mean**2)
        constant = p / 2 * np.log(alpha) + M / 2 * np.log(beta / (2 * np.pi)) - np.linalg.slogdet(A)[1] / 2
        assert evidence == pytest.approx(k * constant - error, rel=1e-10)


def test_it_is_unknown_where_nothing_is_left_to_explain():
    J, r = problem(5, 9, 1)
    path = EigenDecomposition(J @ J.T).ridge_path(0 * r, LAMBDAS)
    assert np.isnan(log_evidence(path, 0 * r, np.ones(5))).all()
