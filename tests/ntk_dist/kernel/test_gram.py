"""Tiles against dense products, whatever the chunks."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ntk_dist.errors import NonFiniteError
from ntk_dist.kernel.device_gram import device_gram_diagonals
from ntk_dist.kernel.gram import column_chunk, gram_diagonal, gram_tile
from ntk_dist.kernel.kernel_matrix import KernelShapeError


def rows(seed, m, p):
    return np.random.default_rng(seed).standard_normal((m, p)).astype(np.float32)


def tile(left, right, *, kind="sgd", outputs=1, accumulate="float64", max_bytes=2**20):
    return gram_tile(left, right, kind=kind, outputs_per_example=outputs, accumulate=accumulate, max_bytes=max_bytes)


@given(
    st.integers(0, 1000),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 40),
    st.sampled_from(["sgd", "sign", "asymmetric_sign"]),
    st.sampled_from([1, 1200, 2000, 2**20]),
)
def test_tile_is_the_dense_product(seed, n_left, n_right, C, p, kind, max_bytes):
    left, right = rows(seed, n_left * C, p), rows(seed + 1, n_right * C, p)
    a, b = left.astype(np.float64), right.astype(np.float64)
    a = np.sign(a) if kind == "sign" else a
    b = b if kind == "sgd" else np.sign(b)
    expected = sum(a[c::C] @ b[c::C].T for c in range(C)) / C
    actual = tile(left, right, kind=kind, outputs=C, max_bytes=max_bytes)
    assert actual.dtype == np.float64
    np.testing.assert_allclose(actual, expected, atol=1e-12 * p)


@pytest.mark.parametrize("kind", ["sgd", "sign"])
def test_a_diagonal_tile_is_exactly_symmetric_and_equal_to_the_product(kind):
    J = rows(0, 30, 500)
    diagonal = tile(J, J, kind=kind, max_bytes=40_000)
    np.testing.assert_array_equal(diagonal, diagonal.T)
    np.testing.assert_allclose(diagonal, tile(J, J.copy(), kind=kind, max_bytes=40_000), rtol=1e-12, atol=1e-12)


def test_a_diagonal_tile_of_the_asymmetric_kernel_is_not_symmetric():
    J = rows(0, 6, 50)
    np.testing.assert_allclose(
        tile(J, J, kind="asymmetric_sign"), J.astype(np.float64) @ np.sign(J.astype(np.float64)).T
    )


def test_the_same_bits_from_memory_and_from_a_mapped_file(tmp_path):
    J = rows(3, 20, 3000)
    J.tofile(tmp_path / "rows")
    mapped = np.memmap(tmp_path / "rows", dtype=np.float32, mode="r", shape=J.shape)
    np.testing.assert_array_equal(tile(J, J[:7], max_bytes=50_000), tile(mapped, mapped[:7], max_bytes=50_000))


def test_float32_products_are_added_in_float64():
    # 2^24 ones: a float32 sum over all columns would stop growing there, chunks added in float64 do not.
    J = np.ones((1, 2**10 + 1), dtype=np.float32) * 2.0**7
    J[0, -1] = 1.0
    exact = 2.0**24 + 1
    assert tile(J, J.copy(), accumulate="float32", max_bytes=16 + 18 * 2**10)[0, 0] == exact
    assert tile(J, J.copy(), accumulate="float64")[0, 0] == exact
    assert tile(J, J.copy(), accumulate="float32")[0, 0] != exact


@given(st.integers(1, 500), st.integers(1, 500), st.integers(2**10, 2**22))
def test_the_chunk_is_the_widest_that_fits(left_rows, right_rows, max_bytes):
    size = left_rows * right_rows
    width = column_chunk(left_rows, right_rows, result_size=size, max_bytes=max_bytes)
    assert width >= 1
    assert width == 1 or 16 * size + 9 * width * (left_rows + right_rows) <= max_bytes
    assert 16 * size + 9 * (width + 1) * (left_rows + right_rows) > max_bytes


def peak_bytes(left, right, max_bytes):
    tile(left, right, max_bytes=max_bytes)
    tracemalloc.start()
    tile(left, right, kind="sign", max_bytes=max_bytes)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_temporaries_stay_under_the_limit():
    left, right = rows(0, 100, 20_000), rows(1, 80, 20_000)
    limit = 2**21
    assert limit / 2 < peak_bytes(left, right, limit) < limit * 1.02


def test_a_diagonal_tile_takes_its_features_once():
    J, limit = rows(0, 100, 20_000), 2**21
    assert peak_bytes(J, J, limit) < 0.6 * limit < 0.8 * limit < peak_bytes(J, J.copy(), limit)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["sgd", "sign", "asymmetric_sign"])
@pytest.mark.parametrize("side", [0, 1])
def test_names_the_row_that_is_not_finite(bad, kind, side):
    sides = [rows(0, 4, 30), rows(1, 4, 30)]
    sides[side][2, 17] = bad
    with pytest.raises(NonFiniteError, match="row 2"):
        tile(*sides, kind=kind, max_bytes=1000)


def test_refuses_rows_of_different_groups():
    with pytest.raises(KernelShapeError, match="same group"):
        tile(rows(0, 2, 3), rows(0, 2, 4))


@given(
    st.integers(0, 1000),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 40),
    st.sampled_from(["sgd", "sign"]),
    st.sampled_from([1, 700, 20_000]),
)
def test_the_blocks_on_the_diagonal_are_those_of_the_whole_product(seed, n, r, R, p, kind, max_bytes):
    J = np.random.default_rng(seed).standard_normal((n * r * R, p)).astype(np.float32)
    found = gram_diagonal(J, kind=kind, outputs_per_example=R, kernel_rows=r, max_bytes=max_bytes)
    whole = gram_tile(J, J.copy(), kind=kind, outputs_per_example=R).reshape(n, r, n, r)
    np.testing.assert_allclose(found, whole[np.arange(n), :, np.arange(n)], rtol=1e-12, atol=1e-12 * p)
    on_device = device_gram_diagonals(
        [[J], [J, J]], examples=n, kind=kind, outputs_per_example=R, kernel_rows=r, accumulate="float64", tf32=False,
        max_bytes=max_bytes, device=torch.device("cpu"),
    )  # fmt: skip
    np.testing.assert_allclose(on_device, [found, 2 * found], rtol=1e-12, atol=1e-12 * p)


def test_the_diagonal_names_the_row_that_is_not_finite():
    J = np.ones((4, 3))
    J[2, 1] = np.inf
    with pytest.raises(NonFiniteError, match="Jacobian row 2"):
        gram_diagonal(J, kind="sign", outputs_per_example=1, kernel_rows=2)
