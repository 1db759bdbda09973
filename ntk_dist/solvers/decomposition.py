"""Interface of all decompositions of a kernel."""

from collections.abc import Iterable
from typing import Protocol

from ntk_dist.arrays import FloatArray
from ntk_dist.solvers.fitted_start import FittedStart
from ntk_dist.solvers.kept_path import KeptPath
from ntk_dist.solvers.ridge import RidgePath


class Decomposition(Protocol):
    """A kernel K (M, M), factorized once.

    size: M.
    trace: trace of K.
    """

    size: int
    trace: float

    @property
    def eigenvalues(self) -> FloatArray:
        """Eigenvalues of K, ascending: (M,), or (min(M, p),) from p features, the other M - p being zero.

        For an unsymmetric kernel these are its singular values, which is what condition numbers need.
        """

    def ridge_path(
        self,
        residual: FloatArray,
        lambdas: FloatArray,
        *,
        leave_one_out: bool = False,
        rows_per_example: int = 1,
        start: FittedStart | None = None,
    ) -> RidgePath:
        """Solve (K + lambda I) alpha = r for residual r (M, k) and every one of lambdas (L,), absolute.

        `leave_one_out` asks for leave-one-example-out residuals, an example being `rows_per_example`
        consecutive rows; decompositions without eigenvectors leave them None. `start` says how f_0, from which the
        residual is taken, was fitted to the same labels: then it is fitted again without the example too, the kernel
        staying as it is, and counts in generalized cross-validation.
        Raises LambdaError for lambda <= 0, KernelShapeError for a residual of other length.
        """

    def keep(
        self,
        residual: FloatArray,
        rows: Iterable[FloatArray],
        *,
        leave_one_out: bool = False,
        rows_per_example: int = 1,
        start: FittedStart | None = None,
        variance: bool = False,
        diagonal: FloatArray | None = None,
    ) -> KeptPath:
        """Return the data from which the path of any lambda follows without this decomposition.

        `rows` are blocks of what `RidgePath.eval_fit` takes, of all evaluation examples. `variance` asks for the data
        of predictive variances, which decompositions without eigenvectors leave None; unless `rows` are features, it
        needs K(x, x) of their examples, `diagonal` (M_eval,). The others are those of `ridge_path`, whose numbers the
        kept path has to rounding. Raises KernelShapeError as `ridge_path` does.
        """

    def quadratic_form(self, targets: FloatArray) -> float:
        """Return <K, Y Y^T> = tr Y^T K Y for targets Y (M, k)."""


class ShiftedSolver(Protocol):
    """A symmetric matrix A (q, q), factorized so that A + lambda I is cheap to solve."""

    @property
    def eigenvalues(self) -> FloatArray:
        """Eigenvalues of A, ascending, (q,)."""

    def solve(self, right: FloatArray, lambdas: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return x = (A + lambda I)^{-1} right, (L, q, k), for right (q, k), and tr x^T A x, (L,)."""

    def inverse_form(self, right: FloatArray, lambdas: FloatArray) -> FloatArray:
        """Return tr right^T (A + lambda I)^{-1} right, (L,), for right (q, k)."""
