"""Scalars of a spectrum against their definitions."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ntk_dist.solvers.eigen import EigenDecomposition
from ntk_dist.solvers.primal import PrimalDecomposition
from ntk_dist.solvers.schur import SchurDecomposition
from ntk_dist.solvers.tridiagonal import TridiagonalDecomposition
from ntk_dist.spectrum.spectrum import decay_exponent, effective_rank, label_alignment, summarize
from tests.ntk_dist.solvers.kernel_cases import Case, cases

EPS = float(np.finfo(np.float64).eps)


def summary(eigenvalues, *, size=None, trace=None, sigma=0.1, relative_sigma=0.01, jacobian_eps=0.0, gram_eps=EPS):
    s = np.asarray(eigenvalues, dtype=np.float64)
    return summarize(
        s,
        size=len(s) if size is None else size,
        trace=float(s.sum()) if trace is None else trace,
        sigma=sigma,
        relative_sigma=relative_sigma,
        jacobian_eps=jacobian_eps,
        gram_eps=gram_eps,
    )


def test_scalars_of_a_small_spectrum():
    result = summary([1.0, 2.0, 3.0, 4.0])
    assert (result.sigma_min, result.sigma_max, result.trace) == (1.0, 4.0, 10.0)
    assert result.condition_number == 4.0
    assert result.condition_number_resolved is True
    assert result.condition_number_fixed_sigma == pytest.approx(4.1 / 1.1)
    assert result.condition_number_relative_sigma == pytest.approx(4.025 / 1.025)
    p = np.array([0.1, 0.2, 0.3, 0.4])
    assert result.effective_rank == pytest.approx(np.prod(p**-p))


def test_implied_zeros_make_the_smallest_eigenvalue_zero():
    result = summary([1e-20, 1.0], size=5)
    assert result.sigma_min == 0.0
    assert result.condition_number == np.inf
    assert not result.condition_number_resolved
    assert result.condition_number_fixed_sigma == pytest.approx(1.1 / 0.1)
    assert result.condition_number_relative_sigma == pytest.approx(1.002 / 0.002)


def test_a_negative_smallest_eigenvalue_counts_as_zero_where_sigma_is_added():
    result = summary([-0.25, 1.0], sigma=0.5)
    assert result.sigma_min == -0.25
    assert result.condition_number == np.inf
    assert result.condition_number_fixed_sigma == 3.0


def test_noise_floor():
    result = summary([1e-9, 1.0, 2.0], jacobian_eps=1e-3, gram_eps=1e-7)
    assert result.noise_floor == pytest.approx(3 * 1e-7 * 2 + 64e-6 * (3 + 1e-9))
    assert not result.condition_number_resolved
    assert summary([1e-9, 1.0, 2.0]).condition_number_resolved


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_null_eigenvalues_of_rounded_jacobians_stay_under_the_noise_floor(dtype):
    case = Case(seed=7, M=60, p=200, rank=20, k=1, decay=1)
    J = case.jacobian.astype(dtype).astype(np.float64)
    s = np.linalg.eigvalsh(J @ J.T)
    floor = summary(s, jacobian_eps=float(np.finfo(dtype).eps)).noise_floor
    assert s[39] < floor < s[40]


def test_a_zero_kernel():
    result = summary([0.0, 0.0])
    assert np.isnan(result.effective_rank)
    assert np.isnan(result.decay_exponent)
    assert result.condition_number == np.inf
    assert not result.condition_number_resolved
    assert result.condition_number_fixed_sigma == 1.0
    assert result.condition_number_relative_sigma == np.inf


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20))
def test_effective_rank_lies_between_one_and_the_rank(values):
    s = np.array(values)
    assume(s.max() > 0)
    assert 1 - 1e-9 <= effective_rank(s) <= np.count_nonzero(s) + 1e-9


@given(st.integers(1, 30))
def test_effective_rank_of_equal_eigenvalues_is_their_number(n):
    assert effective_rank(np.concatenate([[-1e-18, 0.0], np.full(n, 3.0)])) == pytest.approx(n)


@given(st.floats(0.1, 4), st.integers(3, 30))
def test_decay_of_a_power_law(exponent, n):
    s = 7.0 * np.arange(1.0, n + 1) ** -exponent
    assert decay_exponent(np.concatenate([[1e-12], s[::-1]]), 1e-10) == pytest.approx(exponent)
    assert np.isnan(decay_exponent(s, float(s[2])))


@given(cases)
def test_alignment_of_every_decomposition(case):
    K, Y = case.kernel, case.r
    YY = Y @ Y.T
    expected = np.sum(K * YY) / (np.linalg.norm(K) * np.linalg.norm(YY))
    for decomposition in (
        TridiagonalDecomposition(case.kernel),
        EigenDecomposition(case.kernel),
        SchurDecomposition(case.kernel),
        PrimalDecomposition(case.blocks(), case.M, case.p),
    ):
        assert label_alignment(decomposition, Y) == pytest.approx(expected, abs=1e-9)


def test_alignment_is_one_for_the_label_kernel_and_nan_for_nothing():
    Y = np.array([[1.0], [-1.0], [1.0]])
    assert label_alignment(TridiagonalDecomposition(Y @ Y.T), Y) == pytest.approx(1.0)
    assert np.isnan(label_alignment(TridiagonalDecomposition(np.zeros((3, 3))), Y))
    assert np.isnan(label_alignment(TridiagonalDecomposition(np.eye(3)), 0 * Y))
