"""Unsymmetric kernels against dense solves."""

import numpy as np
import pytest
from hypothesis import given

from ntk_dist.errors import NonFiniteError
from ntk_dist.solvers.schur import SchurDecomposition
from ntk_dist.solvers.tridiagonal import TridiagonalDecomposition
from tests.ntk_dist.solvers.kernel_cases import LAMBDAS, Case, cases, check_path_is_dense, dense


def unsymmetric(case):
    """A kernel J sign(J)^T, kept away from singular systems, with complex eigenvalues as a rule."""
    J = case.jacobian
    K = J @ np.sign(J).T
    return np.asfortranarray(K + 0.1 * np.linalg.norm(K, 2) * np.eye(case.M))


def well_posed(K):
    return min(np.linalg.svd(K + value * np.eye(len(K)), compute_uv=False)[-1] for value in LAMBDAS) > 1e-2


@given(cases)
def test_path_is_the_dense_solution(case):
    K = unsymmetric(case)
    path = SchurDecomposition(K.copy(order="F")).ridge_path(case.r, LAMBDAS)
    if well_posed(K):
        check_path_is_dense(path, K, case.r)
        np.testing.assert_allclose(path.solution, dense(K, case.r), rtol=1e-6, atol=1e-8)
    assert np.isnan(path.squared_distance).all()
    assert path.leave_one_out is None


@given(cases)
def test_spectra_trace_and_quadratic_form(case):
    K = unsymmetric(case)
    decomposition = SchurDecomposition(K.copy(order="F"))
    scale = np.linalg.norm(K)
    np.testing.assert_allclose(decomposition.eigenvalues, np.linalg.svd(K, compute_uv=False)[::-1], atol=1e-12 * scale)
    coefficients = np.poly(decomposition.complex_eigenvalues / scale)
    np.testing.assert_allclose(coefficients, np.poly(K / scale), atol=1e-9)
    assert decomposition.trace == pytest.approx(np.trace(K))
    expected = np.sum(case.r * (K @ case.r))
    assert decomposition.quadratic_form(case.r) == pytest.approx(expected, abs=1e-10 * scale)


def test_complex_pairs_are_met():
    rotation = np.array([[0.5, -2.0], [1.0, 0.5]])
    values = SchurDecomposition(rotation).complex_eigenvalues
    np.testing.assert_allclose(np.sort_complex(values), [0.5 - 1j * np.sqrt(2), 0.5 + 1j * np.sqrt(2)])
    check_path_is_dense(SchurDecomposition(rotation).ridge_path(np.ones((2, 1)), LAMBDAS), rotation, np.ones((2, 1)))


@given(cases)
def test_agrees_with_the_tridiagonal_path_on_a_symmetric_kernel(case):
    path = SchurDecomposition(case.kernel).ridge_path(case.r, LAMBDAS)
    expected = TridiagonalDecomposition(case.kernel).ridge_path(case.r, LAMBDAS)
    scale = np.linalg.norm(case.r)
    np.testing.assert_allclose(path.train_residuals, expected.train_residuals, atol=1e-8 * scale)
    np.testing.assert_allclose(path.degrees_of_freedom, expected.degrees_of_freedom, atol=1e-8)
    np.testing.assert_allclose(path.gcv, expected.gcv, rtol=1e-5)


@pytest.mark.parametrize("M", [1, 2])
def test_smallest_kernels(M):
    K = unsymmetric(Case(seed=M, M=M, p=4, rank=M, k=2, decay=1))
    r = np.ones((M, 2))
    check_path_is_dense(SchurDecomposition(K.copy()).ridge_path(r, LAMBDAS), K, r)


def test_a_singular_system_gives_nan_for_its_lambda_alone():
    K = np.array([[-0.5, 1.0], [0.0, 1.0]])
    path = SchurDecomposition(K).ridge_path(np.ones((2, 1)), np.array([0.5, 1.0]))
    assert np.isnan(path.train_residuals[0]).all()
    np.testing.assert_allclose(path.train_residuals[1, :, 0], [1.0, 0.5])


def test_names_the_entry_that_is_not_finite():
    K = np.eye(4, order="F")
    K[1, 3] = np.nan
    with pytest.raises(NonFiniteError, match="rows 1 and 3"):
        SchurDecomposition(K)
