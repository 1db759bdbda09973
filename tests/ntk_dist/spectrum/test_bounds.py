"""Bounds hold for whatever they claim to hold for, are reached where they can be, and their failures are seen."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ntk_dist.kernel.kernel_matrix import KernelShapeError
from ntk_dist.solvers.eigen import EigenDecomposition
from ntk_dist.solvers.ridge import LambdaError
from ntk_dist.spectrum.bounds import (
    BoundError,
    added_block_bounds,
    added_block_form_factor,
    first_order_eigenvalues,
    first_order_extremes,
    linearization_bound,
    minimizer_distance_bound,
    minimizer_linearization_bound,
    ridge_distance_bound,
    violation,
)
from tests.ntk_dist.solvers.kernel_cases import LAMBDAS, Case, cases

scales = st.floats(-6, 6).map(lambda exponent: 10.0**exponent)
lambdas = st.sampled_from(LAMBDAS.tolist())
ranks = st.integers(1, 14)


def added(case, rank, scale):
    """A kernel K and a block S of another rank and scale, (M, M) both."""
    block = Case(case.seed + 1, case.M, case.p, rank, case.k, case.decay)
    return case.kernel, scale * block.kernel


def extremes(K):
    s = np.linalg.eigvalsh(K)
    return float(s[-1]), float(s[0])


def bounds_of(K, S, sigma=0.1):
    (kernel_max, kernel_min), (block_max, block_min) = extremes(K), extremes(S)
    return added_block_bounds(
        kernel_max=kernel_max, kernel_min=kernel_min, block_max=block_max, block_min=block_min, sigma=sigma
    )


@given(cases, scales)
def test_ridge_distances_keep_to_their_bound(case, scale):
    path = EigenDecomposition(scale * case.kernel).ridge_path(case.r, LAMBDAS)
    bound = ridge_distance_bound(float(np.linalg.norm(case.r)), LAMBDAS)
    assert (violation(np.sqrt(path.squared_distance), bound, bound) == 0).all()
    # What holds for any loss is twice as wide here.
    loose = minimizer_distance_bound(float(np.sum(case.r**2)) / 2, LAMBDAS)
    np.testing.assert_allclose(loose, 2 * bound)


@given(st.integers(1, 8), st.integers(1, 3), scales)
def test_the_ridge_distance_is_reached_where_every_eigenvalue_is_lambda(M, k, scale):
    r = np.ones((M, k))
    path = EigenDecomposition(scale * np.eye(M)).ridge_path(r, np.array([scale, 2 * scale]))
    bound = ridge_distance_bound(float(np.linalg.norm(r)), path.lambdas)
    distance = np.sqrt(path.squared_distance)
    assert distance[0] == pytest.approx(bound[0])
    # A tenth less than a bound that is reached is a bound that is broken.
    assert violation(distance, 0.9 * bound, bound)[0] == pytest.approx(0.1 * bound[0], rel=1e-6)
    assert distance[1] < 0.95 * bound[1]


@given(st.lists(st.tuples(st.floats(-100, 100), st.floats(0, 100)), max_size=30), st.floats(0, 100), lambdas)
def test_minimizers_of_any_loss_keep_to_their_bound(points, initial_loss, shift):
    theta, loss = np.array([(0.0, initial_loss), *points]).T
    minimizer = theta[np.argmin(loss + shift / 2 * theta**2)]
    bound = minimizer_distance_bound(initial_loss, np.array([shift]))
    assert violation(np.abs(minimizer), bound, bound) == 0


@given(st.floats(0.1, 100), lambdas)
def test_the_minimizer_distance_is_reached_by_a_cliff(initial_loss, shift):
    bound = minimizer_distance_bound(initial_loss, np.array([shift])).item()
    # The loss is 0 from there on: going there costs as much as staying, going any farther costs more.
    assert shift / 2 * bound**2 == pytest.approx(initial_loss)


@given(st.integers(0, 1000), scales, scales)
def test_linearization_errors_of_a_smooth_network_keep_to_their_bound(seed, weight_scale, distance):
    rng = np.random.default_rng(seed)
    A, B = rng.standard_normal((3, 5)), weight_scale * rng.standard_normal((5, 4))
    start, delta = rng.standard_normal(4), distance * rng.standard_normal(4)
    error = A @ (np.sin(B @ (start + delta)) - np.sin(B @ start) - np.cos(B @ start) * (B @ delta))
    # |A (cos(B theta) - cos(B theta_0)) B|: the cosine of row i moves by at most |B_i| |delta|.
    smoothness = float(np.linalg.norm(A, 2) * np.linalg.norm(B, axis=1).max() * np.linalg.norm(B, 2))
    bound = linearization_bound(smoothness, np.sum(delta**2))
    rounding = np.abs(A).sum() * (1 + np.abs(B).sum() * (1 + np.abs(delta).max()))
    assert violation(np.linalg.norm(error), bound, 1e-5 * rounding) == 0


def test_the_linearization_error_of_a_parabola_is_its_bound():
    theta = np.linspace(-3, 3, 7)
    np.testing.assert_allclose(linearization_bound(5.0, theta**2), 5 * theta**2 / 2)


@given(st.floats(-3, 3), lambdas)
def test_minimizers_of_a_smooth_model_keep_to_both_bounds(target, shift):
    theta = np.linspace(-10, 10, 2001)
    minimizer = theta[np.argmin((np.sin(theta) - target) ** 2 / 2 + shift / 2 * theta**2)]
    error = np.abs(np.sin(minimizer) - minimizer)
    nearer = linearization_bound(1.0, minimizer**2)
    farther = minimizer_linearization_bound(1.0, target**2 / 2, np.array([shift]))
    assert violation(error, nearer, 1.0) == 0
    assert violation(nearer, farther, 1.0) == 0
    assert farther.item() == pytest.approx(target**2 / 2 / shift)


@given(cases, ranks, scales, scales)
def test_adding_a_block_keeps_to_weyl(case, rank, scale, sigma):
    K, S = added(case, rank, scale)
    bounds = bounds_of(K, S, sigma)
    largest, smallest = extremes(K + S)
    size = extremes(K)[0] + extremes(S)[0]
    assert violation(bounds.sigma_max_lower, largest, size) == 0
    assert violation(largest, bounds.sigma_max_upper, size) == 0
    assert violation(bounds.sigma_min_lower, smallest, size) == 0
    assert violation(smallest, bounds.sigma_min_upper, size) == 0
    # Rounding moves both condition numbers, relative to themselves, by as much as their denominators.
    condition, bound = (largest + sigma) / (max(smallest, 0) + sigma), bounds.condition_number_upper
    assert violation(condition, bound, bound * (1 + 1e-5 * size / sigma)) == 0


@pytest.mark.parametrize(
    ("kernel", "block", "reached"),
    [
        ([1, 2], [3, 5], ["sigma_max_upper", "sigma_min_lower", "condition_number_upper"]),
        ([1, 4], [5, 3], ["sigma_max_lower", "sigma_min_upper"]),
        ([5, 3], [1, 4], ["sigma_max_lower", "sigma_min_upper"]),
    ],
)
def test_diagonal_blocks_reach_the_bounds(kernel, block, reached):
    K, S = np.diag(kernel).astype(float), np.diag(block).astype(float)
    bounds = bounds_of(K, S, sigma=1.0)
    largest, smallest = extremes(K + S)
    exact = {
        "sigma_max_lower": largest,
        "sigma_max_upper": largest,
        "sigma_min_lower": smallest,
        "sigma_min_upper": smallest,
        "condition_number_upper": (largest + 1) / (smallest + 1),
    }
    assert [name for name, value in exact.items() if getattr(bounds, name) == pytest.approx(value)] == reached


def test_a_condition_number_that_nothing_bounds():
    assert bounds_of(np.diag([0.0, 1.0]), np.diag([1.0, 0.0]), sigma=0.0).condition_number_upper == np.inf
    assert bounds_of(np.diag([-0.2, 1.0]), np.eye(2) / 10, sigma=0.05).condition_number_upper == np.inf


@given(cases, ranks, scales)
def test_first_order_eigenvalues_are_as_near_as_the_gap_says(case, rank, scale):
    K, S = added(case, rank, scale)
    s, U = np.linalg.eigh(K)
    exact, size = np.linalg.eigvalsh(K + S), extremes(K)[0] + extremes(S)[0]
    estimates = first_order_eigenvalues(U, s, S)
    for u, estimate in zip(U.T, estimates, strict=True):
        assert estimate == pytest.approx(u @ (K + S) @ u, abs=1e-12 * size)
        distances = np.sort(np.abs(exact - estimate))
        gap = distances[1] if len(distances) > 1 else np.inf
        miss = np.sum((S @ u - (u @ S @ u) * u) ** 2)
        assert violation(distances[0] * min(gap, size), miss, size**2) == 0
    assert violation(estimates.max(), exact[-1], size) == 0
    assert violation(exact[0], estimates.min(), size) == 0
    np.testing.assert_allclose(first_order_eigenvalues(U[:, :1], s[:1], S), estimates[:1], atol=1e-12 * size)


def test_first_order_eigenvalues_miss_by_the_second_order():
    K, S = np.diag([1.0, 2.0, 4.0]), np.array([[1.0, 1, 0], [1, -1, 1], [0, 1, 2]])
    s, U = np.linalg.eigh(K)
    misses = [
        np.abs(first_order_eigenvalues(U, s, size * S) - np.linalg.eigvalsh(K + size * S)).max()
        for size in (1e-2, 1e-3, 1e-4)
    ]
    np.testing.assert_allclose(np.log10(np.array(misses[:-1]) / misses[1:]), 2, atol=0.02)


@given(cases, ranks, scales, st.sampled_from([0.0, 1e-12, 1e-3, 1.0]))
@example(Case(seed=14, M=13, p=13, rank=13, k=1, decay=0), 13, 1.0, 1e-12)
def test_first_order_extremes_lie_between_what_rayleigh_and_weyl_say(case, rank, scale, resolution):
    K, S = added(case, rank, scale)
    s, U = np.linalg.eigh(K)
    smallest, largest = first_order_extremes(U, s, S, resolution=resolution * s[-1])
    exact, size = np.linalg.eigvalsh(K + S), extremes(K)[0] + extremes(S)[0]
    assert violation(largest, exact[-1], size) == violation(exact[0], smallest, size) == 0
    block = np.linalg.eigvalsh(S)
    assert violation(smallest, s[0] + block[-1], size) == violation(s[-1] + block[0], largest, size) == 0


@given(st.integers(0, 1000), st.integers(1, 4), st.integers(1, 4))
def test_first_order_extremes_are_right_to_first_order_where_eigenvalues_are_repeated(seed, lowest, highest):
    draw = np.random.default_rng(seed)
    s = np.sort(np.concatenate([np.full(lowest, 1.0), [2.0, 3.0], np.full(highest, 4.0)]))
    size = len(s)
    Q, _ = np.linalg.qr(draw.standard_normal((size, size)))
    S = draw.standard_normal((size, size))
    S = (S + S.T) / np.linalg.norm(S + S.T, 2)
    K = Q @ np.diag(s) @ Q.T
    K = (K + K.T) / 2
    values, U = np.linalg.eigh(K)
    for small in (1e-3, 1e-5):
        smallest, largest = first_order_extremes(U, values, small * S, resolution=1e-12)
        exact = np.linalg.eigvalsh(K + small * S)
        # The gaps are 1, and second order is at most |S|^2 / gap.
        assert abs(smallest - exact[0]) <= 2 * small**2 + 1e-13
        assert abs(largest - exact[-1]) <= 2 * small**2 + 1e-13


def test_first_order_extremes_do_not_depend_on_the_basis_of_an_eigenspace():
    S = np.array([[2.0, 1, 0], [1, 2, 0], [0, 0, 5]])
    turned = np.array([[1.0, 1, 0], [1, -1, 0], [0, 0, np.sqrt(2)]]) / np.sqrt(2)
    for U in (np.eye(3), turned):
        found = first_order_extremes(U, np.array([0.0, 0.0, 7.0]), S, resolution=0.0)
        np.testing.assert_allclose(found, (1.0, 12.0), rtol=1e-14)
    all_the_same = first_order_extremes(np.eye(3), np.zeros(3), S, resolution=0.0)
    np.testing.assert_allclose(all_the_same, (1.0, 5.0), rtol=1e-14)


def test_multiples_of_the_identity_up_to_rounding_have_first_order_extremes():
    """With eigenvalues that agree to rounding, LAPACK's choice of one eigenpair by its place may find none."""
    for seed in range(100):
        K, S = added(Case(seed=seed, M=13, p=13, rank=13, k=1, decay=0), 13, 1.0)
        s, U = np.linalg.eigh(K)
        found = first_order_extremes(U, s, S, resolution=1e-12)
        np.testing.assert_allclose(found, np.linalg.eigvalsh(K + S)[[0, -1]], rtol=1e-13)


@given(cases, ranks, scales, lambdas)
def test_adding_a_block_never_raises_the_objective(case, rank, scale, shift):
    K, S = added(case, rank, scale)
    before, after = (_objective_and_residual(kernel, case.r, shift)[0] for kernel in (K, K + S))
    assert violation(after, before, before * (1 + 1e-5 * extremes(K + S)[0] / shift)) == 0


@given(cases, ranks, scales, lambdas)
def test_the_ridge_form_keeps_to_both_of_its_bounds(case, rank, scale, shift):
    K, S = added(case, rank, scale)
    before, after = (_objective_and_residual(kernel, case.r, shift)[0] for kernel in (K, K + S))
    (factor,) = added_block_form_factor(extremes(S)[0], extremes(K)[1], np.array([shift]))
    rounding = before * (1 + 1e-5 * extremes(K + S)[0] / shift)
    assert violation(factor * before, after, rounding) == 0 and violation(after, before, rounding) == 0


def test_the_ridge_form_of_one_row_is_its_bound():
    """K = 1, S = 3, lambda = 1, r = 1: the form falls from 0.5 to 0.2, and cannot fall further."""
    K, S, r = np.array([[1.0]]), np.array([[3.0]]), np.array([[1.0]])
    before, after = (_objective_and_residual(kernel, r, 1.0)[0] for kernel in (K, K + S))
    assert (before, after) == (0.5, 0.2)
    (factor,) = added_block_form_factor(3.0, 1.0, np.array([1.0]))
    assert factor * before == pytest.approx(0.2, rel=1e-15)
    (open_below,) = added_block_form_factor(3.0, -1e-3, np.array([1.0]))
    assert open_below == 0.25


def test_a_ratio_of_condition_numbers_has_no_lower_bound_of_ten():
    """K = 1, S = 3, sigma = 1: adding S takes s_max + sigma over sigma from 2 to 5, a ratio of 0.4."""
    K, S, sigma = 1.0, 3.0, 1.0
    assert ((K + sigma) / sigma) / ((K + S + sigma) / sigma) == pytest.approx(0.4)


def test_adding_a_block_can_raise_the_squared_residual():
    K, S, r = np.diag([10.0, 0.0]), np.full((2, 2), 16.0), np.array([[1.0], [0.0]])
    objectives, residuals = zip(*(_objective_and_residual(kernel, r, 1.0) for kernel in (K, K + S)), strict=True)
    assert objectives[1] < objectives[0]
    assert residuals[1] > 1.5 * residuals[0]
    assert violation(residuals[1], residuals[0], residuals[0]) > 0.5 * residuals[0] * (1 - 1e-6)


def test_violation_is_how_much_a_bound_is_exceeded():
    nan, inf = np.nan, np.inf
    measured = np.array([1.0, 2.0, 3.0, nan, inf, inf, -inf, 1.0])
    bound = np.array([2.0, 2.0, 2.0, 2.0, 2.0, inf, -inf, nan])
    with np.errstate(all="raise"):
        result = violation(measured, bound, 0.0)
    np.testing.assert_array_equal(result, [0.0, 0.0, 1.0, nan, inf, 0.0, 0.0, nan])
    assert violation(np.ones((2, 1)), np.zeros(3), 1.0).shape == (2, 3)


def test_violation_leaves_room_for_rounding_and_no_more():
    assert violation(1 + 1e-10, 1.0, 1.0) == 0
    assert violation(1 + 1e-8, 1.0, 1.0) == pytest.approx(9e-9, rel=1e-6)
    assert violation(1 + 1e-8, 1.0, 100.0) == 0
    assert violation(1 + 1e-12, 1.0, 0.0) > 0
    assert violation(1e-30, 0.0, 1e-30) > 0
    np.testing.assert_array_equal(violation(1 + 1e-8, 1.0, np.array([-100.0, np.inf, np.nan])), [0, 0, np.nan])


def test_refuses_what_nothing_was_proven_for():
    for bad in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(LambdaError, match="positive"):
            ridge_distance_bound(1.0, np.array([1.0, bad]))
        with pytest.raises(LambdaError, match="positive"):
            minimizer_distance_bound(1.0, np.array([bad]))
    with pytest.raises(BoundError, match="residual_norm"):
        ridge_distance_bound(-1.0, LAMBDAS)
    with pytest.raises(BoundError, match="initial_loss"):
        minimizer_linearization_bound(1.0, -1.0, LAMBDAS)
    with pytest.raises(BoundError, match="smoothness"):
        linearization_bound(-1.0, np.ones(2))
    with pytest.raises(BoundError, match="squared_distance"):
        linearization_bound(1.0, np.array([1.0, -1.0]))
    with pytest.raises(BoundError, match="sigma"):
        bounds_of(np.eye(2), np.eye(2), sigma=-1.0)
    with pytest.raises(BoundError, match="eigenvalues"):
        added_block_bounds(kernel_max=1.0, kernel_min=2.0, block_max=1.0, block_min=0.0, sigma=0.0)
    for eigenvalues, block in ((np.ones(3), np.eye(2)), (np.ones(2), np.eye(3))):
        with pytest.raises(KernelShapeError, match="block"):
            first_order_eigenvalues(np.eye(2), eigenvalues, block)
    with pytest.raises(KernelShapeError, match="block"):
        first_order_extremes(np.eye(2), np.ones(2), np.eye(3), resolution=0.0)


def test_a_failed_measurement_has_no_bound():
    np.testing.assert_array_equal(linearization_bound(2.0, np.array([np.nan, 3.0])), [np.nan, 3.0])
    assert np.isnan(violation(np.nan, linearization_bound(2.0, np.array(np.nan)), 1.0))


def _objective_and_residual(K, r, shift):
    """r^T (K + lambda I)^{-1} r, twice the objective over lambda, and |r - J d|^2 over lambda^2."""
    alpha = np.linalg.solve(K + shift * np.eye(len(K)), r)
    return float(np.sum(r * alpha)), float(np.sum(alpha**2))
