"""Tiles of rows that processes of a group hold apart are those of rows that one process has."""

from functools import partial
from typing import Any

import numpy as np
import pytest

from finetune.parallel.process_group import ProcessGroup
from finetune.parallel.processes import joined_group
from ntk_dist.kernel.gram import gram_diagonal, gram_tile
from orchestrator.stages.gram.divided import DividedProducts
from tests.forked_group import run_forked_group

PER_EXAMPLE, WIDTHS = 6, (5, 30)
"""Rows of the Jacobian of an example, and parameters of the two groups of a block."""

KINDS = [("sgd", 1), ("sign", 1), ("asymmetric_sign", 1), ("sgd", 3), ("sign", 2)]
"""Kinds of kernels, and rows of the Jacobian of each row of the kernel."""


def rows_of(n: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n * PER_EXAMPLE, width)) for width in WIDTHS]


def owned(n: int, size: int) -> list[np.ndarray]:
    """Return uneven shares, which do not lie one after the other; the last process of several has none."""
    order = np.random.default_rng(n).permutation(n)
    shares = np.split(order, [n // 2] + [n] * (size - 2)) if size > 1 else [order]
    return [np.sort(share) for share in shares]


def summed(pairs: Any, **options: Any) -> np.ndarray:
    return np.sum([gram_tile(left, right, **options) for left, right in pairs], axis=0)


def own_rows(rows: np.ndarray, positions: np.ndarray) -> np.ndarray:
    return rows.reshape(-1, PER_EXAMPLE, rows.shape[1])[positions].reshape(-1, rows.shape[1])


def divided_tiles(n: int, m: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return for every kind of kernel the tiles of n by m and of n by n examples, and the diagonal blocks of n."""
    found = []
    with joined_group() as group:
        for kind, R in KINDS:
            products = partial(_products, group, kernel_rows=PER_EXAMPLE // R)
            options = {"kind": kind, "outputs_per_example": R}
            multiply = partial(summed, **options)
            left = [own_rows(rows, owned(n, group.size)[group.rank]) for rows in rows_of(n, 0)]
            right = [own_rows(rows, owned(m, group.size)[group.rank]) for rows in rows_of(m, 1)]
            same = products(n, n, mirrored=kind != "asymmetric_sign")

            def blocks(examples: int, left: Any = left, options: Any = options, R: int = R) -> np.ndarray:
                assert len(left[0]) == examples * PER_EXAMPLE
                made = [gram_diagonal(each, kernel_rows=PER_EXAMPLE // R, **options) for each in left]
                return np.sum(made, axis=0)[None]

            found.append((
                products(n, m, mirrored=False).tile(list(zip(left, right, strict=True)), multiply),
                same.tile([(each, each) for each in left], multiply),
                same.diagonals(1, blocks)[0],
            ))  # fmt: skip
    return found


def _products(group: ProcessGroup, n: int, m: int, *, kernel_rows: int, mirrored: bool) -> DividedProducts:
    return DividedProducts(group, owned(n, group.size), owned(m, group.size), kernel_rows, PER_EXAMPLE, mirrored)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_tiles_and_diagonals_are_those_of_all_rows(size: int):
    n, m = 7, 4
    first, *_ = run_forked_group(size, divided_tiles, n, m)
    for (kind, R), (tile, square, diagonal) in zip(KINDS, first, strict=True):
        options: dict[str, Any] = {"kind": kind, "outputs_per_example": R}
        left, right = rows_of(n, 0), rows_of(m, 1)
        np.testing.assert_allclose(tile, summed(zip(left, right, strict=True), **options), rtol=1e-12, atol=1e-12)
        expected = summed([(each, each) for each in left], **options)
        np.testing.assert_allclose(square, expected, rtol=1e-12, atol=1e-12)
        if kind != "asymmetric_sign":
            assert (square == square.T).all()
            k = PER_EXAMPLE // R
            own = np.stack([expected[i * k : (i + 1) * k, i * k : (i + 1) * k] for i in range(n)])
            np.testing.assert_allclose(diagonal, own, rtol=1e-12, atol=1e-12)
