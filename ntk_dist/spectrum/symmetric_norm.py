"""The spectral norm of a symmetric matrix of which only products are taken."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

MOST_PRODUCTS = 200


@dataclass(frozen=True)
class SymmetricNorm:
    """An estimate of the spectral norm |H| = max |s_i|.

    Attributes:
        value: |s| of the Ritz value s that is furthest from 0: at most |H|, but for rounding.
        residual: |H v - s v| for its unit vector v, in units of |s|: an eigenvalue of H lies within residual * value of
            s; 0 where H is.
    """

    value: float
    residual: float


def symmetric_norm(product: Callable[[Tensor], Tensor], start: Tensor, *, tolerance: float) -> SymmetricNorm:
    """Return the spectral norm of a symmetric H (p, p).

    The Lanczos process (Parlett, The Symmetric Eigenvalue Problem, chapter 13) ends once the residual is below
    `tolerance`, or after MOST_PRODUCTS. An eigenvalue that is separated from the next by a gap has at most the square
    of its residual over that gap as error. Former vectors are not kept: without them orthogonality is lost to a Ritz
    vector once it has converged, which is where the process ends.

    Args:
        product: returns H v (p,) for v (p,), in float64.
        start: (p,), float64; a random one, which no eigenvector is orthogonal to.
        tolerance: of the residual.
    """
    vector, previous, coupling = start / torch.linalg.vector_norm(start), torch.zeros_like(start), 0.0
    diagonal: list[float] = []
    couplings: list[float] = []
    found = SymmetricNorm(0.0, 0.0)
    while len(diagonal) < MOST_PRODUCTS:
        image = product(vector) - coupling * previous
        diagonal.append(float(vector @ image))
        image -= diagonal[-1] * vector
        coupling = float(torch.linalg.vector_norm(image))
        found = _furthest(diagonal, couplings, coupling)
        if coupling == 0 or found.residual <= tolerance:
            break
        couplings.append(coupling)
        vector, previous = image / coupling, vector
    return found


def _furthest(diagonal: list[float], couplings: list[float], coupling: float) -> SymmetricNorm:
    """Return the norm of the tridiagonal matrix; `coupling` ties it to what comes after it."""
    values, vectors = scipy.linalg.eigh_tridiagonal(np.array(diagonal), np.array(couplings))
    furthest = int(np.abs(values).argmax())
    value, error = float(abs(values[furthest])), coupling * abs(float(vectors[-1, furthest]))
    if error == 0:
        return SymmetricNorm(value, 0.0)
    return SymmetricNorm(value, error / value if value else float("inf"))
