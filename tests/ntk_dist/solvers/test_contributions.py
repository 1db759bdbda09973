"""Contributions of blocks against dense solves with each block."""

import numpy as np
import pytest

from ntk_dist.solvers.band import reduce_symmetric
from ntk_dist.solvers.contributions import Contributions, KeptContributions, dual_bases
from ntk_dist.solvers.eigen import EigenDecomposition
from ntk_dist.solvers.primal import PrimalDecomposition
from ntk_dist.solvers.tridiagonal import TridiagonalDecomposition

LAMBDAS = np.array([1e-3, 0.2, 1.0, 40.0])
WIDTHS = (7, 4, 9)


def blocks_of(M: int, scale: float = 1.0) -> list[np.ndarray]:
    draw = np.random.default_rng(M)
    return [scale**i * draw.standard_normal((M, width)) for i, width in enumerate(WIDTHS)]


def dense(blocks: list[np.ndarray], r: np.ndarray) -> Contributions:
    """Each block's d_g and J_g d_g of d = (J^T J + lambda I)^{-1} J^T r, by a dense solve for each lambda."""
    J, moved, distance = np.hstack(blocks), [], []
    for value in LAMBDAS:
        d = np.linalg.solve(J.T @ J + value * np.eye(J.shape[1]), J.T @ r)
        parts = np.split(d, np.cumsum(WIDTHS)[:-1])
        each = zip(blocks, parts, strict=True)
        moved.append([np.sum((own @ part) * (J @ d)) / np.sum((J @ d) ** 2) for own, part in each])
        distance.append([np.sum(part**2) / np.sum(d**2) for part in parts])
    return Contributions(np.array(moved), np.array(distance))


def rounding(blocks: list[np.ndarray], r: np.ndarray) -> np.ndarray:
    """What the roundings of K leave of a^T K a, relative to it, where a has a part of size |r| / lambda that K does not
    see: (L, 1)."""
    J = np.hstack(blocks)
    d = [np.linalg.solve(J.T @ J + value * np.eye(J.shape[1]), J.T @ r) for value in LAMBDAS]
    a = [(r - J @ each) / value for each, value in zip(d, LAMBDAS, strict=True)]
    eps, size = np.finfo(np.float64).eps, np.linalg.norm(J, 2) ** 2
    return np.array([[eps * size * np.sum(each**2) / np.sum(d[i] ** 2)] for i, each in enumerate(a)])


def check(found: Contributions, blocks: list[np.ndarray], r: np.ndarray, allowed: float | np.ndarray = 0.0) -> None:
    expected = dense(blocks, r)
    np.testing.assert_allclose(found.moved, expected.moved, rtol=0, atol=1e-10)
    assert (np.abs(found.distance - expected.distance) <= 1e-10 + allowed).all()
    for shares in (found.moved, found.distance):
        np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=0, atol=1e-12)
    assert ((found.distance >= 0) & (found.distance <= 1)).all()


@pytest.mark.parametrize("decompose", [EigenDecomposition, TridiagonalDecomposition, reduce_symmetric])
@pytest.mark.parametrize(("M", "k"), [(12, 1), (31, 1), (12, 3)])
def test_shares_are_those_of_each_blocks_products(decompose, M: int, k: int):
    blocks, r = blocks_of(M), np.random.default_rng(k).standard_normal((M, k))
    K = sum(J @ J.T for J in blocks)
    kept = decompose(np.asfortranarray(K)).keep(r, iter([np.eye(M)]))
    (W,) = dual_bases(kept).transpose(1, 0, 2)
    found = KeptContributions(np.array([[(J.T @ W).T @ (J.T @ W)] for J in blocks]))
    again = KeptContributions.from_arrays(found.arrays())
    check(again.along(kept.ridge_path(r, LAMBDAS), kept), blocks, r, rounding(blocks, r) if sum(WIDTHS) < M else 0.0)


@pytest.mark.parametrize("decompose", [EigenDecomposition, TridiagonalDecomposition])
@pytest.mark.parametrize("k", [1, 3])
def test_shares_of_a_decomposition_of_the_parameters_are_the_same(decompose, k: int):
    M = 31
    blocks, r = blocks_of(M), np.random.default_rng(k).standard_normal((M, k))
    J = np.hstack(blocks)
    decomposition = PrimalDecomposition(lambda: iter([J]), *J.shape, decompose=decompose)
    kept = decomposition.keep(r, iter([J]))
    W = np.split(decomposition.weights(kept.basis), np.cumsum(WIDTHS)[:-1])
    forms = np.array([[part.T @ part] for part in W])
    products = np.array([[kept.train.T @ (own @ part)] for own, part in zip(blocks, W, strict=True)])
    found = KeptContributions.from_arrays(KeptContributions(forms, products).arrays())
    check(found.along(kept.ridge_path(r, LAMBDAS), kept), blocks, r)


def test_a_share_may_be_negative_or_above_one():
    """Two blocks that move the outputs against each other."""
    K = [np.diag([1.0, 0.0]), np.array([[1.0, 0.9], [0.9, 1.0]])]
    r = np.array([[0.1], [1.0]])
    kept = EigenDecomposition(np.asfortranarray(K[0] + K[1])).keep(r, iter([np.eye(2)]))
    (W,) = dual_bases(kept).transpose(1, 0, 2)
    found = KeptContributions(np.array([[W.T @ part @ W] for part in K])).along(
        kept.ridge_path(r, np.array([1e-4])), kept
    )
    a = np.linalg.solve(K[0] + K[1] + 1e-4 * np.eye(2), r)
    whole = (K[0] + K[1]) @ a
    expected = [float(((part @ a) * whole).sum() / (whole**2).sum()) for part in K]
    assert min(expected) < 0
    assert max(expected) > 1
    np.testing.assert_allclose(found.moved[0], expected, rtol=1e-10)
    np.testing.assert_allclose(found.moved.sum(), 1, atol=1e-12)


def test_shares_add_up_where_the_kernel_is_singular_and_lambda_small():
    M = 60
    blocks, r = blocks_of(M, scale=1e-3), np.random.default_rng(1).standard_normal((M, 1))
    kept = EigenDecomposition(np.asfortranarray(sum(J @ J.T for J in blocks))).keep(r, iter([np.eye(M)]))
    (W,) = dual_bases(kept).transpose(1, 0, 2)
    forms = np.array([[(J.T @ W).T @ (J.T @ W)] for J in blocks])
    found = KeptContributions(forms).along(kept.ridge_path(r, np.array([1e-8, 1e-4])), kept)
    np.testing.assert_allclose(found.moved.sum(axis=1), 1, rtol=0, atol=1e-12)
    # with J as it is, without the roundings of K
    J = np.hstack(blocks)
    for value, moved in zip([1e-8, 1e-4], found.moved, strict=True):
        U, s, V = np.linalg.svd(J, full_matrices=False)
        d = np.split(V.T @ (s / (s**2 + value) * (U.T @ r[:, 0])), np.cumsum(WIDTHS)[:-1])
        parts = np.array([own @ part for own, part in zip(blocks, d, strict=True)])
        expected = parts @ parts.sum(axis=0) / np.sum(parts.sum(axis=0) ** 2)
        np.testing.assert_allclose(moved, expected, rtol=0, atol=1e-6)


def test_nothing_contributes_where_nothing_moves():
    K, r = np.eye(4), np.zeros((4, 1))
    kept = EigenDecomposition(np.asfortranarray(K)).keep(r, iter([K]))
    (W,) = dual_bases(kept).transpose(1, 0, 2)
    found = KeptContributions(np.array([[W.T @ W]])).along(kept.ridge_path(r, LAMBDAS), kept)
    assert np.isnan(found.moved).all()
    assert np.isnan(found.distance).all()
