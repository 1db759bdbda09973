"""Reductions to a tridiagonal matrix and to a band: dense solves, in place, and where the kernel is singular."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given

from ntk_dist.errors import NonFiniteError
from ntk_dist.kernel.kernel_matrix import KernelShapeError
from ntk_dist.solvers import band
from ntk_dist.solvers.band import BandDecomposition
from ntk_dist.solvers.band_choice import BAND_WIDTH
from ntk_dist.solvers.kept_path import KeptPath
from ntk_dist.solvers.primal import PrimalDecomposition
from ntk_dist.solvers.reduced import ReducedDecomposition
from ntk_dist.solvers.ridge import LambdaError
from ntk_dist.solvers.symmetric import SymmetricDecomposer
from ntk_dist.solvers.tridiagonal import TridiagonalDecomposition
from ntk_dist.solvers.two_stage import find_two_stage
from tests.ntk_dist.solvers.kernel_cases import (
    LAMBDAS,
    Case,
    cases,
    check_path_is_dense,
    check_squared_distance,
    dense,
    dense_squared_distance,
)

Reduce = Callable[[np.ndarray], ReducedDecomposition]

REDUCTIONS: dict[str, Reduce] = {
    "tridiagonal": TridiagonalDecomposition,
    "band": partial(BandDecomposition, width=3),
    "whole": BandDecomposition,  # narrower than the band
}

SINGULAR = Case(seed=5, M=12, p=20, rank=2, k=2, decay=0)


@pytest.mark.parametrize("reduce", REDUCTIONS.values(), ids=REDUCTIONS)
@given(cases)
def test_path_is_the_dense_solution(reduce, case):
    decomposition = reduce(case.kernel)
    path = decomposition.ridge_path(case.r, LAMBDAS)
    check_path_is_dense(path, case.kernel, case.r)
    alphas = dense(case.kernel, case.r)
    np.testing.assert_allclose(path.solution, alphas, rtol=1e-6, atol=1e-6 * np.abs(alphas).max())
    expected = dense_squared_distance(case.kernel, case.r)
    check_squared_distance(path.squared_distance, expected, case.kernel, case.r)
    assert path.leave_one_out is None


@pytest.mark.parametrize("reduce", REDUCTIONS.values(), ids=REDUCTIONS)
@given(cases)
def test_spectrum_trace_and_quadratic_form(reduce, case):
    decomposition = reduce(case.kernel)
    np.testing.assert_allclose(decomposition.eigenvalues, np.linalg.eigvalsh(case.kernel), atol=1e-13)
    assert decomposition.trace == pytest.approx(np.trace(case.kernel))
    assert decomposition.quadratic_form(case.r) == pytest.approx(np.sum(case.r * (case.kernel @ case.r)), abs=1e-12)


@pytest.mark.parametrize("reduce", REDUCTIONS.values(), ids=REDUCTIONS)
@pytest.mark.parametrize("M", [1, 2, 3])
def test_smallest_kernels(reduce, M):
    case = Case(seed=M, M=M, p=4, rank=M, k=2, decay=1)
    path = reduce(case.kernel).ridge_path(case.r, LAMBDAS)
    check_path_is_dense(path, case.kernel, case.r)
    assert path.solution.shape == (len(LAMBDAS), M, 2)


@pytest.mark.parametrize("reduce", REDUCTIONS.values(), ids=REDUCTIONS)
def test_only_the_lower_triangle_is_read(reduce):
    case = Case(seed=1, M=9, p=12, rank=9, k=1, decay=0.5)
    lower = np.asfortranarray(np.tril(case.kernel) + np.triu(np.full((9, 9), np.nan), 1))
    check_path_is_dense(reduce(lower).ridge_path(case.r, LAMBDAS), case.kernel, case.r)


@pytest.mark.parametrize("reduce", [REDUCTIONS["tridiagonal"], REDUCTIONS["band"]])
def test_works_in_the_memory_of_the_kernel(reduce):
    case = Case(seed=2, M=8, p=8, rank=8, k=1, decay=1)
    K = case.kernel
    decomposition = reduce(K)
    assert np.shares_memory(decomposition._reflectors, K)
    assert not np.allclose(K, case.kernel)
    check_path_is_dense(decomposition.ridge_path(case.r, LAMBDAS), case.kernel, case.r)


@pytest.mark.parametrize("reduce", REDUCTIONS.values(), ids=REDUCTIONS)
@pytest.mark.parametrize("spoil", [np.ascontiguousarray, lambda K: K[:, :]])
def test_leaves_alone_what_it_cannot_overwrite(reduce, spoil):
    case = Case(seed=2, M=8, p=8, rank=8, k=1, decay=1)
    K = spoil(case.kernel)
    K.flags.writeable = False
    path = reduce(K).ridge_path(case.r, LAMBDAS)
    np.testing.assert_array_equal(K, case.kernel)
    check_path_is_dense(path, case.kernel, case.r)


@pytest.mark.parametrize("reduce", REDUCTIONS.values(), ids=REDUCTIONS)
def test_lambda_below_the_rounding_of_a_singular_kernel_is_still_solved(reduce):
    # An eigenvalue of -1e-10 stands for what rounding does to a large kernel: K + lambda I is indefinite.
    K = SINGULAR.kernel - 1e-10 * np.eye(SINGULAR.M)
    lambdas = np.array([1e-12, 1e-11])
    path = reduce(K.copy(order="F")).ridge_path(SINGULAR.r, lambdas)
    for value, alpha in zip(lambdas, path.solution, strict=True):
        left = K @ alpha + value * alpha - SINGULAR.r
        assert np.abs(left).max() < 1e-4 * np.abs(alpha).max() * 1e-10


@pytest.mark.parametrize("reduce", REDUCTIONS.values(), ids=REDUCTIONS)
@pytest.mark.parametrize("M", [1, 4])
def test_a_singular_system_gives_nan_for_its_lambda_alone(reduce, M):
    K = np.asfortranarray(np.diag(np.full(M, -0.5)))
    path = reduce(K).ridge_path(np.ones((M, 1)), np.array([0.5, 1.0]))
    assert np.isnan(path.train_residuals[0]).all()
    assert np.isnan(path.squared_distance).tolist() == [True, False]
    np.testing.assert_allclose(path.train_residuals[1], 2.0)


@pytest.mark.parametrize("reduce", REDUCTIONS.values(), ids=REDUCTIONS)
def test_a_zero_kernel_fits_nothing(reduce):
    path = reduce(np.zeros((5, 5), order="F")).ridge_path(np.ones((5, 1)), LAMBDAS)
    np.testing.assert_allclose(path.train_residuals, 1.0)
    np.testing.assert_array_equal(path.squared_distance, 0.0)
    np.testing.assert_array_equal(path.degrees_of_freedom, 0.0)


@pytest.mark.parametrize("reduce", REDUCTIONS.values(), ids=REDUCTIONS)
@pytest.mark.parametrize("K", [np.zeros((2, 3)), np.zeros((0, 0)), np.zeros((2, 2), dtype=np.float32), np.zeros(4)])
def test_refuses_what_is_not_a_kernel(reduce, K):
    with pytest.raises(KernelShapeError, match="square float64"):
        reduce(K)


@pytest.mark.parametrize("reduce", REDUCTIONS.values(), ids=REDUCTIONS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("M", [1, 6])
def test_refuses_numbers_that_are_not_finite(reduce, bad, M):
    K = np.eye(M, order="F")
    K[-1, 0] = bad
    with pytest.raises(NonFiniteError):
        reduce(K)


@pytest.mark.parametrize("reduce", REDUCTIONS.values(), ids=REDUCTIONS)
@pytest.mark.parametrize("lambdas", [[0.0], [1.0, -1.0], [np.nan], [np.inf], []])
def test_refuses_lambdas_that_are_not_positive(reduce, lambdas):
    with pytest.raises(LambdaError):
        reduce(np.eye(3)).ridge_path(np.ones((3, 1)), np.array(lambdas))


@pytest.mark.parametrize("reduce", REDUCTIONS.values(), ids=REDUCTIONS)
@pytest.mark.parametrize("residual", [np.ones(3), np.ones((4, 1))])
def test_refuses_residuals_of_another_shape(reduce, residual):
    with pytest.raises(KernelShapeError, match=r"\(3, k\)"):
        reduce(np.eye(3)).ridge_path(residual, LAMBDAS)


# --- sizes around the width of a band, and spectra that are hard


def with_spectrum(eigenvalues: np.ndarray) -> np.ndarray:
    """Return a symmetric matrix with these eigenvalues."""
    Q, _ = np.linalg.qr(np.random.default_rng(len(eigenvalues)).standard_normal((len(eigenvalues),) * 2))
    K = (Q * eigenvalues) @ Q.T
    return np.asfortranarray((K + K.T) / 2)


SPECTRA = {
    "clustered": np.repeat([1e-3, 1.0, 1.0 + 1e-12, 5.0], 30),
    "one value": np.ones(120),
    "of rank 7": np.concatenate([np.zeros(113), np.arange(1.0, 8.0)]),
    "of 20 powers of ten": np.geomspace(1e-20, 1, 120),
    "indefinite": np.linspace(-1, 1, 120),
    "huge": np.geomspace(1e140, 1e150, 120),
    "tiny": np.geomspace(1e-150, 1e-140, 120),
}


@pytest.mark.parametrize("reduce", REDUCTIONS.values(), ids=REDUCTIONS)
@pytest.mark.parametrize("name", SPECTRA)
def test_eigenvalues_of_hard_spectra(reduce: Reduce, name: str):
    K = with_spectrum(SPECTRA[name])
    found = reduce(K.copy(order="F")).eigenvalues
    expected = np.linalg.eigvalsh(K)
    assert np.abs(found - expected).max() <= 8e-15 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["clustered", "one value", "of rank 7", "huge", "tiny"])
def test_a_band_gives_the_solutions_of_hard_spectra(name: str):
    K = with_spectrum(SPECTRA[name])
    r = np.random.default_rng(0).standard_normal((len(K), 2))
    lambdas = np.array([1e-6, 1e-2, 1.0]) * SPECTRA[name].max()
    path = BandDecomposition(K.copy(order="F")).ridge_path(r, lambdas)
    residuals = lambdas[:, None, None] * dense(K, r, lambdas)
    np.testing.assert_allclose(path.train_residuals, residuals, rtol=0, atol=1e-9 * np.linalg.norm(r))
    identity = np.eye(len(K))
    dof = [np.trace(np.linalg.solve(K + value * identity, K)) for value in lambdas]
    np.testing.assert_allclose(path.degrees_of_freedom, dof, rtol=1e-9)


def test_rows_of_very_different_scales():
    draw = np.random.default_rng(3)
    J = draw.standard_normal((90, 120)) * np.geomspace(1e-9, 1e3, 90)[:, None]
    K = np.asfortranarray(J @ J.T)
    decomposition, expected = BandDecomposition(K.copy(order="F")), np.linalg.eigvalsh(K)
    assert np.abs(decomposition.eigenvalues - expected).max() <= 8e-15 * expected[-1]


@pytest.mark.parametrize("M", [*range(1, 12), 47, 48, 49, 50, 96, 97, 145])
@pytest.mark.parametrize("width", [1, 4, 5, BAND_WIDTH])
def test_sizes_around_the_width(M: int, width: int):
    case = Case(seed=M, M=M, p=M + 3, rank=M, k=2, decay=0.3)
    decomposition = BandDecomposition(case.kernel, width)
    np.testing.assert_allclose(decomposition.eigenvalues, np.linalg.eigvalsh(case.kernel), rtol=0, atol=4e-15)
    check_path_is_dense(decomposition.ridge_path(case.r, LAMBDAS), case.kernel, case.r, tolerance=1e-9)
    # Q T Q^T is the kernel.
    T_times = decomposition.matrix.times(decomposition.rotated(np.eye(M)))
    np.testing.assert_allclose(decomposition.rotated_back(T_times), case.kernel, rtol=0, atol=4e-15)


# --- the choice


def test_large_kernels_are_reduced_to_a_band_and_small_ones_are_not(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(band, "BAND_FROM", 20)
    chosen = [type(SymmetricDecomposer(False)(np.eye(M, order="F"))) for M in (19, 20)]
    assert chosen == [TridiagonalDecomposition, BandDecomposition]
    few = Case(seed=0, M=40, p=20, rank=20, k=1, decay=0)
    assert type(PrimalDecomposition(few.blocks(), few.M, few.p)._gram) is BandDecomposition


def test_a_library_without_the_routines_leaves_the_tridiagonal_form(monkeypatch: pytest.MonkeyPatch):
    assert find_two_stage(("no_such_{}",)) is None
    monkeypatch.setattr(band, "BAND_FROM", 20)
    monkeypatch.setattr(band, "find_two_stage", lambda: find_two_stage(("no_such_{}",)))
    case = Case(seed=1, M=30, p=40, rank=30, k=1, decay=0.5)
    decomposition = SymmetricDecomposer(False)(case.kernel)
    assert type(decomposition) is TridiagonalDecomposition
    check_path_is_dense(decomposition.ridge_path(case.r, LAMBDAS), case.kernel, case.r)


def test_what_a_band_keeps_comes_back_from_a_file_with_the_same_bits():
    case = Case(seed=4, M=50, p=60, rank=50, k=2, decay=1.0)
    kept = BandDecomposition(case.kernel, 4).keep(case.r, iter([case.kernel]))
    arrays = {name: np.ascontiguousarray(array) for name, array in kept.arrays().items()}
    again = KeptPath.from_arrays(arrays, primal=False, size=50)
    for name in ("train_residuals", "squared_distance", "solution"):
        found, expected = (getattr(each.ridge_path(case.r, LAMBDAS), name) for each in (again, kept))
        np.testing.assert_array_equal(found, expected)
