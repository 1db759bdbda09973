"""Ends, density and ridge paths from products alone, against full decompositions."""

from dataclasses import dataclass

import numpy as np
import pytest
import scipy.sparse.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from ntk_dist.kernel.kernel_matrix import KernelShapeError
from ntk_dist.solvers.eigen import EigenDecomposition
from ntk_dist.solvers.kept_krylov import KeptKrylovPath
from ntk_dist.solvers.krylov_ridge import RIDGE_TOLERANCE, krylov_ridge
from ntk_dist.solvers.lanczos import LanczosRuns
from ntk_dist.solvers.ridge import LambdaError, RidgePath
from ntk_dist.solvers.tridiagonal import TridiagonalDecomposition
from ntk_dist.spectrum import extremes
from ntk_dist.spectrum.extremes import ends_of_spectrum
from ntk_dist.spectrum.iterative import IterativeDecomposition
from ntk_dist.spectrum.spectral_density import WIDTH, spectral_density
from ntk_dist.spectrum.spectrum import label_alignment, summarize
from tests.ntk_dist.solvers.kernel_cases import LAMBDAS, cases, dense
from tests.ntk_dist.solvers.tiled import spectrum_kernel, tiled

EPS = {"sigma": 1e-4, "relative_sigma": 1e-6, "jacobian_eps": 2.0**-52, "gram_eps": 2.0**-52}
DECAYING = spectrum_kernel(np.arange(1.0, 301) ** -2)
"""As kernels of language models: few large eigenvalues and many small ones."""


# --- the Lanczos process


@given(cases, st.integers(1, 5), st.integers(1, 12))
def test_lanczos_vectors_are_orthonormal_and_make_the_kernel_tridiagonal(case, step, max_steps):
    K = case.kernel
    runs = LanczosRuns(tiled(K, step), case.r, max_steps)
    while runs.running:
        runs.advance()
    for c in range(case.k):
        V = runs.lift(c, np.eye(runs.lengths[c]))
        diagonal, off = runs.tridiagonal(c)
        np.testing.assert_allclose(V.T @ V, np.eye(len(diagonal)), atol=1e-12)
        T = np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1)
        np.testing.assert_allclose(V.T @ K @ V, T, atol=1e-12)
        np.testing.assert_allclose(V[:, 0] * runs.norms[c], case.r[:, c], atol=1e-13)
        beyond = K @ V - V @ T
        assert np.linalg.norm(beyond[:, :-1]) <= 1e-12
        assert np.linalg.norm(beyond[:, -1]) == pytest.approx(runs.next_norms[c], abs=1e-12) or len(V) == len(diagonal)


def test_a_start_of_zeros_has_no_krylov_space():
    runs = LanczosRuns(tiled(np.eye(4), 2), np.zeros((4, 1)), 3)
    assert not runs.running
    assert runs.lengths.tolist() == [0]


def test_runs_end_each_when_their_space_is_exhausted():
    starts = np.stack([np.eye(6)[0], np.ones(6)], axis=1)
    runs = LanczosRuns(tiled(np.diag(np.arange(1.0, 7)), 4), starts, 6)
    while runs.running:
        runs.advance()
    assert runs.lengths.tolist() == [1, 6]
    assert runs.next_norms.tolist() == [0, 0]


# --- ridge paths


@dataclass(frozen=True)
class Solved:
    """The path of some lambdas, and outputs for the rows of K itself, from what comes back from a file."""

    path: RidgePath
    fit: np.ndarray
    residuals: np.ndarray
    steps: int
    complete: bool


def solve(K, r, lambdas, *, step=64, lowest=None, **options) -> Solved:
    found = krylov_ridge(
        tiled(K, step), tiled(K, step, symmetric=False), r, lambdas.min() if lowest is None else lowest, **options
    )
    kept = KeptKrylovPath.from_arrays({name: array.copy() for name, array in found.kept.arrays().items()})
    path = kept.ridge_path(r, lambdas)
    return Solved(path, kept.eval_fit(path), kept.solve_residuals(path), found.steps, found.complete)


@given(cases, st.integers(1, 6))
def test_the_path_is_the_dense_solution(case, step):
    K, r = case.kernel, case.r
    found = solve(K, r, LAMBDAS, step=step)
    alphas = dense(K, r)
    scale = np.linalg.norm(r)
    np.testing.assert_allclose(found.path.train_residuals, LAMBDAS[:, None, None] * alphas, atol=1e-8 * scale)
    np.testing.assert_allclose(found.fit, K @ (found.path.train_residuals / LAMBDAS[:, None, None]), atol=1e-8 * scale)
    other = TridiagonalDecomposition(case.kernel).ridge_path(r, LAMBDAS)
    rounding = len(K) * 2.0**-52 * np.linalg.norm(K, 2) * scale**2 / LAMBDAS**2
    assert (abs(found.path.squared_distance - other.squared_distance) <= 1e-7 * other.squared_distance + rounding).all()
    assert np.isnan(found.path.degrees_of_freedom).all()
    assert np.isnan(found.path.gcv).all()
    assert found.path.leave_one_out is None
    assert found.steps <= case.M


@pytest.mark.parametrize("lambdas", [LAMBDAS, LAMBDAS[3:]])
def test_steps_end_once_the_losses_are_exact(lambdas):
    r = np.random.default_rng(1).standard_normal((300, 2))
    found = solve(DECAYING, r, lambdas)
    full = EigenDecomposition(np.asfortranarray(DECAYING)).ridge_path(r, lambdas)
    losses, expected = ((path.train_residuals**2).sum(axis=(1, 2)) for path in (found.path, full))
    np.testing.assert_allclose(losses, expected, rtol=2.5 * RIDGE_TOLERANCE)
    assert (found.residuals <= 1.1 * RIDGE_TOLERANCE).all()
    assert found.steps < 300
    assert not found.complete
    scale = np.linalg.norm(full.eval_fit(DECAYING))
    assert np.linalg.norm(found.fit - full.eval_fit(DECAYING)) <= 1e-8 * scale


@pytest.mark.parametrize("decay", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("lowest", [1e-6, 1e-2])
def test_any_lambda_above_the_lowest_is_a_dense_solution_without_another_product(decay, lowest):
    """Its residual is that of a product, also where the kernel's largest eigenvalue is a million times lambda."""
    K = spectrum_kernel(np.arange(1.0, 301) ** -decay)
    r = np.random.default_rng(1).standard_normal((300, 2))
    lambdas = lowest * 10.0 ** np.random.default_rng(2).uniform(0, 8, 30)
    found = solve(K, r, lambdas, lowest=lowest)
    alphas = dense(K, r, lambdas)
    exact = lambdas[:, None, None] * alphas
    errors = np.linalg.norm(found.path.train_residuals - exact, axis=(1, 2))
    assert (errors <= RIDGE_TOLERANCE * np.linalg.norm(exact, axis=(1, 2))).all()
    fitted = np.linalg.norm(K @ alphas, axis=(1, 2))
    assert (np.linalg.norm(found.fit - K @ alphas, axis=(1, 2)) <= 1e-8 * fitted).all()
    np.testing.assert_allclose(found.path.squared_distance, (alphas * (K @ alphas)).sum(axis=(1, 2)), rtol=1e-7)
    own = found.path.train_residuals / lambdas[:, None, None]
    missing = np.linalg.norm(r - K @ own - found.path.train_residuals, axis=(1, 2)) / np.linalg.norm(exact, axis=(1, 2))
    np.testing.assert_allclose(found.residuals, missing, rtol=1e-3, atol=1e-13 / lambdas.min())
    assert (found.residuals <= 1.1 * RIDGE_TOLERANCE).all()


def test_an_exhausted_space_serves_every_lambda():
    K = spectrum_kernel(np.array([3.0, 1.0, 0.4, 0.1, 1e-4]))
    r = np.random.default_rng(1).standard_normal((5, 2))
    lambdas = np.geomspace(1e-7, 10, 7)
    found = solve(K, r, lambdas, step=2, lowest=1e-3)
    assert found.complete
    assert found.steps == 5
    exact = lambdas[:, None, None] * dense(K, r, lambdas)
    np.testing.assert_allclose(found.path.train_residuals, exact, atol=1e-8 * np.linalg.norm(r))


def test_targets_have_spaces_of_their_own_sizes():
    K = spectrum_kernel(np.arange(1.0, 41) ** -1)
    r = np.random.default_rng(1).standard_normal((40, 3))
    r[:, 0], r[:, 1] = np.linalg.eigh(K)[1][:, 5], 0.0
    found = solve(K, r, LAMBDAS)
    np.testing.assert_allclose(found.path.train_residuals, LAMBDAS[:, None, None] * dense(K, r), atol=1e-9)
    assert not found.path.train_residuals[:, :, 1].any()


def test_large_lambdas_take_few_steps():
    r = np.random.default_rng(1).standard_normal((300, 1))
    assert solve(DECAYING, r, np.array([30.0])).steps < 8


def test_a_path_that_is_cut_short_says_how_far_off_it_is():
    r = np.random.default_rng(1).standard_normal((300, 2))
    found = solve(DECAYING, r, LAMBDAS, max_steps=20)
    assert found.steps == 20
    assert found.complete
    exact = LAMBDAS[:, None, None] * dense(DECAYING, r)
    errors = np.linalg.norm(found.path.train_residuals - exact, axis=(1, 2))
    sizes = np.linalg.norm(found.path.train_residuals, axis=(1, 2))
    assert (errors <= found.residuals * sizes * (1 + 1e-6) + 1e-14 * np.linalg.norm(r)).all()
    assert found.residuals[0] > 1e-3
    assert found.residuals[-1] < RIDGE_TOLERANCE


def test_residuals_of_zeros_are_fitted_by_zeros():
    found = solve(np.eye(5), np.zeros((5, 1)), LAMBDAS, step=2)
    assert not found.path.train_residuals.any()
    assert not found.residuals.any()
    assert not found.fit.any()


def test_the_path_of_a_lambda_takes_two_products_more_than_steps():
    K, rows = tiled(DECAYING, 64), tiled(DECAYING, 64, symmetric=False)
    found = krylov_ridge(K, rows, np.random.default_rng(1).standard_normal((300, 2)), 1.0)
    assert (K.passes, rows.passes) == (found.steps + 1, 1)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
def test_lambdas_must_be_positive(value):
    with pytest.raises(LambdaError):
        solve(np.eye(5), np.ones((5, 1)), np.array([value]))


# --- the ends of the spectrum


@settings(max_examples=30)
@given(st.integers(0, 1000), st.sampled_from([1, 2, 5, 40, 90]), st.integers(5, 40))
def test_separated_ends_are_exact(seed, M, step):
    values = np.linspace(1, 10, M) ** 2
    K = spectrum_kernel(values, seed)
    norm = float(np.linalg.norm(K))
    largest, smallest = ends_of_spectrum(tiled(K, step), norm=norm, seed=seed)
    count = min(extremes.COUNT, M)
    np.testing.assert_allclose(largest.values, values[::-1][:count], rtol=1e-8)
    np.testing.assert_allclose(smallest.values, values[:count], rtol=1e-8)
    assert (largest.residuals <= 1e-11 * norm).all()
    assert (smallest.residuals <= 1e-11 * norm).all()


@given(cases, st.integers(1, 6))
def test_ends_of_kernels_of_any_rank(case, step):
    K = case.kernel
    exact = np.linalg.eigvalsh(K)
    decomposition = IterativeDecomposition(tiled(K, step), seed=case.seed % 1000)
    rounding = 1e-12 * exact[-1] + 1e-300
    assert abs(decomposition.largest.values[0] - exact[-1]) <= rounding
    assert abs(decomposition.smallest.values[0] - exact[0]) <= rounding
    assert decomposition.trace == pytest.approx(np.trace(K))
    assert decomposition.norm == pytest.approx(np.linalg.norm(K))


def test_ends_are_those_of_scipy():
    largest, smallest = ends_of_spectrum(tiled(DECAYING, 64), norm=float(np.linalg.norm(DECAYING)), seed=0)
    for end, which in ((largest, "LA"), (smallest, "SA")):
        values = scipy.sparse.linalg.eigsh(DECAYING, extremes.COUNT, which=which, ncv=200, return_eigenvectors=False)
        np.testing.assert_allclose(np.sort(end.values), np.sort(values), rtol=1e-8)


def test_steps_end_once_both_ends_are_found():
    # Separated from an interval by gaps as wide as it is.
    K = spectrum_kernel(np.r_[1.0, 2.0, 3.0, 4.0, np.linspace(5, 6, 392), 7.0, 8.0, 9.0, 10.0])
    operator = tiled(K, 100)
    largest, smallest = ends_of_spectrum(operator, norm=float(np.linalg.norm(K)), seed=0)
    assert operator.passes < 150
    np.testing.assert_allclose(largest.values, [10, 9, 8, 7], rtol=1e-10)
    np.testing.assert_allclose(smallest.values, [1, 2, 3, 4], rtol=1e-10)


@pytest.mark.parametrize("rank", [1, 2, 3, 10, 69])
def test_ends_of_kernels_of_low_rank(rank):
    J = np.random.default_rng(rank).standard_normal((90, rank))
    K = J @ J.T
    exact = np.linalg.eigvalsh(K)
    decomposition = IterativeDecomposition(tiled(K, 32), seed=rank)
    assert decomposition.largest.values[0] == pytest.approx(exact[-1], rel=1e-12)
    assert abs(decomposition.smallest.values[0]) <= 1e-13 * exact[-1]


ONE_EIGENVALUE = {
    "zeros": np.zeros((5, 5)), "many zeros": np.zeros((70, 70)), "one row": np.full((1, 1), 3.0),
    "few": 2.0 * np.eye(40), "many": 2.0 * np.eye(70),
}  # fmt: skip


@pytest.mark.parametrize("K", ONE_EIGENVALUE.values(), ids=ONE_EIGENVALUE)
def test_kernels_with_one_eigenvalue(K):
    decomposition = IterativeDecomposition(tiled(K, 16), seed=0)
    assert len(decomposition.largest.values) == len(decomposition.smallest.values) == 1
    np.testing.assert_allclose(decomposition.largest.values, K[0, 0], rtol=1e-13)
    np.testing.assert_allclose(decomposition.smallest.values, K[0, 0], rtol=1e-13)
    np.testing.assert_allclose(decomposition.density.nodes, K[0, 0], rtol=1e-13)


@pytest.mark.parametrize("steps", [3, 20, 100])
def test_an_eigenvalue_lies_within_each_residual(steps):
    exact = np.linalg.eigvalsh(DECAYING)
    ends = ends_of_spectrum(tiled(DECAYING, 64), norm=float(np.linalg.norm(DECAYING)), seed=0, max_steps=steps)
    for end in ends:
        assert len(end.values) == min(extremes.COUNT, steps)
        for value, residual in zip(end.values, end.residuals, strict=True):
            assert np.abs(exact - value).min() <= residual + 1e-15
    largest, smallest = ends
    assert exact[0] <= smallest.values[0]
    assert largest.values[0] <= exact[-1] + 1e-15


@given(st.integers(0, 1000))
@settings(max_examples=10)
def test_the_same_seed_gives_the_same_bits(seed):
    J = np.random.default_rng(seed).standard_normal((120, 3))
    first, second = (IterativeDecomposition(tiled(J @ J.T, 50), seed=seed) for _ in range(2))
    for name in ("largest", "smallest"):
        np.testing.assert_array_equal(getattr(first, name).values, getattr(second, name).values)
        np.testing.assert_array_equal(getattr(first, name).residuals, getattr(second, name).residuals)
    np.testing.assert_array_equal(first.density.nodes, second.density.nodes)
    np.testing.assert_array_equal(first.density.weights, second.density.weights)


# --- the density


@given(cases, st.integers(1, 6), st.integers(0, 1000))
def test_weights_count_the_eigenvalues(case, step, seed):
    density = spectral_density(tiled(case.kernel, step), seed=seed)
    assert density.weights.sum() == pytest.approx(case.M)
    assert (density.weights >= 0).all()
    exact = np.linalg.eigvalsh(case.kernel)
    assert exact[0] - 1e-12 <= density.nodes[0] <= density.nodes[-1] <= exact[-1] + 1e-12


@pytest.mark.parametrize("seed", range(3))
def test_moments_are_the_traces_up_to_what_sampling_leaves(seed):
    density = spectral_density(tiled(DECAYING, 64), seed=seed, probes=40)
    for power in (1, 2, 3):
        exact = np.trace(np.linalg.matrix_power(DECAYING, power))
        # Variance of z^T A z for random signs: twice the squares off the diagonal.
        A = np.linalg.matrix_power(DECAYING, power)
        deviation = np.sqrt(2 * (np.sum(A**2) - np.sum(np.diag(A) ** 2)) / 40)
        assert abs(density.weights @ density.nodes**power - exact) < 4 * deviation
        # no more than that: the quadrature itself is exact for such powers
    probes = np.random.default_rng([seed, 0]).choice([-1.0, 1.0], size=(300, 40))
    hutchinson = np.mean(np.sum(probes * (DECAYING @ probes), axis=0))
    assert density.weights @ density.nodes == pytest.approx(hutchinson, rel=1e-12)


@given(cases, st.integers(0, 1000), st.floats(-8, -1))
def test_the_smoothed_density_integrates_to_the_number_of_eigenvalues(case, seed, exponent):
    density = spectral_density(tiled(case.kernel, 4), seed=seed)
    grid, values = density.smoothed(10**exponent)
    assert np.sum(values) * (WIDTH / 2) == pytest.approx(case.M, rel=1e-6)
    assert (values >= 0).all()
    np.testing.assert_allclose(np.diff(np.log10(grid)), WIDTH / 2)


def test_the_smoothed_density_has_the_moments_of_a_smoothed_spectrum():
    density = spectral_density(tiled(DECAYING, 64), seed=0)
    grid, values = density.smoothed(1e-12)
    for power in (1, 2):
        # A Gaussian in the logarithm raises the mean of powers by a factor.
        wider = np.exp((power * WIDTH * np.log(10)) ** 2 / 2)
        assert np.sum(values * grid**power) * (WIDTH / 2) / wider == pytest.approx(
            density.weights @ density.nodes**power, rel=1e-6
        )


def test_a_kernel_of_zeros_has_no_density_on_a_logarithmic_scale():
    grid, values = spectral_density(tiled(np.zeros((4, 4)), 2), seed=0).smoothed(0.0)
    assert len(grid) == len(values) == 0


# --- what it says of a kernel


@given(cases, st.integers(1, 6))
def test_the_summary_is_that_of_all_eigenvalues_where_it_exists(case, step):
    K = case.kernel
    found = IterativeDecomposition(tiled(K, step), seed=0).summary(**EPS)
    expected = summarize(np.linalg.eigvalsh(K), size=case.M, trace=float(np.trace(K)), **EPS)
    for name in ("sigma_max", "trace", "noise_floor", "condition_number_fixed_sigma"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-8), name
    assert found.sigma_min == pytest.approx(expected.sigma_min, rel=1e-8, abs=expected.noise_floor)
    if expected.sigma_min > 4 * expected.noise_floor:
        assert found.condition_number == pytest.approx(expected.condition_number, rel=1e-2)
    assert np.isnan([found.effective_rank, found.decay_exponent]).all()


@given(cases)
def test_the_alignment_is_that_of_a_full_decomposition(case):
    found = IterativeDecomposition(tiled(case.kernel, 4), seed=0).label_alignment(case.r)
    assert found == pytest.approx(label_alignment(TridiagonalDecomposition(case.kernel), case.r), rel=1e-9)


def test_only_symmetric_kernels_have_a_spectrum():
    with pytest.raises(KernelShapeError, match="symmetric"):
        IterativeDecomposition(tiled(np.eye(4), 2, symmetric=False), seed=0)
