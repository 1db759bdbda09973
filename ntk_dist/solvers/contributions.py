"""How much each block of a kernel carries of a ridge solution, for any lambda, from data kept of a decomposition.

With K = sum_g K_g and a = (K + lambda I)^{-1} r the change of the training outputs is K a = sum_g K_g a, and the
squared norm of the weights' change |d|^2 = a^T K a = sum_g a^T K_g a = sum_g |d_g|^2. For all lambda > 0 together a
lies in the space that W = Q V of `KeptPath` spans, and so does K a = r - lambda a, for r is in it: W^T K_g W (m, m),
made once, serves every lambda. It is better conditioned, too, than <K_g a, K a> from (K_g W)^T K W, which magnifies
roundings by the square of |K| |a| / |K a|.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np

from ntk_dist.arrays import FloatArray
from ntk_dist.solvers.kept_krylov import KeptKrylovPath
from ntk_dist.solvers.kept_path import KeptPath
from ntk_dist.solvers.ridge import RidgePath


@dataclass(frozen=True, eq=False)
class Contributions:
    """Shares of G blocks in the ridge solutions of L lambdas; nan where nothing moves.

    moved: (L, G), c_g = <K_g a, K a> / |K a|^2, summed over the targets: they add up to 1, and single ones may be
        negative or above 1.
    distance: (L, G), |d_g|^2 / |d|^2 = a^T K_g a / a^T K a, between 0 and 1; they add up to 1.
    """

    moved: FloatArray
    distance: FloatArray


@dataclass(frozen=True, eq=False)
class KeptContributions:
    """Kept data of the G blocks of a kernel: t bases of m vectors each, one for all targets or one for each.

    forms: (G, t, m, m), W^T K_g W of the bases W (M, m) of all a; where J^T J was decomposed, W_g^T W_g of each block's
        own rows of the basis W (p, m) of all d.
    products: (G, 1, m, m), (J W)^T J_g W_g where J^T J was decomposed; None where K was.
    """

    forms: FloatArray
    products: FloatArray | None = None

    def along(self, path: RidgePath, kept: KeptPath | KeptKrylovPath) -> Contributions:
        """Return the shares along a path that `kept`, of the same decomposition, gave."""
        c = path.solution
        distance = np.maximum(_forms(c, self.forms, c), 0.0)  # rounding leaves some of 0 slightly negative
        if self.products is not None:
            return Contributions(_shares(_forms(c, self.products, c)), _shares(distance))
        fitted = _residual_in_basis(kept) - path.lambdas[:, None, None] * c
        return Contributions(_shares(_forms(fitted, self.forms, c)), _shares(distance))

    def arrays(self) -> dict[str, FloatArray]:
        """Return its arrays by name: what `from_arrays` takes."""
        found = {"contribution_forms": self.forms}
        return found if self.products is None else found | {"contribution_products": self.products}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, FloatArray]) -> "KeptContributions":
        """Return the kept data whose `arrays` these are."""
        return cls(arrays["contribution_forms"], arrays.get("contribution_products"))


def dual_bases(kept: KeptPath | KeptKrylovPath) -> FloatArray:
    """Return the bases W of the dual coefficients of all lambdas, (M, t, m): t = 1, or the number of targets."""
    return kept.train if isinstance(kept, KeptKrylovPath) else kept.train[:, None]


def _residual_in_basis(kept: KeptPath | KeptKrylovPath) -> FloatArray:
    """Return the coefficients of r in the bases, (m, k)."""
    if isinstance(kept, KeptKrylovPath):
        return (kept.basis[:, 0] * kept.norms[:, None]).T
    return kept.basis.T @ kept.rotated


def _forms(left: FloatArray, forms: FloatArray, right: FloatArray) -> FloatArray:
    """Return sum_c left_c^T F_g right_c, (L, G), for left and right (L, m, k) and forms F (G, t, m, m)."""
    if forms.shape[1] == 1:
        found = np.einsum("lmk,glmk->lg", left, np.matmul(forms, right[None]))
    else:
        found = np.einsum("lmk,gkmn,lnk->lg", left, forms, right, optimize=True)
    return cast(FloatArray, found)


def _shares(parts: FloatArray) -> FloatArray:
    """Return parts (L, G) over their sums."""
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = parts / parts.sum(axis=1, keepdims=True)
    return np.where(np.isfinite(shares), shares, np.nan)
