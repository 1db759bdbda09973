"""Random kernel regressions that the tests of the algebra share, and their dense solutions."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st


@dataclass(frozen=True)
class Case:
    """Rows J (M, p) of a chosen rank with singular values i^-decay, residuals r (M, k)."""

    seed: int
    M: int
    p: int
    rank: int
    k: int
    decay: float

    @property
    def jacobian(self) -> np.ndarray:
        rng = np.random.default_rng(self.seed)
        rank = min(self.rank, self.M, self.p)
        left, _ = np.linalg.qr(rng.standard_normal((self.M, rank)))
        right, _ = np.linalg.qr(rng.standard_normal((self.p, rank)))
        return (left * np.arange(1.0, rank + 1) ** -self.decay) @ right.T

    @property
    def kernel(self) -> np.ndarray:
        J = self.jacobian
        K = J @ J.T
        return np.asfortranarray((K + K.T) / 2)

    @property
    def r(self) -> np.ndarray:
        return np.random.default_rng(self.seed + 1).standard_normal((self.M, self.k))

    def blocks(self, rows: int = 3):
        """A callable that streams J in blocks of so many rows."""
        J = self.jacobian
        return lambda: (J[start : start + rows] for start in range(0, self.M, rows))


cases = st.builds(
    Case,
    seed=st.integers(0, 2**32 - 2),
    M=st.integers(1, 14),
    p=st.integers(1, 20),
    rank=st.integers(1, 20),
    k=st.integers(1, 3),
    decay=st.floats(0, 2),
)

LAMBDAS = np.array([1e-6, 1e-3, 0.1, 1.0, 30.0])


def dense(K: np.ndarray, r: np.ndarray, lambdas: np.ndarray = LAMBDAS) -> np.ndarray:
    """(K + lambda I)^{-1} r for every lambda, by a dense solve: (L, M, k)."""
    return np.stack([np.linalg.solve(K + value * np.eye(len(K)), r) for value in lambdas])


def check_path_is_dense(path, K: np.ndarray, r: np.ndarray, *, tolerance: float = 1e-8) -> None:
    """Compare what a path holds, whatever the method, with dense solves."""
    alphas = dense(K, r)
    scale = np.linalg.norm(r)
    np.testing.assert_allclose(path.train_residuals, LAMBDAS[:, None, None] * alphas, atol=tolerance * scale)
    identity = np.eye(len(K))
    dof = [np.trace(K @ np.linalg.inv(K + value * identity)) for value in LAMBDAS]
    np.testing.assert_allclose(path.degrees_of_freedom, dof, atol=tolerance * len(K))
    np.testing.assert_allclose(path.lambdas, LAMBDAS)


def dense_squared_distance(K: np.ndarray, r: np.ndarray) -> np.ndarray:
    """|d|^2 = r^T (K + lambda I)^{-1} K (K + lambda I)^{-1} r, summed over targets: (L,)."""
    return np.array([np.sum(alpha * (K @ alpha)) for alpha in dense(K, r)])


def check_squared_distance(actual: np.ndarray, expected: np.ndarray, K: np.ndarray, r: np.ndarray) -> None:
    """Compare |d|^2 = alpha^T K alpha up to the rounding of K, which alpha ~ |r| / lambda magnifies."""
    rounding = len(K) * np.finfo(np.float64).eps * np.linalg.norm(K, 2) * np.sum(r**2) / LAMBDAS**2
    assert (np.abs(actual - expected) <= 1e-9 * expected + 4 * rounding).all(), (actual, expected)


def refitted_leave_one_out(K: np.ndarray, r: np.ndarray, rows_per_example: int = 1) -> np.ndarray:
    """Residuals of each example under the fit to all the others, fitted again each time: (L, M, k)."""
    residuals = np.empty((len(LAMBDAS), *r.shape))
    for start in range(0, len(K), rows_per_example):
        out = np.arange(start, start + rows_per_example)
        rest = np.setdiff1d(np.arange(len(K)), out)
        alphas = dense(K[np.ix_(rest, rest)], r[rest])
        residuals[:, out] = r[out] - np.einsum("or,lrk->lok", K[np.ix_(out, rest)], alphas)
    return residuals
