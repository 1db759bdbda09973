"""Variances of a Gaussian process whose mean is the ridge solution: for any lambda, from kept data of eigenvectors."""

from dataclasses import dataclass

import numpy as np

from ntk_dist.arrays import FloatArray
from ntk_dist.solvers.evidence import prior_variance
from ntk_dist.solvers.kept_arrays import InCOrder, orthonormal_basis
from ntk_dist.solvers.lambda_nodes import node_lambdas
from ntk_dist.solvers.ridge import RidgePath


@dataclass(frozen=True, eq=False)
class KeptVariance(InCOrder):
    """Kept data for c(x) = k(x, x) - k(x) (K + lambda I)^{-1} k(x)^T of M_eval evaluation rows x.

    With K = U diag(s) U^T and phi = k(x) U diag(s)^{-1/2} it is [k(x, x) - |phi|^2] + sum_j phi_j^2 lambda / (s_j +
    lambda): no lambda subtracts anything. The weights of the sum lie in a space of few dimensions. Modes whose s is
    rounding error have none; what x has of them is part of the bracket.

    basis: (r, b), of the weights of the r modes with the largest s.
    beyond: (M_eval,), the bracket: what no lambda explains, for it is not in the span of the training rows.
    squares: (M_eval, b), the products of phi^2 with the basis.
    """

    basis: FloatArray
    beyond: FloatArray
    squares: FloatArray

    def unexplained(self, eigenvalues: FloatArray, lambdas: FloatArray) -> FloatArray:
        """Return c(x) for lambdas (L,) and the eigenvalues of K, ascending, (L, M_eval)."""
        weights = _weights(eigenvalues[len(eigenvalues) - len(self.basis) :], lambdas)
        explained: FloatArray = (weights @ self.basis) @ self.squares.T
        return self.beyond + np.maximum(explained, 0.0)

    def predictive_variance(self, path: RidgePath, residual: FloatArray, eigenvalues: FloatArray) -> FloatArray:
        """Return the variance of f(x) given the training labels, (tau^2 / lambda) c(x), (L, M_eval).

        The prior is that of `log_evidence`, tau^2 that of `prior_variance` (Rasmussen and Williams 2006, equation 2.26,
        for noise tau^2 and the covariance tau^2 K / lambda). With tau^2 added it is the variance of a label.

        Args:
            path: the ridge path.
            residual: r (M, k), as it was given to the path.
            eigenvalues: those of K, ascending.
        """
        scale = prior_variance(path, residual) / path.lambdas
        result: FloatArray = scale[:, None] * self.unexplained(eigenvalues, path.lambdas)
        return result


def keep_variance(eigenvalues: FloatArray, squares: FloatArray, diagonal: FloatArray | None) -> KeptVariance:
    """Return the kept data of all modes of a symmetric matrix with eigenvalues s (q,), ascending.

    Args:
        eigenvalues: s, of K = J J^T or of J^T J.
        squares: (M_eval, q), those of k(x) U for K, or of j(x) U for J^T J, whose phi they are already.
        diagonal: k(x, x) (M_eval,), for K; None for J^T J, whose eigenvectors span all there is of x.
    """
    resolved = eigenvalues > len(eigenvalues) * np.finfo(np.float64).eps * max(float(eigenvalues[-1]), 0.0)
    s, phi = eigenvalues[resolved], squares[:, resolved]
    if diagonal is None:
        beyond = squares[:, ~resolved].sum(axis=1)
    else:
        phi = phi / s
        beyond = np.maximum(diagonal - phi.sum(axis=1), 0.0)
    basis = np.empty((0, 0))
    if len(s):
        weights = _weights(s, node_lambdas(float(s[0]), float(s[-1])))
        basis = orthonormal_basis(np.vstack([np.ones(len(s)), weights]).T)
    return KeptVariance(basis, beyond, phi @ basis)


def _weights(eigenvalues: FloatArray, lambdas: FloatArray) -> FloatArray:
    """Return lambda / (s + lambda), (L, r), for eigenvalues s (r,)."""
    shifts = lambdas[:, None]
    weights: FloatArray = shifts / (eigenvalues + shifts)
    return weights
