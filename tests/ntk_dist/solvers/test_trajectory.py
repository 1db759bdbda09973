"""Trajectories in closed form against training that really takes its steps."""

from fractions import Fraction

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from ntk_dist.kernel.kernel_matrix import KernelShapeError
from ntk_dist.solvers.eigen import EigenDecomposition
from ntk_dist.solvers.ridge import LambdaError
from ntk_dist.solvers.trajectory import StepError, gradient_descent, gradient_flow, largest_stable_step_size
from tests.ntk_dist.solvers.kernel_cases import LAMBDAS, Case, cases, check_squared_distance

SHIFTS = np.array([0.0, 1e-6, 0.1, 2.0])
STEPS = np.array([0, 1, 2, 7, 40])
TIMES = np.array([0.0, 1e-3, 0.5, 20.0])
SMALL = Case(seed=5, M=6, p=4, rank=3, k=2, decay=1)


def descend(J, r, shift, step_size, n_steps):
    """d after so many steps of gradient descent from 0, taken one by one: (p, k)."""
    d = np.zeros((J.shape[1], r.shape[1]))
    for _ in range(n_steps):
        d = d + step_size * (J.T @ (r - J @ d) - shift * d)
    return d


def flow(J, r, shift, time):
    """d(t) of d' = J^T r - (J^T J + shift I) d, d(0) = 0, by one exponential of the homogeneous system: (p, k)."""
    p, k = J.shape[1], r.shape[1]
    system = np.zeros((p + k, p + k))
    system[:p, :p] = -(J.T @ J + shift * np.eye(p))
    system[:p, p:] = J.T @ r
    return scipy.linalg.expm(time * system)[:p, p:]


def check_is(trajectory, case, weights):
    """Compare all that a trajectory holds with the weights (S, L, p, k) that training reached."""
    J, r = case.jacobian, case.r
    J_eval = np.random.default_rng(case.seed).standard_normal((3, case.p))
    size = np.linalg.norm(r) + np.abs(weights).max()
    np.testing.assert_allclose(trajectory.train_residuals, r - J @ weights, rtol=0, atol=1e-10 * size)
    np.testing.assert_allclose(J.T @ trajectory.dual_coefficients, weights, rtol=0, atol=1e-10 * size)
    np.testing.assert_allclose(trajectory.eval_fit(J_eval @ J.T), J_eval @ weights, rtol=0, atol=1e-9 * size)
    # a^T K a carries the rounding errors of K, which a magnifies where K is singular.
    rounding = 1e-14 * case.M * (trajectory.dual_coefficients**2).sum(axis=(2, 3))
    distance = (weights**2).sum(axis=(2, 3))
    allowed = 1e-10 * distance + (1e-10 * size) ** 2 + rounding
    assert (np.abs(trajectory.squared_distance - distance) <= allowed).all()


@given(cases, st.floats(0.05, 1.0))
def test_descent_is_the_loop_that_takes_every_step(case, fraction):
    decomposition = EigenDecomposition(case.kernel)
    step_size = float(fraction * largest_stable_step_size(decomposition, SHIFTS).min())
    trajectory = gradient_descent(decomposition, case.r, SHIFTS, step_size, STEPS)
    weights = [[descend(case.jacobian, case.r, shift, step_size, t) for shift in SHIFTS] for t in STEPS]
    check_is(trajectory, case, np.array(weights))
    assert (trajectory.times.tolist(), trajectory.lambdas.tolist()) == (STEPS.tolist(), SHIFTS.tolist())


@given(cases, st.floats(0.05, 1.2))
def test_each_lambda_may_have_its_own_steps(case, fraction):
    decomposition = EigenDecomposition(case.kernel)
    sizes = fraction * largest_stable_step_size(decomposition, SHIFTS)
    steps = np.array([[0, 1, 2, 3], [8, 0, 1, 5]])
    trajectory = gradient_descent(decomposition, case.r, SHIFTS, sizes, steps)
    weights = [
        [descend(case.jacobian, case.r, *each) for each in zip(SHIFTS, sizes, own, strict=True)] for own in steps
    ]
    check_is(trajectory, case, np.array(weights))


def test_a_diverging_descent_is_followed():
    decomposition = EigenDecomposition(SMALL.kernel)
    step_size = float(1.2 * largest_stable_step_size(decomposition, SHIFTS)[0])
    trajectory = gradient_descent(decomposition, SMALL.r, SHIFTS, step_size, STEPS)
    weights = [[descend(SMALL.jacobian, SMALL.r, shift, step_size, t) for shift in SHIFTS] for t in STEPS]
    assert np.abs(weights[-1]).max() > 1e3
    check_is(trajectory, SMALL, np.array(weights))
    with np.errstate(all="raise"):
        far = gradient_descent(decomposition, SMALL.r, SHIFTS, 10 * step_size, np.array([10**6]))
    assert not np.isfinite(far.squared_distance).any()


@given(cases)
def test_flow_is_the_matrix_exponential(case):
    trajectory = gradient_flow(EigenDecomposition(case.kernel), case.r, SHIFTS, TIMES)
    weights = [[flow(case.jacobian, case.r, shift, time) for shift in SHIFTS] for time in TIMES]
    check_is(trajectory, case, np.array(weights))


@given(cases)
def test_small_steps_follow_the_flow(case):
    decomposition, step_size = EigenDecomposition(case.kernel), 1e-7
    steps = np.array([0, 10**6, 10**8])
    descent = gradient_descent(decomposition, case.r, SHIFTS, step_size, steps)
    flowed = gradient_flow(decomposition, case.r, SHIFTS, step_size * steps)
    np.testing.assert_allclose(descent.train_residuals, flowed.train_residuals, atol=1e-6 * np.linalg.norm(case.r))
    np.testing.assert_allclose(descent.squared_distance, flowed.squared_distance, rtol=1e-5)


@given(cases)
def test_both_end_in_the_ridge(case):
    decomposition = EigenDecomposition(case.kernel)
    path = decomposition.ridge_path(case.r, LAMBDAS)
    step_size = float(largest_stable_step_size(decomposition, LAMBDAS).min() / 2)
    for trajectory in (
        gradient_descent(decomposition, case.r, LAMBDAS, step_size, np.array([10**10])),
        gradient_flow(decomposition, case.r, LAMBDAS, np.array([1e8])),
    ):
        size = np.linalg.norm(case.r)
        np.testing.assert_allclose(trajectory.train_residuals[0], path.train_residuals, atol=1e-8 * size)
        scaled = LAMBDAS[:, None, None] * (trajectory.dual_coefficients[0] - path.solution)
        np.testing.assert_allclose(scaled, 0, atol=1e-8 * size)
        check_squared_distance(trajectory.squared_distance[0], path.squared_distance, case.kernel, case.r)


def test_without_regularization_least_squares_is_where_it_ends():
    J, r = SMALL.jacobian, SMALL.r
    trajectory = gradient_flow(EigenDecomposition(SMALL.kernel), r, np.zeros(1), np.array([1e3]))
    weights = np.linalg.pinv(J, rcond=1e-10) @ r
    np.testing.assert_allclose(trajectory.train_residuals[0, 0], r - J @ weights, atol=1e-9)
    assert trajectory.squared_distance[0, 0] == pytest.approx(np.sum(weights**2), rel=1e-9)


@given(cases)
def test_distances_grow_with_time_and_shrink_with_lambda(case):
    decomposition = EigenDecomposition(case.kernel)
    step_size = float(largest_stable_step_size(decomposition, SHIFTS).min() / 2)
    for trajectory in (
        gradient_descent(decomposition, case.r, SHIFTS, step_size, STEPS),
        gradient_flow(decomposition, case.r, SHIFTS, TIMES),
    ):
        distance = trajectory.squared_distance
        assert (distance[0] == 0).all()
        assert (np.diff(distance, axis=0) >= -1e-12 * distance[1:]).all()
        assert (np.diff(distance, axis=1) <= 1e-12 * distance[:, :-1]).all()


@given(
    st.floats(1e-18, 1.0), st.sampled_from([0.0, 1e-18, 1e-9, 0.3]), st.floats(1e-9, 0.75), st.sampled_from([1, 3, 12])
)
def test_slow_modes_do_not_cancel(s, shift, step_size, t):
    trajectory = gradient_descent(
        EigenDecomposition(np.array([[s]])), np.ones((1, 1)), np.array([shift]), step_size, np.array([t])
    )
    rate = Fraction(s) + Fraction(shift)
    power = (1 - Fraction(step_size) * rate) ** t
    assert trajectory.dual_coefficients.item() == pytest.approx(float((1 - power) / rate), rel=1e-13)
    residual = float((Fraction(shift) + Fraction(s) * power) / rate)
    assert trajectory.train_residuals.item() == pytest.approx(residual, rel=1e-13, abs=1e-13)
    assert trajectory.squared_distance.item() == pytest.approx(float(s * ((1 - power) / rate) ** 2), rel=1e-13)


@given(st.floats(1e-18, 1.0), st.sampled_from([0.0, 1e-18, 0.3]), st.floats(1e-12, 1e-3))
def test_the_flow_starts_without_cancelling(s, shift, time):
    trajectory = gradient_flow(
        EigenDecomposition(np.array([[s]])), np.ones((1, 1)), np.array([shift]), np.array([time])
    )
    x = Fraction(time) * (Fraction(s) + Fraction(shift))
    series = Fraction(time) * (1 - x / 2 * (1 - x / 3 * (1 - x / 4 * (1 - x / 5))))
    assert trajectory.dual_coefficients.item() == pytest.approx(float(series), rel=1e-13)


@pytest.mark.parametrize("s", [0.0, -1e-17, 5e-324])
def test_a_null_mode_stays_where_it_is(s):
    decomposition, r, shifts = EigenDecomposition(np.diag([s, 1.0])), np.array([[2.0], [0.0]]), np.array([0.0, 0.5])
    descent = gradient_descent(decomposition, r, shifts, 0.5, np.array([0, 3]))
    flowed = gradient_flow(decomposition, r, shifts, np.array([0.0, 3.0]))
    for trajectory in (descent, flowed):
        np.testing.assert_allclose(trajectory.train_residuals, np.broadcast_to(r, (2, 2, 2, 1)), rtol=1e-15)
        assert (trajectory.squared_distance < 1e-300).all()
    # The dual coefficients move all the same: by h t times the residual without regularization.
    np.testing.assert_allclose(descent.dual_coefficients[1, :, 0, 0], [3.0, 4 * (1 - 0.75**3)])
    np.testing.assert_allclose(flowed.dual_coefficients[1, :, 0, 0], [6.0, 4 * (1 - np.exp(-1.5))])


def test_rounding_errors_below_zero_do_not_grow():
    decomposition, r, shifts = EigenDecomposition(np.diag([-1e-17, 1.0])), np.array([[2.0], [0.0]]), np.zeros(1)
    for trajectory in (
        gradient_descent(decomposition, r, shifts, 0.5, np.array([10**18])),
        gradient_flow(decomposition, r, shifts, np.array([1e19])),
    ):
        np.testing.assert_allclose(trajectory.train_residuals[0, 0], r)
        assert trajectory.squared_distance.item() == 0


def test_a_mode_that_arrives_in_one_step_stays_there():
    trajectory = gradient_descent(
        EigenDecomposition(np.array([[1.5]])), np.ones((1, 1)), np.array([0.5]), 0.5, np.array([0, 1, 2])
    )
    assert trajectory.train_residuals.ravel().tolist() == [1.0, 0.25, 0.25]
    assert trajectory.squared_distance.ravel().tolist() == [0.0, 0.375, 0.375]


def test_the_largest_stable_step_size_divides_convergence_from_divergence():
    decomposition = EigenDecomposition(SMALL.kernel)
    limits = largest_stable_step_size(decomposition, SHIFTS)
    for shift, limit in zip(SHIFTS, limits, strict=True):
        below, above = (
            gradient_descent(decomposition, SMALL.r, np.array([shift]), factor * limit, np.array([10, 1000]))
            for factor in (0.99, 1.01)
        )
        assert below.squared_distance[1, 0] < 4 * below.squared_distance[0, 0]
        assert above.squared_distance[1, 0] > 1e6 * above.squared_distance[0, 0]
    still = EigenDecomposition(np.diag([-1e-18, -1e-19]))
    assert largest_stable_step_size(still, np.array([0.0, 4.0])).tolist() == [np.inf, 0.5]


@pytest.mark.parametrize("step_size", [0.0, -1.0, np.nan, np.inf])
def test_refuses_step_sizes_that_go_nowhere(step_size):
    with pytest.raises(StepError, match="step size"):
        gradient_descent(EigenDecomposition(np.eye(2)), np.ones((2, 1)), SHIFTS, step_size, STEPS)


def test_refuses_times_before_the_start_and_fractions_of_steps():
    decomposition, r = EigenDecomposition(np.eye(2)), np.ones((2, 1))
    for times in ([-1.0], [np.nan], [np.inf], [], [[1.0]]):
        with pytest.raises(StepError, match=">= 0"):
            gradient_flow(decomposition, r, SHIFTS, np.array(times))
    with pytest.raises(StepError, match=">= 0"):
        gradient_descent(decomposition, r, SHIFTS, 0.1, np.array([-1]))
    with pytest.raises(StepError, match="integers"):
        gradient_descent(decomposition, r, SHIFTS, 0.1, np.array([1.5]))
    with pytest.raises(StepError, match="for each"):
        gradient_descent(decomposition, r, SHIFTS, np.full(3, 0.1), STEPS)
    with pytest.raises(StepError, match=">= 0"):
        gradient_descent(decomposition, r, SHIFTS, 0.1, np.ones((2, 3), dtype=np.int64))


def test_refuses_what_does_not_fit():
    decomposition = EigenDecomposition(np.eye(2))
    with pytest.raises(LambdaError, match="-1"):
        gradient_flow(decomposition, np.ones((2, 1)), np.array([0.0, -1.0]), TIMES)
    with pytest.raises(KernelShapeError, match="residuals"):
        gradient_flow(decomposition, np.ones((3, 1)), SHIFTS, TIMES)
    with pytest.raises(KernelShapeError, match="rows"):
        gradient_flow(decomposition, np.ones((2, 1)), SHIFTS, TIMES).eval_fit(np.ones((1, 3)))
