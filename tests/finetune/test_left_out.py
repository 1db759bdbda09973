"""Probes without one of their training examples, against probes fitted again without it."""

import numpy as np
import pytest

from finetune.errors import ProbeError
from finetune.left_out import LeftOut, ridge_hat, ridge_left_out
from finetune.logistic_refits import logistic_refits
from finetune.probe import fit_head


def logits_without(found: LeftOut, logits: np.ndarray, i: int) -> np.ndarray:
    return logits - found.features @ (found.directions[i].T @ found.changes[i])


@pytest.mark.parametrize("penalty", [1e-9, 0.5, 1e3])
@pytest.mark.parametrize("shape", [(9, 3), (9, 8), (9, 20), (2, 3)])
def test_ridge_is_what_fitting_again_without_the_example_gives(shape, penalty):
    rng = np.random.default_rng(0)
    x, t = 3 + rng.normal(size=shape), rng.normal(size=(shape[0], 2))
    found = ridge_left_out(*ridge_hat(x, t, penalty))
    logits = ridge(x, t, penalty, x)
    for i in range(len(x)):
        rest = np.arange(len(x)) != i
        expected = ridge(x[rest], t[rest], penalty, x)
        np.testing.assert_allclose(
            logits_without(found, logits, i), expected, rtol=0, atol=1e-12 / min(penalty, 1) ** 0.5
        )


def ridge(x: np.ndarray, t: np.ndarray, penalty: float, points: np.ndarray) -> np.ndarray:
    """Least squares with rows that stand for the penalty."""
    mean = x.mean(axis=0)
    rows = np.vstack([x - mean, np.sqrt(penalty) * np.eye(x.shape[1])])
    right = np.vstack([t - t.mean(axis=0), np.zeros((x.shape[1], t.shape[1]))])
    return (points - mean) @ np.linalg.lstsq(rows, right, rcond=None)[0] + t.mean(axis=0)


def test_the_factor_is_that_of_the_hat_matrix():
    x = np.random.default_rng(1).normal(size=(7, 3))
    factor, _ = ridge_hat(x, np.zeros((7, 1)), 0.5)
    np.testing.assert_allclose(factor @ factor.T, ridge(x, np.eye(7), 0.5, x), atol=1e-14)


def test_nothing_is_left_of_one_example():
    _, changes = ridge_hat(np.ones((1, 3)), np.ones((1, 2)), 1.0)
    assert np.isnan(changes).all()


@pytest.mark.parametrize("penalty", [1e-3, 1.0])
@pytest.mark.parametrize(("n", "d", "C"), [(24, 4, 2), (24, 4, 3), (15, 40, 3)])
def test_logistic_is_what_fitting_again_without_the_example_gives(n, d, C, penalty):
    rng = np.random.default_rng(2)
    labels = np.arange(n) % C
    x = rng.normal(size=(n, d)) + 0.8 * labels[:, None]
    head = fit_head("logistic", x, labels, np.zeros((n, C)), penalty=penalty)
    logits = x @ head["weight"].T + head["bias"]
    found = logistic_refits(x, labels, head["weight"], head["bias"], penalty=penalty)
    for i in (0, 7, n - 1):
        rest = np.arange(n) != i
        expected = logistic(x[rest], labels[rest], C, penalty, x)
        tolerance = 1e-12 / min(penalty, 1) ** 0.5
        np.testing.assert_allclose(logits_without(found, logits, i), expected, rtol=0, atol=tolerance)


def ridge(x: np.ndarray, t: np.ndarray, penalty: float, points: np.ndarray) -> np.ndarray:
    """Least squares with rows that stand for the penalty."""
    mean = x.mean(axis=0)
    rows = np.vstack([x - mean, np.sqrt(penalty) * np.eye(x.shape[1])])
    right = np.vstack([t - t.mean(axis=0), np.zeros((x.shape[1], t.shape[1]))])
    return (points - mean) @ np.linalg.lstsq(rows, right, rcond=None)[0] + t.mean(axis=0)


def test_the_factor_is_that_of_the_hat_matrix():
    x = np.random.default_rng(1).normal(size=(7, 3))
    factor, _ = ridge_hat(x, np.zeros((7, 1)), 0.5)
    np.testing.assert_allclose(factor @ factor.T, ridge(x, np.eye(7), 0.5, x), atol=1e-14)


def test_nothing_is_left_of_one_example():
    _, changes = ridge_hat(np.ones((1, 3)), np.ones((1, 2)), 1.0)
    assert np.isnan(changes).all()


@pytest.mark.parametrize("penalty", [1e-3, 1.0])
@pytest.mark.parametrize(("n", "d", "C"), [(24, 4, 2), (24, 4, 3), (15, 40, 3)])
def test_logistic_is_what_fitting_again_without_the_example_gives(n, d, C, penalty):
    rng = np.random.default_rng(2)
    labels = np.arange(n) % C
    x = rng.normal(size=(n, d)) + 0.8 * labels[:, None]
    head = fit_head("logistic", x, labels, np.zeros((n, C)), penalty=penalty)
    logits = x @ head["weight"].T + head["bias"]
    found = logistic_refits(x, labels, head["weight"], head["bias"], penalty=penalty)
    for i in (0, 7, n - 1):
        rest = np.arange(n) != i
        expected = logistic(x[rest], labels[rest], C, penalty, x)
        np.testing.assert_allclose(logits_without(found, logits, i), expected, rtol=0, atol=max(1e-9, 1e-10 / penalty))


def logistic(x: np.ndarray, labels: np.ndarray, C: int, penalty: float, points: np.ndarray) -> np.ndarray:
    """The probe by Newton's method from zero, its Hessian put together; weights alone are penalised."""
    one, onehot = np.column_stack([x, np.ones(len(x))]), np.eye(C)[labels]
    strength = (2 if C == 2 else 1) * penalty * np.append(np.ones(x.shape[1]), 0.0)
    theta = np.zeros((C, one.shape[1]))

    def slope_of(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        powers = np.exp(one @ theta.T - (one @ theta.T).max(axis=1, keepdims=True))
        p = powers / powers.sum(axis=1, keepdims=True)
        return p, (p - onehot).T @ one + strength * theta

    for _ in range(60):
        p, slope = slope_of(theta)
        blocks = [[one.T * (p[:, a] * ((a == b) - p[:, b])) @ one for b in range(C)] for a in range(C)]
        hessian = np.block(blocks) + np.kron(np.eye(C), np.diag(strength))
        step = np.linalg.lstsq(hessian, slope.ravel(), rcond=1e-14)[0].reshape(theta.shape)
        length = 1.0
        while length > 1e-3 and np.linalg.norm(slope_of(theta - length * step)[1]) > np.linalg.norm(slope):
            length /= 2
        theta = theta - length * step
    assert np.abs(slope_of(theta)[1]).max() < 1e-11
    return np.column_stack([points, np.ones(len(points))]) @ theta.T


def test_refits_in_chunks_are_those_of_one_piece(monkeypatch):
    rng = np.random.default_rng(3)
    labels = np.arange(12) % 2
    x = rng.normal(size=(12, 3)) + labels[:, None]
    head = fit_head("logistic", x, labels, np.zeros((12, 2)), penalty=0.1)

    def directions() -> np.ndarray:
        return logistic_refits(x, labels, head["weight"], head["bias"], penalty=0.1).directions

    whole = directions()
    monkeypatch.setattr("finetune.logistic_refits._CHUNK", 1)
    np.testing.assert_allclose(directions(), whole, rtol=0, atol=1e-11)


def test_a_refit_that_does_not_converge(monkeypatch):
    monkeypatch.setattr("finetune.logistic_refits._MOST_STEPS", 1)
    rng = np.random.default_rng(4)
    labels = np.arange(12) % 2
    x = rng.normal(size=(12, 3)) + labels[:, None]
    with pytest.raises(ProbeError, match="without one of its training examples does not converge"):
        logistic_refits(x, labels, np.zeros((2, 3)), np.zeros(2), penalty=0.1)
