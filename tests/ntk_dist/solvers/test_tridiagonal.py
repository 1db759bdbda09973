"""The tridiagonal path against dense solves, in place, and where the kernel is singular."""

import numpy as np
import pytest
from hypothesis import given

from ntk_dist.errors import NonFiniteError
from ntk_dist.kernel.kernel_matrix import KernelShapeError
from ntk_dist.solvers.ridge import LambdaError
from ntk_dist.solvers.tridiagonal import TridiagonalDecomposition
from tests.ntk_dist.solvers.kernel_cases import (
    LAMBDAS,
    Case,
    cases,
    check_path_is_dense,
    check_squared_distance,
    dense,
    dense_squared_distance,
)

SINGULAR = Case(seed=5, M=12, p=20, rank=2, k=2, decay=0)


@given(cases)
def test_path_is_the_dense_solution(case):
    decomposition = TridiagonalDecomposition(case.kernel)
    path = decomposition.ridge_path(case.r, LAMBDAS)
    check_path_is_dense(path, case.kernel, case.r)
    alphas = dense(case.kernel, case.r)
    np.testing.assert_allclose(path.solution, alphas, rtol=1e-6, atol=1e-6 * np.abs(alphas).max())
    expected = dense_squared_distance(case.kernel, case.r)
    check_squared_distance(path.squared_distance, expected, case.kernel, case.r)
    assert path.leave_one_out is None


@given(cases)
def test_spectrum_trace_and_quadratic_form(case):
    decomposition = TridiagonalDecomposition(case.kernel)
    np.testing.assert_allclose(decomposition.eigenvalues, np.linalg.eigvalsh(case.kernel), atol=1e-13)
    assert decomposition.trace == pytest.approx(np.trace(case.kernel))
    assert decomposition.quadratic_form(case.r) == pytest.approx(np.sum(case.r * (case.kernel @ case.r)), abs=1e-12)


@pytest.mark.parametrize("M", [1, 2, 3])
def test_smallest_kernels(M):
    case = Case(seed=M, M=M, p=4, rank=M, k=2, decay=1)
    path = TridiagonalDecomposition(case.kernel).ridge_path(case.r, LAMBDAS)
    check_path_is_dense(path, case.kernel, case.r)
    assert path.solution.shape == (len(LAMBDAS), M, 2)


def test_only_the_lower_triangle_is_read():
    case = Case(seed=1, M=9, p=12, rank=9, k=1, decay=0.5)
    lower = np.asfortranarray(np.tril(case.kernel) + np.triu(np.full((9, 9), np.nan), 1))
    check_path_is_dense(TridiagonalDecomposition(lower).ridge_path(case.r, LAMBDAS), case.kernel, case.r)


def test_works_in_the_memory_of_the_kernel():
    case = Case(seed=2, M=8, p=8, rank=8, k=1, decay=1)
    K = case.kernel
    decomposition = TridiagonalDecomposition(K)
    assert np.shares_memory(decomposition._reflectors, K)
    assert not np.allclose(K, case.kernel)
    check_path_is_dense(decomposition.ridge_path(case.r, LAMBDAS), case.kernel, case.r)


@pytest.mark.parametrize("spoil", [np.ascontiguousarray, lambda K: K[:, :]])
def test_leaves_alone_what_it_cannot_overwrite(spoil):
    case = Case(seed=2, M=8, p=8, rank=8, k=1, decay=1)
    K = spoil(case.kernel)
    K.flags.writeable = False
    path = TridiagonalDecomposition(K).ridge_path(case.r, LAMBDAS)
    np.testing.assert_array_equal(K, case.kernel)
    check_path_is_dense(path, case.kernel, case.r)


def test_lambda_below_the_rounding_of_a_singular_kernel_is_still_solved():
    # An eigenvalue of -1e-10 stands for what rounding does to a large kernel: K + lambda I is indefinite.
    K = SINGULAR.kernel - 1e-10 * np.eye(SINGULAR.M)
    lambdas = np.array([1e-12, 1e-11])
    path = TridiagonalDecomposition(K.copy(order="F")).ridge_path(SINGULAR.r, lambdas)
    for value, alpha in zip(lambdas, path.solution, strict=True):
        left = K @ alpha + value * alpha - SINGULAR.r
        assert np.abs(left).max() < 1e-4 * np.abs(alpha).max() * 1e-10


@pytest.mark.parametrize("M", [1, 4])
def test_a_singular_system_gives_nan_for_its_lambda_alone(M):
    K = np.asfortranarray(np.diag(np.full(M, -0.5)))
    path = TridiagonalDecomposition(K).ridge_path(np.ones((M, 1)), np.array([0.5, 1.0]))
    assert np.isnan(path.train_residuals[0]).all()
    assert np.isnan(path.squared_distance).tolist() == [True, False]
    np.testing.assert_allclose(path.train_residuals[1], 2.0)


def test_a_zero_kernel_fits_nothing():
    path = TridiagonalDecomposition(np.zeros((5, 5), order="F")).ridge_path(np.ones((5, 1)), LAMBDAS)
    np.testing.assert_allclose(path.train_residuals, 1.0)
    np.testing.assert_array_equal(path.squared_distance, 0.0)
    np.testing.assert_array_equal(path.degrees_of_freedom, 0.0)


@pytest.mark.parametrize("K", [np.zeros((2, 3)), np.zeros((0, 0)), np.zeros((2, 2), dtype=np.float32), np.zeros(4)])
def test_refuses_what_is_not_a_kernel(K):
    with pytest.raises(KernelShapeError, match="square float64"):
        TridiagonalDecomposition(K)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("M", [1, 6])
def test_refuses_numbers_that_are_not_finite(bad, M):
    K = np.eye(M, order="F")
    K[-1, 0] = bad
    with pytest.raises(NonFiniteError):
        TridiagonalDecomposition(K)


@pytest.mark.parametrize("lambdas", [[0.0], [1.0, -1.0], [np.nan], [np.inf], []])
def test_refuses_lambdas_that_are_not_positive(lambdas):
    with pytest.raises(LambdaError):
        TridiagonalDecomposition(np.eye(3)).ridge_path(np.ones((3, 1)), np.array(lambdas))


@pytest.mark.parametrize("residual", [np.ones(3), np.ones((4, 1))])
def test_refuses_residuals_of_another_shape(residual):
    with pytest.raises(KernelShapeError, match=r"\(3, k\)"):
        TridiagonalDecomposition(np.eye(3)).ridge_path(residual, LAMBDAS)
