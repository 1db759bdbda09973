"""Tiles made by torch against those of numpy, on the one device that every machine has."""

import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ntk_dist.errors import NonFiniteError
from ntk_dist.kernel.device_gram import DeviceChunks, device_gram_tile, tf32_products
from ntk_dist.kernel.gram import gram_tile
from ntk_dist.kernel.kernel_matrix import KernelShapeError

CPU = torch.device("cpu")
KINDS = ["sgd", "sign", "asymmetric_sign"]
BUDGETS = [1, 700, 3000, 20_000, 2**20]


def rows(seed, m, p, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal((m, p)).astype(dtype)


def tile(left, right, *, kind="sgd", outputs=1, accumulate="float64", max_bytes=2**20):
    return device_gram_tile(
        left, right, kind=kind, outputs_per_example=outputs, accumulate=accumulate, tf32=False,
        max_bytes=max_bytes, device=CPU,
    )  # fmt: skip


def reference(left, right, *, kind="sgd", outputs=1):
    return gram_tile(left, right, kind=kind, outputs_per_example=outputs, accumulate="float64", max_bytes=2**20)


@given(
    st.integers(0, 1000),
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 40),
    st.sampled_from(KINDS),
    st.sampled_from(BUDGETS),
    st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_tile_is_that_of_numpy(seed, n_left, n_right, C, p, kind, max_bytes, dtype):
    left, right = rows(seed, n_left * C, p, dtype), rows(seed + 1, n_right * C, p, dtype)
    expected = reference(left, right, kind=kind, outputs=C)
    actual = tile(left, right, kind=kind, outputs=C, max_bytes=max_bytes)
    assert actual.dtype == np.float64
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12 * p)


@given(st.integers(0, 1000), st.integers(1, 9), st.integers(1, 2), st.integers(1, 30), st.sampled_from(BUDGETS))
def test_float32_products_are_as_close_as_their_precision(seed, n, C, p, max_bytes):
    J = rows(seed, n * C, p)
    actual = tile(J, J.copy(), outputs=C, accumulate="float32", max_bytes=max_bytes)
    np.testing.assert_allclose(actual, reference(J, J.copy(), outputs=C), rtol=1e-5, atol=1e-5 * p)


@given(st.integers(0, 1000), st.integers(1, 12), st.integers(1, 3), st.sampled_from(KINDS), st.sampled_from(BUDGETS))
def test_a_diagonal_tile_is_exactly_symmetric(seed, n, C, kind, max_bytes):
    J = rows(seed, n * C, 60)
    diagonal = tile(J, J, kind=kind, outputs=C, max_bytes=max_bytes)
    np.testing.assert_allclose(diagonal, reference(J, J, kind=kind, outputs=C), rtol=1e-12, atol=1e-11)
    if kind != "asymmetric_sign":
        np.testing.assert_array_equal(diagonal, diagonal.T)


@pytest.mark.parametrize("accumulate", ["float64", "float32"])
def test_the_same_call_gives_the_same_bits_from_memory_and_from_a_mapped_file(tmp_path, accumulate):
    J = rows(3, 20, 3000)
    J.tofile(tmp_path / "rows")
    mapped = np.memmap(tmp_path / "rows", dtype=np.float32, mode="r", shape=J.shape)
    options = {"accumulate": accumulate, "max_bytes": 50_000}
    np.testing.assert_array_equal(tile(J, J[:7], **options), tile(mapped, mapped[:7], **options))


def test_float32_products_are_added_in_float64():
    # A float32 sum over all columns would stop growing at 2^24, chunks added in float64 do not.
    J = np.ones((1, 2**10 + 1), dtype=np.float32) * 2.0**7
    J[0, -1] = 1.0
    chunked = tile(J, J.copy(), accumulate="float32", max_bytes=80 + 16 * 2**10)
    assert chunked[0, 0] == 2.0**24 + 1 != tile(J, J.copy(), accumulate="float32")[0, 0]


# --- what it takes on the device


sizes = st.integers(1, 300)


@given(sizes, sizes, st.integers(1, 5000), st.integers(1, 3), st.sampled_from([2, 4, 8]), st.sampled_from([4, 8]),
       st.booleans(), st.integers(2**10, 2**24))  # fmt: skip
def test_chunks_fit_and_are_as_large_as_they_may_be(n_left, n_right, p, C, stored, product, square, max_bytes):
    n_right = n_left if square else n_right
    facts = {"outputs_per_example": C, "stored_bytes": stored, "product_bytes": product}
    chunks = DeviceChunks.of(n_left * C, n_right * C, p, **facts, square=square, max_bytes=max_bytes)
    assert chunks.left_rows % C == chunks.right_rows % C == 0
    assert not square or chunks.left_rows == chunks.right_rows
    smallest = chunks == DeviceChunks(C, C, 1)
    assert smallest or chunks.columns == 1 or chunks.device_bytes(**facts) <= max_bytes
    if chunks.columns < p:
        wider = DeviceChunks(chunks.left_rows, chunks.right_rows, chunks.columns + 1)
        assert wider.device_bytes(**facts) > max_bytes
    whole = (chunks.left_rows, chunks.right_rows) == (n_left * C, n_right * C)
    assert whole or 16 * n_left * n_right > max_bytes // 2


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that torch holds at once; what an operation takes inside it is not seen."""

    def __init__(self):
        super().__init__()
        self.live, self.peak, self.seen = 0, 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage):
        key = storage._cdata
        if key not in self.seen:
            self.seen.add(key)
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._freed, key, storage.nbytes())

    def _freed(self, key, size):
        self.seen.discard(key)
        self.live -= size


def peak_bytes(left, right, *, kind, max_bytes):
    with LiveBytes() as counted:
        tile(left, right, kind=kind, max_bytes=max_bytes)
    return counted.peak


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_bytes", [2**17, 2**21])
@pytest.mark.parametrize("same", [True, False])
def test_tensors_stay_under_the_limit(kind, max_bytes, same):
    left, right = rows(0, 100, 20_000), rows(1, 80, 20_000)
    peak = peak_bytes(left, left if same else right, kind=kind, max_bytes=max_bytes)
    assert max_bytes / 4 < peak <= max_bytes


def test_a_tile_larger_than_the_limit_is_made_of_blocks():
    J = rows(0, 200, 300)
    max_bytes = 2**17
    assert J.shape[0] ** 2 * 8 > max_bytes
    np.testing.assert_allclose(tile(J, J, max_bytes=max_bytes), reference(J, J), rtol=1e-12, atol=1e-11)
    assert peak_bytes(J, J, kind="sgd", max_bytes=max_bytes) <= max_bytes


# --- what is refused


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("max_bytes", [500, 2**20])
def test_names_the_row_that_is_not_finite(bad, kind, side, max_bytes):
    sides = [rows(0, 9, 30), rows(1, 9, 30)]
    sides[side][7, 17] = bad
    with pytest.raises(NonFiniteError, match="row 7"):
        tile(*sides, kind=kind, max_bytes=max_bytes)


def test_names_a_row_of_both_sides():
    J = rows(0, 9, 30, np.float16)
    J[7, 29] = np.inf
    with pytest.raises(NonFiniteError, match="row 7"):
        tile(J, J, kind="sign", max_bytes=500)


def test_refuses_rows_of_different_groups():
    with pytest.raises(KernelShapeError, match="same group"):
        tile(rows(0, 2, 3), rows(0, 2, 4))


# --- TF32


@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize("before", ["ieee", "tf32", "none"])
def test_tf32_is_as_asked_for_inside_and_as_it_was_afterwards(allowed, before):
    backend = torch.backends.cuda.matmul
    usual = backend.fp32_precision
    backend.fp32_precision = before
    try:
        with pytest.raises(ZeroDivisionError), tf32_products(allowed):
            assert backend.fp32_precision == ("tf32" if allowed else "ieee")
            raise ZeroDivisionError
        assert backend.fp32_precision == before
    finally:
        backend.fp32_precision = usual


def test_tf32_of_older_versions_of_torch(monkeypatch):
    class Older:
        allow_tf32 = True

    monkeypatch.setattr(torch.backends.cuda, "matmul", Older())
    with tf32_products(False):
        assert torch.backends.cuda.matmul.allow_tf32 is False
    assert torch.backends.cuda.matmul.allow_tf32 is True
