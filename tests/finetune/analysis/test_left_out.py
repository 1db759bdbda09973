"""Probes without one of their training examples, against probes fitted again without it."""

import numpy as np
import pytest

from finetune.analysis.left_out import LeftOut, ridge_hat, ridge_left_out
from finetune.analysis.logistic_refits import logistic_refits
from finetune.analysis.probe import fit_head
from finetune.errors import ProbeError
from tests.finetune.analysis.probes import logistic, ridge


def logits_without(found: LeftOut, logits: np.ndarray, i: int) -> np.ndarray:
    return logits - found.features @ (found.directions[i].T @ found.changes[i])


@pytest.mark.parametrize("l2_penalty", [1e-9, 0.5, 1e3])
@pytest.mark.parametrize("shape", [(9, 3), (9, 8), (9, 20), (2, 3)])
def test_ridge_is_what_fitting_again_without_the_example_gives(shape, l2_penalty):
    rng = np.random.default_rng(0)
    x, t = 3 + rng.normal(size=shape), rng.normal(size=(shape[0], 2))
    found = ridge_left_out(*ridge_hat(x, t, l2_penalty))
    logits = ridge(x, t, l2_penalty, x)
    for i in range(len(x)):
        rest = np.arange(len(x)) != i
        expected = ridge(x[rest], t[rest], l2_penalty, x)
        np.testing.assert_allclose(
            logits_without(found, logits, i), expected, rtol=0, atol=1e-12 / min(l2_penalty, 1) ** 0.5
        )


def test_the_factor_is_that_of_the_hat_matrix():
    x = np.random.default_rng(1).normal(size=(7, 3))
    factor, _ = ridge_hat(x, np.zeros((7, 1)), 0.5)
    np.testing.assert_allclose(factor @ factor.T, ridge(x, np.eye(7), 0.5, x), atol=1e-14)


def test_nothing_is_left_of_one_example():
    _, changes = ridge_hat(np.ones((1, 3)), np.ones((1, 2)), 1.0)
    assert np.isnan(changes).all()


@pytest.mark.parametrize("l2_penalty", [1e-3, 1.0])
@pytest.mark.parametrize(("n", "d", "C"), [(24, 4, 2), (24, 4, 3), (15, 40, 3)])
def test_logistic_is_what_fitting_again_without_the_example_gives(n, d, C, l2_penalty):
    rng = np.random.default_rng(2)
    labels = np.arange(n) % C
    x = rng.normal(size=(n, d)) + 0.8 * labels[:, None]
    head = fit_head("logistic", x, labels, np.zeros((n, C)), l2_penalty=l2_penalty)
    logits = x @ head["weight"].T + head["bias"]
    found = logistic_refits(x, labels, head["weight"], head["bias"], l2_penalty=l2_penalty)
    for i in (0, 7, n - 1):
        rest = np.arange(n) != i
        expected = logistic(x[rest], labels[rest], C, l2_penalty, x)
        np.testing.assert_allclose(
            logits_without(found, logits, i), expected, rtol=0, atol=max(1e-9, 1e-10 / l2_penalty)
        )


def test_refits_in_chunks_are_those_of_one_piece(monkeypatch):
    rng = np.random.default_rng(3)
    labels = np.arange(12) % 2
    x = rng.normal(size=(12, 3)) + labels[:, None]
    head = fit_head("logistic", x, labels, np.zeros((12, 2)), l2_penalty=0.1)

    def directions() -> np.ndarray:
        return logistic_refits(x, labels, head["weight"], head["bias"], l2_penalty=0.1).directions

    whole = directions()
    monkeypatch.setattr("finetune.analysis.logistic_refits._CHUNK", 1)
    np.testing.assert_allclose(directions(), whole, rtol=0, atol=1e-11)


def test_a_refit_that_does_not_converge(monkeypatch):
    monkeypatch.setattr("finetune.analysis.logistic_refits._MOST_STEPS", 1)
    rng = np.random.default_rng(4)
    labels = np.arange(12) % 2
    x = rng.normal(size=(12, 3)) + labels[:, None]
    with pytest.raises(ProbeError, match="without one of its training examples does not converge"):
        logistic_refits(x, labels, np.zeros((2, 3)), np.zeros(2), l2_penalty=0.1)
