"""Feature rows against the definition of the three kernels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntk_dist.kernel.features import features


def rows(seed, n, C, p):
    return np.random.default_rng(seed).integers(-2, 3, (n * C, p)).astype(np.float32)


@given(st.integers(0, 1000), st.integers(1, 5), st.integers(1, 4), st.integers(1, 6))
def test_trace_features_average_the_kernels_of_the_outputs(seed, n, C, p):
    J = rows(seed, n, C, p)
    phi = features(J, kind_side="raw", outputs_per_example=C, dtype=np.float64)
    assert phi.shape == (n, C * p)
    expected = sum(J[c::C].astype(np.float64) @ J[c::C].T for c in range(C)) / C
    np.testing.assert_allclose(phi @ phi.T, expected, atol=1e-12)


@given(st.integers(0, 1000), st.integers(1, 4))
def test_the_sign_is_taken_before_the_outputs_are_joined(seed, C):
    J = rows(seed, 3, C, 5)
    phi = features(J, kind_side="sign", outputs_per_example=C, dtype=np.float64)
    np.testing.assert_allclose(phi * np.sqrt(C), np.sign(J).reshape(3, -1), rtol=1e-15)
    assert (phi[J.reshape(3, -1) == 0] == 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_leaves_the_rows_alone_and_gives_the_asked_dtype(dtype):
    J = rows(0, 2, 2, 3)
    before = J.copy()
    for side in ("raw", "sign"):
        phi = features(J, kind_side=side, outputs_per_example=2, dtype=dtype)
        assert phi.dtype == dtype
        assert phi.flags.c_contiguous
        np.testing.assert_array_equal(J, before)


def test_refuses_half_an_example():
    with pytest.raises(ValueError, match="5 rows"):
        features(np.ones((5, 2)), kind_side="raw", outputs_per_example=2, dtype=np.float64)
