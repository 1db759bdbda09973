"""Summary numbers of a spectrum, and limits of their accuracy."""

from dataclasses import dataclass

import numpy as np

from ntk_dist.arrays import FloatArray
from ntk_dist.solvers.decomposition import Decomposition


@dataclass(frozen=True)
class SpectrumSummary:
    """Scalars of the eigenvalues s_1 >= ... >= s_M of a kernel.

    sigma_max, sigma_min: largest and smallest eigenvalue (rounding can leave the smallest slightly negative).
    trace: tr K.
    condition_number: sigma_max / sigma_min, inf when sigma_min <= 0.
    condition_number_resolved: whether sigma_min exceeds the noise floor; if not, condition_number is noise.
    condition_number_fixed_sigma: (sigma_max + sigma) / (max(sigma_min, 0) + sigma) for the given sigma.
    condition_number_relative_sigma: the same with sigma = relative_sigma * tr K / M.
    effective_rank: exp of the entropy of s_i / sum s (Roy and Vetterli, EUSIPCO 2007); nan for a zero kernel.
    decay_exponent: b of the least-squares fit s_i ~ i^-b over the eigenvalues above the noise floor; nan if
        there are fewer than three.
    noise_floor: eigenvalues below it cannot be told from zero.
    """

    sigma_max: float
    sigma_min: float
    trace: float
    condition_number: float
    condition_number_resolved: bool
    condition_number_fixed_sigma: float
    condition_number_relative_sigma: float
    effective_rank: float
    decay_exponent: float
    noise_floor: float


def summarize(
    eigenvalues: FloatArray,
    *,
    size: int,
    trace: float,
    sigma: float = 1e-4,
    relative_sigma: float = 1e-6,
    jacobian_eps: float = float(np.finfo(np.float32).eps),
    gram_eps: float = float(np.finfo(np.float64).eps),
) -> SpectrumSummary:
    """Summarize eigenvalues (r,), ascending, of a kernel of `size` M rows; the M - r missing ones are zero.

    Condition numbers are taken with `sigma` added to the eigenvalues, and with `relative_sigma` times trace/M.
    `jacobian_eps` and `gram_eps` are the machine epsilons of the Jacobian rows and of the Gram products.
    """
    sigma_max = float(eigenvalues[-1])
    sigma_min = float(eigenvalues[0]) if len(eigenvalues) == size else 0.0
    floor = noise_floor(sigma_max, size=size, trace=trace, jacobian_eps=jacobian_eps, gram_eps=gram_eps)
    return SpectrumSummary(
        sigma_max=sigma_max,
        sigma_min=sigma_min,
        trace=trace,
        condition_number=sigma_max / sigma_min if sigma_min > 0 else np.inf,
        condition_number_resolved=sigma_min > floor,
        condition_number_fixed_sigma=condition_number(sigma_max, sigma_min, sigma),
        condition_number_relative_sigma=condition_number(sigma_max, sigma_min, relative_sigma * trace / size),
        effective_rank=effective_rank(eigenvalues),
        decay_exponent=decay_exponent(eigenvalues, floor),
        noise_floor=floor,
    )


def machine_epsilon(*dtypes: str) -> float:
    """Return the spacing of numbers at 1, twice the unit roundoff, in the coarsest of some precisions."""
    # numpy has no bfloat16
    return max(2.0**-7 if dtype == "bfloat16" else float(np.finfo(dtype).eps) for dtype in dtypes)


def products_eps(dtype: str, *, tf32: bool = False) -> float:
    """Return the machine epsilon of Gram products in `dtype`; TF32 keeps 10 bits of the factors of float32 ones."""
    return 2.0**-10 if tf32 and dtype == "float32" else machine_epsilon(dtype)


def noise_floor(sigma_max: float, *, size: int, trace: float, jacobian_eps: float, gram_eps: float) -> float:
    """Return the size below which eigenvalues of a kernel of M = `size` rows cannot be told from zero: two errors' sum.

    Products and eigensolver are backward stable, which moves an eigenvalue by at most about M gram_eps sigma_max.
    Rounding the Jacobian to J + E with |E|_F <= 8 jacobian_eps |J|_F (some roundings happen on the way through the
    model) moves its singular values by at most |E|_F (Weyl), so that a zero eigenvalue can appear as large as
    (8 jacobian_eps)^2 tr K.
    """
    return size * gram_eps * abs(sigma_max) + (8 * jacobian_eps) ** 2 * abs(trace)


def condition_number(sigma_max: float, sigma_min: float, sigma: float) -> float:
    """Return (sigma_max + sigma) / (max(sigma_min, 0) + sigma), inf where that divides by zero."""
    smallest = max(sigma_min, 0.0) + sigma
    return (sigma_max + sigma) / smallest if smallest > 0 else np.inf


def effective_rank(eigenvalues: FloatArray) -> float:
    """Return exp(-sum p_i log p_i) with p_i = s_i / sum s over the positive s_i of (r,); nan without any."""
    s = eigenvalues[eigenvalues > 0]
    if not s.size:
        return float("nan")
    share = s / s.sum()
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def decay_exponent(eigenvalues: FloatArray, floor: float) -> float:
    """Return minus the slope of log s_i against log i (1: the largest) over the s_i above `floor` >= 0."""
    s = np.sort(eigenvalues[eigenvalues > floor])[::-1]
    if len(s) < 3:
        return float("nan")
    rank = np.log(np.arange(1, len(s) + 1))
    rank -= rank.mean()
    return -float(rank @ np.log(s) / (rank @ rank))


def label_alignment(decomposition: Decomposition, targets: FloatArray, quadratic: float | None = None) -> float:
    """Return <K, Y Y^T> / (|K|_F |Y Y^T|_F) for targets Y (M, k), nan if either is zero.

    Cristianini et al., On kernel-target alignment, NIPS 2001, definition 1. |K|_F comes from the eigenvalues
    (singular values of an unsymmetric kernel). `quadratic` is tr Y^T K Y where that is known, as from K itself, which
    costs less than from its decomposition.
    """
    kernel_norm = float(np.linalg.norm(decomposition.eigenvalues))
    known = decomposition.quadratic_form(targets) if quadratic is None else quadratic
    return alignment(known, kernel_norm, targets)


def alignment(quadratic: float, kernel_norm: float, targets: FloatArray) -> float:
    """Return quadratic / (kernel_norm |Y Y^T|_F) for tr Y^T K Y, |K|_F and targets Y (M, k), nan if it divides by 0."""
    target_norm = float(np.linalg.norm(targets.T @ targets))
    return quadratic / (kernel_norm * target_norm) if kernel_norm * target_norm else float("nan")
