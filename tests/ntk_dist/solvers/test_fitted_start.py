"""Leave-one-out and GCV where f_0 was fitted to the same labels, against n refits of it and of the regression."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from ntk_dist.kernel.kernel_matrix import KernelShapeError
from ntk_dist.solvers.eigen import EigenDecomposition
from ntk_dist.solvers.fitted_start import FittedStart
from ntk_dist.solvers.primal import PrimalDecomposition
from ntk_dist.solvers.schur import SchurDecomposition
from ntk_dist.solvers.tridiagonal import TridiagonalDecomposition

LAMBDAS = np.array([1e-2, 0.1, 1.0, 30.0, 1e9])
N_EXAMPLES, PENALTY = 9, 0.3


Extended = np.longdouble


def extended_solve(A: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solve A x = right in extended precision: by refinement, with residuals in it."""
    solution = np.zeros_like(right)
    for _ in range(6):
        left = right - A @ solution
        solution = solution + np.linalg.solve(A.astype(float), left.astype(float))
    return solution


@dataclass(frozen=True)
class Regression:
    """n examples of R rows and k targets, whose f_0 is a ridge fit with intercept on features x (n, d)."""

    R: int
    k: int
    d: int
    p: int
    n: int = N_EXAMPLES

    def draw(self, which: int, *shape: int) -> np.ndarray:
        return np.random.default_rng(which).standard_normal(shape)

    @property
    def x(self) -> np.ndarray:
        return self.draw(0, self.n, self.d)

    @property
    def y(self) -> np.ndarray:
        """Labels, one column for each row and target of an example: (n, R k)."""
        return self.draw(1, self.n, self.R * self.k)

    @property
    def jacobian(self) -> np.ndarray:
        return self.draw(2, self.n * self.R, self.p)

    @property
    def kernel(self) -> np.ndarray:
        return np.asfortranarray(self.jacobian @ self.jacobian.T)

    def rows(self, values: np.ndarray) -> np.ndarray:
        """(n, R k) as the kernel's rows and targets, (n R, k)."""
        return values.reshape(len(values) * self.R, self.k)

    @property
    def exact_hat(self) -> np.ndarray:
        """H (n, n) in extended precision: labels that are nearly fitted leave little, which has to be as exact."""
        one, penalty = penalized(self.x)
        return one @ extended_solve(one.T @ one + penalty, one.T)

    @property
    def hat(self) -> np.ndarray:
        return self.exact_hat.astype(float)

    @property
    def exact_residual(self) -> np.ndarray:
        """What the probe leaves of the labels, (n, R k), in extended precision."""
        return self.y - self.exact_hat @ self.y

    @property
    def residual(self) -> np.ndarray:
        return self.rows(self.exact_residual.astype(float))

    def start(self, *, linear: bool = True) -> FittedStart:
        values, vectors = np.linalg.eigh(self.hat)
        features = vectors * np.sqrt(np.maximum(values, 0))
        left = self.exact_residual / (1 - np.diag(self.exact_hat))[:, None]
        changes = left.astype(float).reshape(self.n, 1, self.R, self.k)
        return FittedStart(features, features[:, None, :], changes, linear)

    def refitted(self, f_without: Callable[[int], np.ndarray]) -> np.ndarray:
        """Residuals (L, M, k) of each example under the regression on the others, f_0 being f_without(i), (n, R k)."""
        found = np.empty((len(LAMBDAS), self.n * self.R, self.k))
        for i in range(self.n):
            out = np.arange(i * self.R, (i + 1) * self.R)
            rest = np.setdiff1d(np.arange(len(self.kernel)), out)
            r = self.rows(self.y - f_without(i))
            for position, value in enumerate(LAMBDAS):
                alpha = np.linalg.solve(self.kernel[np.ix_(rest, rest)] + value * np.eye(len(rest)), r[rest])
                found[position, out] = r[out] - self.kernel[np.ix_(out, rest)] @ alpha
        return found

    def primal(self, *, eigenvectors: bool) -> PrimalDecomposition:
        step = 4 * self.R
        return PrimalDecomposition(
            lambda: (self.jacobian[first : first + step] for first in range(0, len(self.jacobian), step)),
            len(self.jacobian),
            self.p,
            decompose=EigenDecomposition if eigenvectors else TridiagonalDecomposition,
        )


def penalized(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features x (n, d) with a column of ones, and the penalty of the ridge fit, in extended precision."""
    one = np.column_stack([x, np.ones(len(x))]).astype(Extended)
    return one, PENALTY * np.diag([1.0] * x.shape[1] + [0.0]).astype(Extended)


def probe(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The ridge fit with an unpenalized intercept, by its normal equations."""
    one = np.column_stack([x, np.ones(len(x))])
    penalty = PENALTY * np.diag([1.0] * x.shape[1] + [0.0])
    weights = np.linalg.solve(one.T @ one + penalty, one.T @ y)
    return lambda points: np.column_stack([points, np.ones(len(points))]) @ weights


# Full, trace and margin outputs; fewer and more features than examples; fewer and more parameters than rows.
REGRESSIONS = [
    Regression(R, k, d, p) for R, k in ((2, 1), (3, 1), (1, 3), (1, 1)) for d, p in ((3, 40), (12, 5), (3, 5))
]


def without(regression: Regression) -> Callable[[int], np.ndarray]:
    def fitted(i: int) -> np.ndarray:
        rest = np.arange(regression.n) != i
        return probe(regression.x[rest], regression.y[rest])(regression.x)

    return fitted


@pytest.mark.parametrize("case", REGRESSIONS, ids=str)
def test_leave_one_out_is_what_refitting_the_start_too_gives(case: Regression):
    expected = case.refitted(without(case))
    for decomposition in (EigenDecomposition(case.kernel), case.primal(eigenvectors=True)):
        path = decomposition.ridge_path(
            case.residual, LAMBDAS, leave_one_out=True, rows_per_example=case.R, start=case.start()
        )
        np.testing.assert_allclose(path.leave_one_out, expected, rtol=0, atol=1e-11)


def refitted_exactly(case: Regression, value: float) -> np.ndarray:
    """`Regression.refitted` for one lambda in extended precision, (M, k), for the kernel as it is in double."""
    one, penalty = penalized(case.x)
    y, shifted = case.y.astype(Extended), case.kernel.astype(Extended)
    found = np.empty((case.n * case.R, case.k), dtype=Extended)
    for i in range(case.n):
        others = np.arange(case.n) != i
        weights = extended_solve(one[others].T @ one[others] + penalty, one[others].T @ y[others])
        r = case.rows(y - one @ weights)
        out = np.arange(i * case.R, (i + 1) * case.R)
        rest = np.setdiff1d(np.arange(len(shifted)), out)
        own = shifted[np.ix_(rest, rest)] + value * np.eye(len(rest), dtype=Extended)
        found[out] = r[out] - shifted[np.ix_(out, rest)] @ extended_solve(own, r[rest])
    return found


@pytest.mark.skipif(np.finfo(Extended).eps > 1e-18, reason="numpy has no extended precision here")
@pytest.mark.parametrize("value", [1e-3, 0.1, 1.0, 30.0, 1e9])
@pytest.mark.parametrize("case", REGRESSIONS, ids=str)
def test_leave_one_out_is_as_exact_as_rounding_the_kernel_allows(case: Regression, value: float):
    """1e-14, and what one rounding of the kernel's entries changes: its condition number times the unit roundoff."""
    expected = refitted_exactly(case, value)
    condition = np.linalg.cond(case.kernel + value * np.eye(len(case.kernel)))
    largest = 1e-14 + 2.5 * condition * np.finfo(float).eps / 2
    decompositions: list[EigenDecomposition | PrimalDecomposition] = [EigenDecomposition(case.kernel)]
    # sweeps decompose J'J where it has fewer rows than the kernel
    decompositions += [case.primal(eigenvectors=True)] if case.p < len(case.kernel) else []
    for decomposition in decompositions:
        path = decomposition.ridge_path(
            case.residual, np.array([value]), leave_one_out=True, rows_per_example=case.R, start=case.start()
        )
        assert path.leave_one_out is not None
        assert np.abs(path.leave_one_out[0] - expected).max() < largest * np.abs(expected).max()


@pytest.mark.skipif(np.finfo(Extended).eps > 1e-18, reason="numpy has no extended precision here")
@pytest.mark.parametrize("case", REGRESSIONS, ids=str)
def test_leave_one_out_of_a_well_conditioned_kernel_has_no_error_but_rounding(case: Regression):
    value = float(np.linalg.eigvalsh(case.kernel)[-1])  # the condition number is at most 2
    expected = refitted_exactly(case, value)
    for decomposition in (EigenDecomposition(case.kernel), case.primal(eigenvectors=True)):
        path = decomposition.ridge_path(
            case.residual, np.array([value]), leave_one_out=True, rows_per_example=case.R, start=case.start()
        )
        assert path.leave_one_out is not None
        assert np.abs(path.leave_one_out[0] - expected).max() < 1e-14 * np.abs(expected).max()


@pytest.mark.parametrize("case", REGRESSIONS, ids=str)
def test_a_large_lambda_leaves_the_starts_own_leave_one_out(case: Regression):
    f = without(case)
    own = case.rows(np.stack([case.y[i] - f(i)[i] for i in range(case.n)]))
    for decomposition in (EigenDecomposition(case.kernel), case.primal(eigenvectors=True)):
        path = decomposition.ridge_path(
            case.residual, np.array([1e14]), leave_one_out=True, rows_per_example=case.R, start=case.start()
        )
        np.testing.assert_allclose(path.leave_one_out[0], own, rtol=0, atol=1e-11)


@pytest.mark.parametrize("case", REGRESSIONS, ids=str)
def test_gcv_counts_what_the_start_was_fitted_with(case: Regression):
    """Against the matrix that takes the labels to the predictions, put together."""
    M = len(case.kernel)
    H = np.kron(case.hat, np.eye(case.R))
    residuals = case.residual
    for decomposition in (
        EigenDecomposition(case.kernel),
        TridiagonalDecomposition(case.kernel),
        case.primal(eigenvectors=True),
        case.primal(eigenvectors=False),
    ):
        path = decomposition.ridge_path(residuals, LAMBDAS, rows_per_example=case.R, start=case.start())
        for position, value in enumerate(LAMBDAS):
            B = np.linalg.inv(case.kernel + value * np.eye(M))
            S = H + case.kernel @ B @ (np.eye(M) - H)
            left = case.rows(case.y) - S @ case.rows(case.y)
            np.testing.assert_allclose(path.train_residuals[position], left, atol=1e-9)
            expected = np.sum(left**2) / M / (np.trace(np.eye(M) - S) / M) ** 2
            assert path.gcv[position] == pytest.approx(expected, rel=1e-9)


def test_any_start_that_can_be_fitted_without_an_example():
    """A start that is not linear in the labels, each of whose rows moves along directions of its own."""
    case = Regression(2, 1, 3, 5)
    features = np.column_stack([case.x, np.ones(case.n)])
    weights = case.draw(3, 2, 4)
    others = weights + case.draw(4, case.n, 2, 4)
    changes = np.broadcast_to(np.eye(2)[None, :, :, None], (case.n, 2, 2, 1))
    start = FittedStart(features, weights - others, changes, linear=False)
    residual = case.rows(case.y - features @ weights.T)
    expected = case.refitted(lambda i: features @ others[i].T)
    for decomposition in (EigenDecomposition(case.kernel), case.primal(eigenvectors=True)):
        path = decomposition.ridge_path(residual, LAMBDAS, leave_one_out=True, rows_per_example=2, start=start)
        np.testing.assert_allclose(path.leave_one_out, expected, rtol=0, atol=1e-11)
        assert np.isnan(path.gcv).all()
    for without_vectors in (TridiagonalDecomposition(case.kernel), case.primal(eigenvectors=False)):
        path = without_vectors.ridge_path(residual, LAMBDAS, rows_per_example=2, start=start)
        assert np.isnan(path.gcv).all()


def test_examples_in_chunks_are_those_of_one_piece(monkeypatch: pytest.MonkeyPatch):
    case = Regression(3, 1, 3, 40)

    def left_out() -> np.ndarray:
        return EigenDecomposition(case.kernel).ridge_path(
            case.residual, LAMBDAS, leave_one_out=True, rows_per_example=3, start=case.start()
        ).leave_one_out  # fmt: skip

    whole = left_out()
    monkeypatch.setattr("ntk_dist.solvers.fitted_start._CHUNK", 1)
    np.testing.assert_allclose(left_out(), whole, rtol=1e-12)


def test_an_unsymmetric_kernel_has_no_gcv_with_a_fitted_start():
    case = Regression(1, 1, 3, 40)
    path = SchurDecomposition(case.kernel.copy(order="F")).ridge_path(case.residual, LAMBDAS, start=case.start())
    assert np.isnan(path.gcv).all()
    assert path.leave_one_out is None


def test_refuses_shapes_that_do_not_belong_together():
    case = Regression(1, 1, 3, 40)
    start = case.start()
    with pytest.raises(KernelShapeError, match="directions"):
        FittedStart(start.features, start.directions[:, :, 1:], start.changes, linear=True)
    with pytest.raises(KernelShapeError, match="9 examples of 1 rows each, got 8"):
        start.times_transposed(case.jacobian[:8])
