"""The primal path against the dual one and against the directly solved (J'J + lambda I) system."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntk_dist.errors import NonFiniteError
from ntk_dist.kernel.kernel_matrix import KernelShapeError
from ntk_dist.solvers.eigen import EigenDecomposition
from ntk_dist.solvers.primal import PrimalDecomposition
from ntk_dist.solvers.tridiagonal import TridiagonalDecomposition
from tests.ntk_dist.solvers.kernel_cases import LAMBDAS, Case, cases, check_path_is_dense, check_squared_distance

CASE = Case(seed=9, M=12, p=5, rank=5, k=2, decay=0.5)


@given(cases, st.booleans(), st.integers(1, 5))
def test_agrees_with_dense_and_dual(case, eigenvectors, rows):
    decompose = EigenDecomposition if eigenvectors else TridiagonalDecomposition
    decomposition = PrimalDecomposition(case.blocks(rows), case.M, case.p, decompose=decompose)
    path = decomposition.ridge_path(case.r, LAMBDAS)
    check_path_is_dense(path, case.kernel, case.r)
    J, scale = case.jacobian, np.linalg.norm(case.r)
    for value, d in zip(LAMBDAS, path.solution, strict=True):
        expected = np.linalg.solve(J.T @ J + value * np.eye(case.p), J.T @ case.r)
        np.testing.assert_allclose(d, expected, atol=1e-6 * scale)
    dual = TridiagonalDecomposition(case.kernel)
    dual_path = dual.ridge_path(case.r, LAMBDAS)
    check_squared_distance(path.squared_distance, dual_path.squared_distance, case.kernel, case.r)
    np.testing.assert_allclose(path.degrees_of_freedom, dual_path.degrees_of_freedom, atol=1e-8)
    rank = min(case.M, case.p)
    np.testing.assert_allclose(decomposition.eigenvalues, dual.eigenvalues[-rank:], atol=1e-12)
    assert decomposition.trace == pytest.approx(dual.trace)
    assert decomposition.quadratic_form(case.r) == pytest.approx(dual.quadratic_form(case.r), abs=1e-10)


@given(cases)
def test_predictions_agree_with_dual(case):
    J, J_eval = case.jacobian, np.random.default_rng(case.seed).standard_normal((4, case.p))
    primal = PrimalDecomposition(case.blocks(), case.M, case.p).ridge_path(case.r, LAMBDAS)
    dual = TridiagonalDecomposition(case.kernel).ridge_path(case.r, LAMBDAS)
    expected = dual.eval_fit(J_eval @ J.T)
    assert expected.shape == (len(LAMBDAS), 4, case.k)
    scale = np.linalg.norm(case.r) * np.linalg.norm(J_eval)
    np.testing.assert_allclose(primal.eval_fit(J_eval), expected, atol=1e-6 * scale)


@given(cases)
def test_leave_one_out_agrees_with_dual(case):
    primal = PrimalDecomposition(case.blocks(), case.M, case.p, decompose=EigenDecomposition)
    path = primal.ridge_path(case.r, LAMBDAS, leave_one_out=True)
    expected = EigenDecomposition(case.kernel).ridge_path(case.r, LAMBDAS, leave_one_out=True)
    # 1 - h loses the digits that lambda / (s + lambda) keeps, so compare times it.
    np.testing.assert_allclose(path.leave_one_out, expected.leave_one_out, atol=1e-4 * np.linalg.norm(case.r))


def test_leave_one_example_out_agrees_with_dual():
    primal = PrimalDecomposition(CASE.blocks(4), CASE.M, CASE.p, decompose=EigenDecomposition)
    path = primal.ridge_path(CASE.r, LAMBDAS, leave_one_out=True, rows_per_example=2)
    dual = EigenDecomposition(CASE.kernel).ridge_path(CASE.r, LAMBDAS, leave_one_out=True, rows_per_example=2)
    np.testing.assert_allclose(path.leave_one_out, dual.leave_one_out, rtol=1e-8)


def test_float32_blocks_in_any_order_of_memory():
    J = np.asfortranarray(CASE.jacobian.astype(np.float32))
    path = PrimalDecomposition(lambda: iter([J[:7], J[7:]]), 12, 5).ridge_path(CASE.r, LAMBDAS)
    J = J.astype(np.float64)
    check_path_is_dense(path, J @ J.T, CASE.r)


def test_without_eigenvectors_there_is_no_leave_one_out():
    primal = PrimalDecomposition(CASE.blocks(), CASE.M, CASE.p)
    assert primal.ridge_path(CASE.r, LAMBDAS, leave_one_out=True).leave_one_out is None


@pytest.mark.parametrize(("M", "p", "message"), [(13, 5, "12 rows"), (11, 5, "12 rows"), (12, 6, "6 columns")])
def test_refuses_blocks_that_do_not_add_up(M, p, message):
    with pytest.raises(KernelShapeError, match=message):
        PrimalDecomposition(CASE.blocks(), M, p)


def test_refuses_features_that_are_not_finite():
    J = CASE.jacobian
    J[3, 2] = np.nan
    with pytest.raises(NonFiniteError):
        PrimalDecomposition(lambda: iter([J]), 12, 5)
