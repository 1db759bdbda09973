"""Correlations of many pairs of variables, and their bootstrap over two factors.

A bootstrap draw is written as counts: how often it holds each observation. With the signs A_ij = sgn(a_i - a_j) of a
variable, a draw of counts w has the centered midranks r_i = (1/2) sum_j w_j A_ij, so that ranks and concordant pairs of
every draw are matrix products with the same signs. Their entries are whole numbers, which floats hold exactly: what is
tied stays tied, in whatever order sums are made.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ntk_dist.arrays import FloatArray, IntArray

COEFFICIENTS = ("pearson", "spearman", "kendall", "partial_spearman")
BOOTSTRAP_DRAWS = 10_000
BOOTSTRAP_SEED = 0
"""Seed of all bootstraps, so that a result depends only on its values."""

LEVEL = 0.95
"""Coverage of an interval."""

DRAWS_AT_ONCE = 256
"""Bounds memory: an array holds this many draws of all variables and observations."""

DIGITS = 1e12
"""Values that agree to this share of the largest are tied: means over seeds of equal values differ in last bits."""


def bootstrap(
    x: FloatArray, y: FloatArray, control: FloatArray, n_draws: int = BOOTSTRAP_DRAWS
) -> dict[str, FloatArray]:
    """Return the coefficients (n_draws, P, Q) of draws with replacement of observations and, independently, of seeds.

    Each draw averages its seeds and then correlates its observations: the pigeonhole bootstrap of Owen (Annals of
    Applied Statistics 1, 2007), which, unlike a draw of single values, keeps that all seeds share their observations
    and all observations their seeds. The draws are the same at every call with as many seeds and observations.

    Args:
        x: variables (P, S, L): S seeds, L observations; finite.
        y: other variables (Q, S, L); finite.
        control: what is held fixed in the partial correlation (L,); finite.
        n_draws: how many draws.
    """
    _, n_seeds, n = x.shape
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    counts = generator.multinomial(n, np.full(n, 1 / n), size=n_draws)
    seed_counts = generator.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=n_draws)
    found = {name: np.empty((n_draws, len(x), len(y))) for name in COEFFICIENTS}
    for of_seeds, draws in _same_seeds(seed_counts):
        part = correlations(average_over_seeds(x, of_seeds), average_over_seeds(y, of_seeds), control, counts[draws])
        for name, values in part.items():
            found[name][draws] = values
    return found


def average_over_seeds(values: FloatArray, seed_counts: IntArray) -> FloatArray:
    """Return the averages (V, L) of values (V, S, L) over seeds that count seed_counts (S,) times."""
    average: FloatArray = (seed_counts[:, None] * values).sum(axis=1) / seed_counts.sum()
    return average


def percentile_interval(draws: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the lower and the upper end (...) of the percentile interval of draws (D, ...).

    Draws that are nan, which had no two different values, are left out; where they are most, both ends are nan.
    """
    usable = _mostly_finite(draws)
    low, high = np.nanquantile(np.where(usable, draws, 0.0), _TAILS, axis=0)
    return np.where(usable, low, np.nan), np.where(usable, high, np.nan)


def interval_error(draws: FloatArray) -> FloatArray:
    """Return the Monte Carlo standard error (...) of the ends of the percentile interval of draws (D, ...).

    It is that of the end that is known less well. The rank of the draw below which a share q of the distribution lies
    has the binomial standard deviation sqrt(D q (1 - q)); half of what lies between the draws that are one such
    deviation below and above the end is its error in the units of the draws, whatever their density (David and
    Nagaraja, Order Statistics, 2003, section 7.1). nan where `percentile_interval` is.
    """
    usable = _mostly_finite(draws)
    errors = []
    for q in _TAILS:
        deviation = np.sqrt(q * (1 - q) / len(draws))
        below, above = np.nanquantile(
            np.where(usable, draws, 0.0), [max(q - deviation, 0.0), min(q + deviation, 1.0)], axis=0
        )
        errors.append((above - below) / 2)
    return np.where(usable, np.maximum(*errors), np.nan)


_TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)


def _mostly_finite(draws: FloatArray) -> npt.NDArray[np.bool_]:
    mostly: npt.NDArray[np.bool_] = np.isfinite(draws).mean(axis=0) > 0.5
    return mostly


def correlations(x: FloatArray, y: FloatArray, control: FloatArray, counts: IntArray) -> dict[str, FloatArray]:
    """Return the coefficients (D, P, Q) of draws from L observations, one array for each of `COEFFICIENTS`.

    pearson is the product-moment correlation, spearman that of midranks, and kendall is tau-b (Kendall, Biometrika 33,
    1945). partial_spearman is the correlation of what a least-squares line on the ranks of `control` leaves of both
    ranks, r - (r'c / c'c) c; where all observations agree in `control` there is nothing to hold fixed, and it is
    spearman. A coefficient is nan where a variable, or what the line leaves of it, is constant.

    Args:
        x: variables (P, L); finite.
        y: other variables (Q, L); finite.
        control: what is held fixed in the partial correlation (L,); finite.
        counts: how often each draw holds each observation (D, L).
    """
    signs_x, signs_y, signs_control = (_signs(values) for values in (x, y, control[None]))
    weights = counts.astype(np.float64)
    ranks_x, ranks_y, ranks_control = (_centered_ranks(signs, weights) for signs in (signs_x, signs_y, signs_control))
    spearman = _cosine(ranks_x, ranks_y, weights)
    pearson = _cosine(_centered(x, weights), _centered(y, weights), weights)
    return {
        # Centering a constant leaves rounding errors, so that constants are detected by their ranks.
        "pearson": np.where(np.isnan(spearman), np.nan, pearson),
        "spearman": spearman,
        "kendall": _kendall(signs_x, signs_y, weights),
        "partial_spearman": _cosine(
            _residual(ranks_x, ranks_control, weights), _residual(ranks_y, ranks_control, weights), weights
        ),
    }


def _same_seeds(seed_counts: IntArray) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield counts of seeds (S,) of seed_counts (D, S) with the positions of draws that have them, a few at a time."""
    distinct, kinds = np.unique(seed_counts, axis=0, return_inverse=True)
    for kind, of_seeds in enumerate(distinct):
        draws = np.flatnonzero(kinds == kind)
        for start in range(0, len(draws), DRAWS_AT_ONCE):
            yield of_seeds, draws[start : start + DRAWS_AT_ONCE]


def _signs(values: FloatArray) -> FloatArray:
    """Return sgn(a_i - a_j) (V, L, L) of values (V, L)."""
    rounded = np.round(_scaled(values) * DIGITS)
    signs: FloatArray = np.sign(rounded[:, :, None] - rounded[:, None, :])
    return signs


def _scaled(values: FloatArray) -> FloatArray:
    """Return values (V, L) divided by the largest of each row, so that no square leaves the range of floats."""
    largest = np.abs(values).max(axis=1, keepdims=True)
    scaled: FloatArray = np.divide(values, largest, out=np.zeros_like(values), where=largest > 0)
    return scaled


def _centered_ranks(signs: FloatArray, weights: FloatArray) -> FloatArray:
    """Return twice the midranks (V, D, L) less their mean, of signs (V, L, L) in draws of weights (D, L)."""
    ranks: FloatArray = np.matmul(weights, signs.transpose(0, 2, 1))
    return ranks


def _centered(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Return scaled values (V, L) less their mean in each draw (V, D, L) of weights (D, L)."""
    scaled = _scaled(values)
    means = np.einsum("dl,vl->vd", weights, scaled) / weights.sum(axis=1)
    centered: FloatArray = scaled[:, None, :] - means[:, :, None]
    return centered


def _residual(ranks: FloatArray, control: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the residuals of ranks (V, D, L) from a least-squares line on control (1, D, L), both centered.

    It is exactly 0 where it leaves nothing: ranks on a line agree or are reversed, and the slope is 1 or -1.
    """
    products, squares = (_inner(each, control, weights) for each in (ranks, control))
    slopes = np.divide(products, squares, out=np.zeros_like(products), where=squares > 0)
    residual: FloatArray = ranks - slopes[..., None] * control
    return residual


def _inner(a: FloatArray, b: FloatArray, weights: FloatArray) -> FloatArray:
    """Return sum_l w_l a_l b_l (V, D) of arrays (V, D, L)."""
    inner: FloatArray = (a * b * weights).sum(axis=-1)
    return inner


def _cosine(a: FloatArray, b: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the correlations (D, P, Q) of centered a (P, D, L) and b (Q, D, L); nan where one of them is 0."""
    products = np.einsum("pdl,qdl->dpq", a * weights, b)
    return _normalized(products, _inner(a, a, weights), _inner(b, b, weights))


def _kendall(signs_x: FloatArray, signs_y: FloatArray, weights: FloatArray) -> FloatArray:
    """Return tau-b (D, P, Q) of signs (P, L, L) and (Q, L, L) in draws of weights (D, L); nan where all are tied."""
    products = np.stack([_pairs(signs_x * signs, weights) for signs in signs_y], axis=-1).transpose(1, 0, 2)
    return _normalized(products, _pairs(signs_x**2, weights), _pairs(signs_y**2, weights))


def _pairs(matrices: FloatArray, weights: FloatArray) -> FloatArray:
    """Return w'Mw (V, D) of matrices M (V, L, L) and weights w (D, L)."""
    pairs: FloatArray = (np.matmul(weights, matrices) * weights).sum(axis=-1)
    return pairs


def _normalized(products: FloatArray, squares_x: FloatArray, squares_y: FloatArray) -> FloatArray:
    """Return products (D, P, Q) over the roots of squares (P, D) and (Q, D), within -1..1; nan where one is 0."""
    norms = np.sqrt(squares_x).T[:, :, None] * np.sqrt(squares_y).T[:, None, :]
    ratios = np.divide(products, norms, out=np.full_like(products, np.nan), where=norms > 0)
    clipped: FloatArray = np.clip(ratios, -1, 1)
    return clipped
