"""Kept parts of a decomposition, against the decomposition itself and dense solves, for unforeseen lambdas."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntk_dist.solvers.band import BandDecomposition
from ntk_dist.solvers.eigen import EigenDecomposition
from ntk_dist.solvers.kept_path import KeptPath
from ntk_dist.solvers.lambda_nodes import MOST_NODES, NODES_PER_DECADE, node_lambdas
from ntk_dist.solvers.primal import PrimalDecomposition
from ntk_dist.solvers.ridge import LambdaError
from ntk_dist.solvers.schur import SchurDecomposition
from ntk_dist.solvers.tridiagonal import TridiagonalDecomposition
from tests.ntk_dist.solvers.kernel_cases import LAMBDAS, Case, cases, check_path_is_dense, dense, refitted_leave_one_out
from tests.ntk_dist.solvers.test_fitted_start import REGRESSIONS, Regression

BAND = partial(BandDecomposition, width=3)
DUAL = {
    "tridiagonal": TridiagonalDecomposition,
    "band": BAND,
    "eigen": EigenDecomposition,
    "schur": SchurDecomposition,
}


def stored(kept: KeptPath) -> KeptPath:
    """Return what comes back from a file."""
    arrays = {name: array.copy() for name, array in kept.arrays().items()}
    return KeptPath.from_arrays(arrays, primal=kept.primal, size=kept.size)


def test_an_unsymmetric_kernel_is_solved_beside_its_eigenvalues_left_of_zero():
    """Of which no few solutions span all: between two of them the path turns from one sign to the other."""
    draw, M = np.random.default_rng(0), 150
    basis, r = np.eye(M) + 0.2 * draw.standard_normal((M, M)) / M**0.5, draw.standard_normal((M, 2))
    eigenvalues = np.concatenate([-np.geomspace(1e-4, 1, M // 2), np.geomspace(1e-4, 10, M // 2)])
    K = basis @ np.diag(eigenvalues) @ np.linalg.inv(basis)
    rows = draw.standard_normal((5, M))
    lambdas = np.array([0.0231, 0.05, 0.12, 0.3, 0.97])
    kept = stored(SchurDecomposition(K.copy()).keep(r, iter([rows])))
    found = kept.ridge_path(r, lambdas).eval_fit(kept.evaluation)
    for shift, fit in zip(lambdas, found, strict=True):
        expected = rows @ np.linalg.solve(K + shift * np.eye(M), r)
        np.testing.assert_allclose(fit, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("kind", DUAL)
@given(case=cases)
def test_a_kept_path_is_the_dense_solution(kind: str, case: Case):
    rows = np.random.default_rng(case.seed + 2).standard_normal((5, case.M))
    kept = stored(DUAL[kind](case.kernel).keep(case.r, iter([rows[:2], rows[2:]])))
    path = kept.ridge_path(case.r, LAMBDAS)
    check_path_is_dense(path, case.kernel, case.r)
    alphas = dense(case.kernel, case.r)
    rounding = 1e-8 * np.linalg.norm(rows) * np.linalg.norm(case.r) / LAMBDAS[:, None, None]
    assert (np.abs(path.eval_fit(kept.evaluation) - rows @ alphas) <= rounding).all()


@given(case=cases, decompose=st.sampled_from([EigenDecomposition, TridiagonalDecomposition, BAND]))
def test_a_kept_primal_path_is_the_dense_solution(case: Case, decompose: Callable):
    J = case.jacobian
    kept = stored(PrimalDecomposition(case.blocks(), case.M, case.p, decompose=decompose).keep(case.r, case.blocks()()))
    path = kept.ridge_path(case.r, LAMBDAS)
    check_path_is_dense(path, case.kernel, case.r)
    fit = case.r - path.train_residuals
    np.testing.assert_allclose(path.eval_fit(kept.evaluation), fit, atol=1e-8 * np.linalg.norm(case.r))
    weights = np.stack([J.T @ alpha for alpha in dense(case.kernel, case.r)])
    np.testing.assert_allclose(path.squared_distance, (weights**2).sum(axis=(1, 2)), rtol=1e-6)


@given(case=cases)
def test_kept_leave_one_out_is_what_refitting_gives(case: Case):
    expected = refitted_leave_one_out(case.kernel, case.r)
    primal = PrimalDecomposition(case.blocks(), case.M, case.p, decompose=EigenDecomposition)
    for decomposition in (EigenDecomposition(case.kernel), primal):
        rows = case.blocks()() if decomposition is primal else iter([case.kernel])
        path = stored(decomposition.keep(case.r, rows, leave_one_out=True)).ridge_path(case.r, LAMBDAS)
        np.testing.assert_allclose(path.leave_one_out, expected, atol=1e-7 * np.linalg.norm(case.r))


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("case", REGRESSIONS, ids=str)
def test_what_a_fitted_start_changes_is_kept(case: Regression, linear: bool):
    lambdas = np.array([3e-3, 0.2, 7.0, 4e8])
    options = {"leave_one_out": True, "rows_per_example": case.R, "start": case.start(linear=linear)}
    makers = (
        lambda: EigenDecomposition(case.kernel),
        lambda: TridiagonalDecomposition(case.kernel),
        lambda: BAND(case.kernel),
        lambda: case.primal(eigenvectors=True),
        lambda: case.primal(eigenvectors=False),
    )
    for make in makers:
        expected = make().ridge_path(case.residual, lambdas, **options)
        rows = case.jacobian if isinstance(make(), PrimalDecomposition) else case.kernel
        found = stored(make().keep(case.residual, iter([rows]), **options)).ridge_path(case.residual, lambdas)
        np.testing.assert_allclose(found.start_degrees_of_freedom, expected.start_degrees_of_freedom, atol=1e-10)
        np.testing.assert_allclose(found.gcv, expected.gcv, rtol=1e-9)
        assert (found.leave_one_out is None) == (expected.leave_one_out is None)
        if expected.leave_one_out is not None:
            # The smallest lambda is a ten-thousandth of the kernel, which magnifies rounding as much.
            np.testing.assert_allclose(found.leave_one_out, expected.leave_one_out, rtol=0, atol=1e-10)


@pytest.mark.parametrize("reduce", [TridiagonalDecomposition, BandDecomposition])
@pytest.mark.parametrize("decay", [0.75, 2.0, 6.0])
@pytest.mark.parametrize("smooth", [False, True])
def test_any_lambda_has_the_numbers_of_a_path_of_its_own(decay: float, smooth: bool, reduce: Callable):
    """Relative to each residual, also where that is a tiny part of what it was before training."""
    case = Case(seed=3, M=300, p=400, rank=300, k=2, decay=decay)
    K, r = case.kernel, case.r
    r = K @ r if smooth else r
    largest = float(np.linalg.norm(K, 2))
    lambdas = largest * 10.0 ** np.random.default_rng(0).uniform(-10, 5, 40)
    direct = reduce(K.copy(order="F")).ridge_path(r, lambdas)
    kept = reduce(K.copy(order="F")).keep(r, iter([K]))
    found = kept.ridge_path(r, lambdas)
    error = np.linalg.norm(found.train_residuals - direct.train_residuals, axis=(1, 2))
    # Each solution with a band has a rounding error of its own: a hundredth of what the reduction's can be.
    rounding = 1e-2 * np.finfo(np.float64).eps * largest / lambdas if reduce is BandDecomposition else 0.0
    assert (error <= (1e-11 + rounding) * np.linalg.norm(direct.train_residuals, axis=(1, 2))).all()
    for name in ("squared_distance", "degrees_of_freedom"):
        np.testing.assert_allclose(getattr(found, name), getattr(direct, name), rtol=1e-12)
    assert kept.basis.shape[1] < 200  # columns for two targets, of a kernel with 300 rows
    np.testing.assert_allclose(kept.basis.T @ kept.basis, np.eye(kept.basis.shape[1]), atol=1e-13)


@pytest.mark.parametrize("condition", [1.0, 3.0, 1e4, 1e10, 1e16, np.inf])
def test_few_solutions_span_those_of_all_lambdas(condition: float):
    """Also of lambdas far beyond the spectrum, near to which no node stands where that is narrow."""
    draw = np.random.default_rng(0)
    s, r = np.geomspace(1 / condition, 1, 200) if condition < np.inf else np.zeros(200), draw.standard_normal((200, 1))
    kept = EigenDecomposition(np.diag(s)).keep(r, iter([np.eye(200)]))
    lambdas = 10.0 ** draw.uniform(-13 if condition > 1e13 else -20, 8, 500)
    left = kept.ridge_path(r, lambdas).train_residuals[..., 0]
    expected = lambdas[:, None] / (s + lambdas[:, None]) * r[:, 0]
    error = np.linalg.norm(left - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert error.max() < 1e-13


@pytest.mark.parametrize("smallest", [-1e-16, 0.0, 1e-30, 1e-3, 5.0])
def test_nodes_stand_as_close_along_any_spectrum(smallest: float):
    lowest, *nodes = node_lambdas(smallest, 5.0)
    assert (np.diff(np.log10(nodes)) <= (1 + 1e-9) / NODES_PER_DECADE).all()
    assert lowest <= nodes[0] <= max(smallest / 30, lowest)
    assert nodes[-1] >= 30 * 5.0
    assert len(nodes) < MOST_NODES
    np.testing.assert_allclose([lowest, *nodes], 5 * node_lambdas(smallest / 5, 1.0))


def test_a_kernel_of_zeros_leaves_the_residual():
    r = np.array([[1.0], [-2.0], [0.5]])
    for decomposition in (TridiagonalDecomposition(np.zeros((3, 3))), EigenDecomposition(np.zeros((3, 3)))):
        path = decomposition.keep(r, iter([np.zeros((2, 3))])).ridge_path(r, np.array([1e-9, 2.0]))
        np.testing.assert_allclose(path.train_residuals, np.stack([r, r]), rtol=1e-14)
        assert (path.squared_distance == 0).all()


def test_no_residual_has_the_path_of_zeros():
    r = np.zeros((4, 1))
    kept = stored(TridiagonalDecomposition(np.eye(4)).keep(r, iter([np.ones((2, 4))])))
    path = kept.ridge_path(r, LAMBDAS)
    assert not path.train_residuals.any()
    assert not path.eval_fit(kept.evaluation).any()


def test_a_singular_system_gives_nan_for_its_lambda_alone():
    kept = TridiagonalDecomposition(np.diag([-1.0, 1.0, 2.0])).keep(np.ones((3, 1)), iter([np.eye(3)]))
    path = kept.ridge_path(np.ones((3, 1)), np.array([1.0, 3.0]))
    assert np.isnan(path.train_residuals[0]).all()
    assert np.isfinite(path.train_residuals[1]).all()


def test_refuses_what_a_path_refuses():
    kept = TridiagonalDecomposition(np.eye(3)).keep(np.ones((3, 1)), iter([np.eye(3)]))
    with pytest.raises(LambdaError, match="positive"):
        kept.ridge_path(np.ones((3, 1)), np.array([0.0]))
