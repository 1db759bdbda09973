"""The formulas that every ridge path obeys, and how it predicts."""

import numpy as np
import pytest
from hypothesis import given

from ntk_dist.kernel.kernel_matrix import KernelShapeError
from ntk_dist.solvers.eigen import EigenDecomposition
from ntk_dist.solvers.tridiagonal import TridiagonalDecomposition
from tests.ntk_dist.solvers.kernel_cases import LAMBDAS, Case, cases


@given(cases)
def test_distance_is_bounded(case):
    path = TridiagonalDecomposition(case.kernel).ridge_path(case.r, LAMBDAS)
    # |d| <= |r| / (2 sqrt(lambda)), and sqrt(2 R(theta_0) / lambda) with R = |r|^2 / 2
    assert (np.sqrt(path.squared_distance) <= np.linalg.norm(case.r) / (2 * np.sqrt(LAMBDAS)) * (1 + 1e-9)).all()


def test_distance_reaches_its_bound():
    # One mode with s = lambda attains it, so that a bound that is too wide is noticed.
    path = TridiagonalDecomposition(np.array([[2.0]])).ridge_path(np.array([[3.0]]), np.array([2.0]))
    assert np.sqrt(path.squared_distance[0]) == pytest.approx(3 / (2 * np.sqrt(2)))


@given(cases, cases)
def test_adding_a_block_never_raises_the_dual_objective(case, other):
    other = Case(other.seed, case.M, other.p, other.rank, other.k, other.decay)
    few = TridiagonalDecomposition(case.kernel).ridge_path(case.r, LAMBDAS)
    more = TridiagonalDecomposition(np.asfortranarray(case.kernel + other.kernel)).ridge_path(case.r, LAMBDAS)
    objective = [np.einsum("mk,lmk->l", case.r, path.solution) for path in (few, more)]
    assert (objective[1] <= objective[0] * (1 + 1e-9)).all()


@given(cases, cases)
def test_weyl(case, other):
    other = Case(other.seed, case.M, other.p, other.rank, other.k, other.decay)
    K, S = (
        TridiagonalDecomposition(case.kernel).eigenvalues,
        TridiagonalDecomposition(other.kernel).eigenvalues,
    )
    both = TridiagonalDecomposition(np.asfortranarray(case.kernel + other.kernel)).eigenvalues
    assert (K + S[0] - 1e-12 <= both).all()
    assert (both <= K + S[-1] + 1e-12).all()


@given(cases)
def test_minimizes_the_regularised_loss(case):
    """No other weights do better: the gradient of the objective vanishes at d = J^T alpha."""
    path = TridiagonalDecomposition(case.kernel).ridge_path(case.r, LAMBDAS)
    J = case.jacobian
    for value, alpha in zip(LAMBDAS, path.solution, strict=True):
        d = J.T @ alpha
        gradient = J.T @ (J @ d - case.r) + value * d
        assert np.abs(gradient).max() < 1e-8 * np.linalg.norm(case.r)


@given(cases)
def test_gcv_is_its_definition_and_flat_leave_one_out(case):
    path = EigenDecomposition(case.kernel).ridge_path(case.r, LAMBDAS, leave_one_out=True)
    M = case.M
    share = np.array([np.trace(value * np.linalg.inv(case.kernel + value * np.eye(M))) / M for value in LAMBDAS])
    np.testing.assert_allclose(path.gcv, (path.train_residuals**2).sum(axis=(1, 2)) / M / share**2, rtol=1e-5)


def test_gcv_equals_leave_one_out_when_all_leverages_are_equal():
    # A circulant kernel treats all rows alike.
    K = np.array([[2.0, 1.0, 0.5, 1.0], [1.0, 2.0, 1.0, 0.5], [0.5, 1.0, 2.0, 1.0], [1.0, 0.5, 1.0, 2.0]])
    path = EigenDecomposition(K).ridge_path(np.array([[1.0], [-2.0], [0.5], [3.0]]), LAMBDAS, leave_one_out=True)
    np.testing.assert_allclose(path.gcv, (path.leave_one_out**2).mean(axis=1).sum(axis=1))


def test_eval_fit_of_the_training_rows_is_the_fit():
    case = Case(seed=4, M=10, p=6, rank=6, k=3, decay=0.3)
    path = TridiagonalDecomposition(case.kernel).ridge_path(case.r, LAMBDAS)
    np.testing.assert_allclose(path.eval_fit(case.kernel), case.r - path.train_residuals, atol=1e-8)


@pytest.mark.parametrize("rows", [np.ones((2, 4)), np.ones(3)])
def test_eval_fit_refuses_rows_of_another_length(rows):
    path = TridiagonalDecomposition(np.eye(3)).ridge_path(np.ones((3, 1)), LAMBDAS)
    with pytest.raises(KernelShapeError, match="length 3"):
        path.eval_fit(rows)
