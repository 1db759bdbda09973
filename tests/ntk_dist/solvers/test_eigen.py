"""The eigenvector path: the tridiagonal path's numbers, and what only eigenvectors give."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntk_dist.errors import NonFiniteError
from ntk_dist.kernel.kernel_matrix import KernelShapeError
from ntk_dist.solvers import leave_one_out
from ntk_dist.solvers.eigen import EigenDecomposition
from ntk_dist.solvers.tridiagonal import TridiagonalDecomposition
from tests.ntk_dist.solvers.kernel_cases import (
    LAMBDAS,
    Case,
    cases,
    check_path_is_dense,
    check_squared_distance,
    refitted_leave_one_out,
)


@given(cases)
def test_path_is_the_dense_solution_and_the_tridiagonal_one(case):
    decomposition, other = EigenDecomposition(case.kernel), TridiagonalDecomposition(case.kernel)
    path, expected = decomposition.ridge_path(case.r, LAMBDAS), other.ridge_path(case.r, LAMBDAS)
    check_path_is_dense(path, case.kernel, case.r)
    scale = np.linalg.norm(case.r)
    np.testing.assert_allclose(path.solution, expected.solution, atol=1e-9 * scale / LAMBDAS[0])
    check_squared_distance(path.squared_distance, expected.squared_distance, case.kernel, case.r)
    np.testing.assert_allclose(path.degrees_of_freedom, expected.degrees_of_freedom, atol=1e-8)
    np.testing.assert_allclose(decomposition.eigenvalues, other.eigenvalues, atol=1e-13)
    assert decomposition.quadratic_form(case.r) == pytest.approx(other.quadratic_form(case.r), abs=1e-12)
    assert path.leave_one_out is None


@given(cases)
def test_leave_one_out_is_what_refitting_gives(case):
    path = EigenDecomposition(case.kernel).ridge_path(case.r, LAMBDAS, leave_one_out=True)
    expected = refitted_leave_one_out(case.kernel, case.r)
    np.testing.assert_allclose(path.leave_one_out, expected, atol=1e-6 * np.linalg.norm(case.r))


@given(cases, st.integers(2, 3))
def test_leaving_out_all_rows_of_an_example(case, C):
    case = Case(case.seed, C * max(1, case.M // C), case.p, case.rank, case.k, case.decay)
    path = EigenDecomposition(case.kernel).ridge_path(case.r, LAMBDAS, leave_one_out=True, rows_per_example=C)
    expected = refitted_leave_one_out(case.kernel, case.r, C)
    np.testing.assert_allclose(path.leave_one_out, expected, atol=1e-6 * np.linalg.norm(case.r))


def test_leave_one_out_does_not_depend_on_the_chunks(monkeypatch):
    case = Case(seed=3, M=12, p=20, rank=12, k=2, decay=1)
    whole = EigenDecomposition(case.kernel).ridge_path(case.r, LAMBDAS, leave_one_out=True, rows_per_example=2)
    monkeypatch.setattr(leave_one_out, "_CHUNK", 100)
    chunked = EigenDecomposition(case.kernel).ridge_path(case.r, LAMBDAS, leave_one_out=True, rows_per_example=2)
    np.testing.assert_allclose(chunked.leave_one_out, whole.leave_one_out, rtol=1e-12)


def test_leave_one_out_needs_whole_examples():
    with pytest.raises(KernelShapeError, match="whole examples"):
        EigenDecomposition(np.eye(5)).ridge_path(np.ones((5, 1)), LAMBDAS, leave_one_out=True, rows_per_example=2)


@given(cases)
def test_mode_energy_is_the_energy_of_the_targets(case):
    decomposition = EigenDecomposition(case.kernel)
    energy = decomposition.mode_energy(case.r)
    assert energy.sum() == pytest.approx(np.sum(case.r**2))
    s = decomposition.eigenvalues
    # The residual of the ridge is lambda / (s_i + lambda) times the start, mode by mode.
    path = decomposition.ridge_path(case.r, LAMBDAS)
    squares = (path.train_residuals**2).sum(axis=(1, 2))
    np.testing.assert_allclose(squares, [(energy * (value / (s + value)) ** 2).sum() for value in LAMBDAS], rtol=1e-6)


def test_works_in_the_memory_of_the_kernel():
    K = Case(seed=2, M=8, p=8, rank=8, k=1, decay=1).kernel
    assert np.shares_memory(EigenDecomposition(K).eigenvectors, K)


def test_only_the_lower_triangle_is_read():
    case = Case(seed=1, M=9, p=12, rank=9, k=1, decay=0.5)
    lower = np.asfortranarray(np.tril(case.kernel) + np.triu(np.full((9, 9), np.nan), 1))
    check_path_is_dense(EigenDecomposition(lower).ridge_path(case.r, LAMBDAS), case.kernel, case.r)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_names_the_entry_that_is_not_finite(bad):
    K = np.eye(6, order="F")
    K[4, 2] = bad
    with pytest.raises(NonFiniteError, match="rows 4 and 2"):
        EigenDecomposition(K)


def test_a_singular_system_gives_nan_for_its_lambda_alone():
    path = EigenDecomposition(np.diag([-0.5, 1.0])).ridge_path(np.ones((2, 1)), np.array([0.5, 1.0]))
    assert np.isnan(path.train_residuals[0]).all()
    assert np.isnan(path.squared_distance).tolist() == [True, False]
    np.testing.assert_allclose(path.train_residuals[1, :, 0], [2.0, 0.5])
