"""Correlation coefficients of many draws at once, and intervals from a bootstrap over seeds, against scipy."""

import numpy as np
import pytest

import orchestrator.results.tables.statistics as ours
from orchestrator.results.tables.statistics import (
    BOOTSTRAP_SEED,
    COEFFICIENTS,
    average_over_seeds,
    bootstrap,
    correlations,
    interval_error,
    percentile_interval,
)
from tests.orchestrator.results.by_scipy import by_scipy

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


def tied_values(seed: int = 0, n: int = 7) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two variables (2, n) each and a control (n,), all with ties."""
    draw = np.random.default_rng(seed)
    x = np.stack([draw.normal(size=n), draw.integers(0, 3, n) / 3])
    y = np.stack([x[0] + draw.normal(size=n), draw.integers(0, 4, n) / 7])
    return x, y, draw.integers(1, 5, n).astype(float)


# --- coefficients


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_every_coefficient_of_every_draw_is_scipys_of_the_values_it_holds(name: str):
    x, y, control = tied_values()
    n_draws = 60
    counts = np.random.default_rng(1).multinomial(7, np.full(7, 1 / 7), size=n_draws)
    counts[0] = 1
    counts[1] = [7, 0, 0, 0, 0, 0, 0]  # nothing varies
    found = correlations(x, y, control, counts)[name]
    assert found.shape == (n_draws, 2, 2)
    for d, i, j in np.ndindex(found.shape):
        expected = by_scipy(name, *(np.repeat(values, counts[d]) for values in (x[i], y[j], control)))
        assert found[d, i, j] == pytest.approx(expected, abs=1e-12, nan_ok=True), (d, i, j)
    assert np.isnan(found[1]).all()
    assert np.isfinite(found).mean() > 0.9


def test_a_partial_correlation_worked_out_by_hand():
    x, y, control = np.array([[1.0, 2, 3, 4, 5]]), np.array([[2.0, 1, 4, 3, 5]]), np.array([1.0, 3, 2, 5, 4])
    found = correlations(x, y, control, np.ones((1, 5), dtype=np.int64))
    # Squared differences of ranks add up to 4, 4 and 14: 1 - 6 * 4 / 120 = 0.8 of x with both, 0.3 of y with control.
    assert found["spearman"].item() == pytest.approx(0.8)
    assert found["partial_spearman"].item() == pytest.approx((0.8 - 0.8 * 0.3) / ((1 - 0.64) * (1 - 0.09)) ** 0.5)


def test_a_control_that_does_not_vary_holds_nothing_fixed_and_one_that_is_the_variable_leaves_nothing():
    x, y, _ = tied_values()
    once = np.ones((1, 7), dtype=np.int64)
    same = correlations(x, y, np.full(7, 3.0), once)
    assert np.array_equal(same["partial_spearman"], same["spearman"])
    itself = correlations(x, y, np.exp(x[0]), once)["partial_spearman"]
    assert np.isnan(itself[0, 0]).all()
    assert np.isfinite(itself[0, 1]).all()


@pytest.mark.parametrize("factor", [1e-200, 1e200])
def test_no_scale_is_too_small_or_too_large(factor: float):
    x, y, control = tied_values()
    once = np.ones((1, 7), dtype=np.int64)
    plain, scaled = (correlations(values, y, control, once) for values in (x, x * factor))
    for name in COEFFICIENTS:
        assert scaled[name] == pytest.approx(plain[name], rel=1e-12), name


def test_equal_averages_are_tied_although_their_last_bits_differ():
    of_seeds = [0.7, 0.8, 0.9]
    values = np.array([np.roll(of_seeds, shift) for shift in range(3)] + [[0.1, 0.1, 0.1]]).T[None]
    averages = average_over_seeds(values, np.array([1, 1, 1]))
    assert len(set(averages[0])) > 2, "choose values whose sums depend on their order"
    y = np.array([[1.0, 2, 3, 0]])
    found = correlations(averages, y, np.ones(4), np.ones((1, 4), dtype=np.int64))
    for name in ("spearman", "kendall"):
        assert found[name].item() == pytest.approx(by_scipy(name, np.array([1.0, 1, 1, 0]), y[0], np.ones(4)))


def test_a_variable_that_varies_in_its_last_bits_alone_has_no_coefficient():
    x = np.array([[0.3, 0.1 + 0.2, 0.3, 0.1 + 0.2]])
    assert np.ptp(x) > 0
    for name, found in correlations(x, np.array([[1.0, 2, 3, 5]]), np.arange(4.0), np.ones((1, 4), dtype=int)).items():
        assert np.isnan(found).all(), name


def test_averages_count_each_seed_as_often_as_it_was_drawn():
    values = np.array([[[1.0, 2.0], [4.0, 8.0], [100.0, 200.0]]])
    assert average_over_seeds(values, np.array([2, 1, 0])).tolist() == [[2.0, 4.0]]


# --- bootstrap


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_every_draw_takes_seeds_and_observations_and_is_scipys(n_seeds: int):
    draw = np.random.default_rng(2)
    x, y = draw.normal(size=(2, n_seeds, 6)), draw.integers(0, 5, (2, n_seeds, 6)) / 5
    control = draw.integers(1, 4, 6).astype(float)
    n_draws = 40
    found = bootstrap(x, y, control, n_draws)
    again = np.random.default_rng(BOOTSTRAP_SEED)
    counts = again.multinomial(6, np.full(6, 1 / 6), size=n_draws)
    seed_counts = again.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=n_draws)
    for name, (d, i, j) in ((name, place) for name in COEFFICIENTS for place in np.ndindex(n_draws, 2, 2)):
        pair = [np.repeat(v, seed_counts[d], axis=0).mean(axis=0).round(14) for v in (x[i], y[j])]
        expected = by_scipy(name, *(np.repeat(values, counts[d]) for values in (*pair, control)))
        assert found[name][d, i, j] == pytest.approx(expected, abs=1e-9, nan_ok=True), (name, d)


def test_a_draw_depends_neither_on_other_variables_nor_on_how_many_are_taken_at_once(monkeypatch: pytest.MonkeyPatch):
    draw = np.random.default_rng(3)
    x, y, control = draw.normal(size=(3, 2, 9)), draw.normal(size=(2, 2, 9)), np.arange(9.0)
    whole = bootstrap(x, y, control, 300)
    single = bootstrap(x[1:2], y[:1], control, 300)
    monkeypatch.setattr(ours, "DRAWS_AT_ONCE", 7)
    parts = bootstrap(x, y, control, 300)
    for name in COEFFICIENTS:
        assert whole[name].tobytes() == parts[name].tobytes()
        assert np.array_equal(whole[name][:, 1:2, :1], single[name], equal_nan=True)


def test_intervals_are_percentiles_of_the_draws_that_have_a_coefficient():
    draws = np.linspace(0, 1, 101)[:, None]
    low, high = percentile_interval(draws)
    assert (low.item(), high.item()) == (pytest.approx(0.025), pytest.approx(0.975))
    some = np.concatenate([np.full((100, 1), np.nan), draws])
    assert [end.item() for end in percentile_interval(some)] == [low.item(), high.item()]
    most = np.concatenate([np.full((101, 1), np.nan), draws])
    assert all(np.isnan(end).all() for end in percentile_interval(most))


def test_the_error_of_an_interval_is_how_much_its_ends_move_from_one_bootstrap_to_another():
    draw = np.random.default_rng(8)
    bootstraps = draw.lognormal(size=(400, 2000))
    ends = np.array([percentile_interval(draws[:, None]) for draws in bootstraps])[..., 0]
    errors = np.array([interval_error(draws[:, None]).item() for draws in bootstraps])
    assert errors.mean() == pytest.approx(ends.std(axis=0).max(), rel=0.1)
    assert np.isnan(interval_error(np.full((10, 1), np.nan))).all()


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_intervals_hold_a_known_correlation_about_as_often_as_they_say(n_seeds: int):
    rho, n, n_trials = 0.6, 15, 120
    truth = {"pearson": rho, "spearman": 6 / np.pi * np.arcsin(rho / 2), "kendall": 2 / np.pi * np.arcsin(rho)}
    draw = np.random.default_rng(4)
    held = dict.fromkeys(truth, 0)
    for _ in range(n_trials):
        a, b = draw.normal(size=(2, n))
        x, y = (
            values + draw.normal(size=(1, n_seeds, 1))  # what a seed does to all layer sets alike cancels
            for values in (a, rho * a + (1 - rho**2) ** 0.5 * b)
        )
        draws = bootstrap(x, y, np.ones(n), 400)
        for name, value in truth.items():
            low, high = percentile_interval(draws[name])
            held[name] += low.item() <= value <= high.item()
    for name, count in held.items():
        assert 0.85 <= count / n_trials <= 0.99, name


def test_seeds_that_disagree_widen_the_interval():
    draw = np.random.default_rng(5)
    x = np.tile(np.arange(12.0), (1, 3, 1))
    y = x + 12 * np.array([1.0, 0.0, -1.0])[:, None] * draw.normal(size=12)
    averaged = [values.mean(axis=1, keepdims=True) for values in (x, y)]
    widths = [
        np.subtract(*percentile_interval(bootstrap(*pair, np.ones(12))["pearson"])[::-1]).item()
        for pair in ((x, y), averaged)
    ]
    assert widths[1] < 0.05
    assert widths[0] > 10 * widths[1]
