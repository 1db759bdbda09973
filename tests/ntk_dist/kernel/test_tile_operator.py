"""Products with tiles against products with the matrix that they make."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntk_dist.errors import NonFiniteError
from ntk_dist.kernel.tile_operator import TileOperator
from tests.ntk_dist.solvers.kernel_cases import cases
from tests.ntk_dist.solvers.tiled import tiled


@given(cases, st.integers(1, 6))
def test_a_product_is_that_of_the_assembled_kernel(case, step):
    K, X = case.kernel, case.r
    operator = tiled(K, step)
    np.testing.assert_allclose(operator.matmat(X), K @ X, atol=1e-13)
    np.testing.assert_allclose(operator.matmat(np.eye(case.M)), K, atol=1e-15)
    assert operator.trace() == pytest.approx(np.trace(K))
    assert operator.squared_norm() == pytest.approx(np.sum(K**2))
    assert operator.passes == 3


@given(st.integers(0, 1000), st.integers(1, 9), st.integers(1, 9), st.integers(1, 4))
def test_matrices_that_are_not_square_take_every_tile_once(seed, m, n, step):
    A = np.random.default_rng(seed).standard_normal((m, n))
    X = np.random.default_rng(seed + 1).standard_normal((n, 2))
    operator = tiled(A, step, symmetric=False)
    np.testing.assert_allclose(operator.matmat(X), A @ X, atol=1e-13)
    assert operator.squared_norm() == pytest.approx(np.sum(A**2))


@given(cases, st.integers(1, 6))
def test_the_same_product_has_the_same_bits_whatever_the_order_in_memory(case, step):
    operator = tiled(case.kernel, step)
    np.testing.assert_array_equal(operator.matmat(case.r), operator.matmat(np.asfortranarray(case.r)))


def test_only_one_tile_is_held_at_a_time():
    held = []

    def read(i, j):
        held.append((i, j))
        return np.full((2, 2), 1.0)

    places = [(slice(i, i + 2), slice(j, j + 2)) for i in range(0, 6, 2) for j in range(0, i + 1, 2)]
    tiles = [(r, c, lambda r=r, c=c: read(r.start, c.start)) for r, c in places]
    operator = TileOperator(tiles, (6, 6), symmetric=True)
    np.testing.assert_array_equal(operator.matmat(np.ones((6, 1))), np.full((6, 1), 6.0))
    assert held == [(0, 0), (2, 0), (2, 2), (4, 0), (4, 2), (4, 4)]
    held.clear()
    assert operator.trace() == 6
    assert held == [(0, 0), (2, 2), (4, 4)]


@given(cases)
def test_scipy_takes_it_as_a_linear_operator(case):
    K, operator = case.kernel, tiled(case.kernel, 3)
    x = np.linspace(1, 2, len(K))
    np.testing.assert_allclose(operator @ x, K @ x, atol=1e-13)
    np.testing.assert_allclose(operator.H @ x, K @ x, atol=1e-13)


def test_vectors_of_another_length_are_refused():
    with pytest.raises(ValueError, match="dimension mismatch"):
        tiled(np.eye(3), 2).matmat(np.ones((2, 1)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e200])
def test_names_the_tile_that_is_not_finite(bad):
    K = np.eye(6)
    K[4, 1] = bad
    with pytest.raises(NonFiniteError, match="rows 4 to 5 and 0 to 1 holds nan or inf, or overflows"):
        tiled(K, 2).squared_norm()
