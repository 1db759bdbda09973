import numpy as np
import pytest

from finetune.analysis.probe import fit_head
from finetune.data.targets import code_targets
from finetune.errors import ProbeError


def problem(n_outputs: int):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % n_outputs
    features = rng.normal(size=(60, 5)) + 0.7 * labels[:, None]
    return features, labels, code_targets(labels, kind="classification", n_outputs=n_outputs, outputs="trace")


@pytest.mark.parametrize("n_outputs", [2, 3])
def test_ridge_solves_its_normal_equations(n_outputs):
    features, labels, targets = problem(n_outputs)
    head = fit_head("ridge", features, labels, targets, l2_penalty=3.0)
    assert head["weight"].shape == (n_outputs, 5)
    residual = features @ head["weight"].T + head["bias"] - targets
    np.testing.assert_allclose(features.T @ residual + 3.0 * head["weight"].T, 0, atol=1e-9)
    np.testing.assert_allclose(residual.sum(axis=0), 0, atol=1e-9)


def test_ridge_on_ratings():
    features, labels, _ = problem(2)
    head = fit_head("ridge", features, labels, labels[:, None] * 2.5, l2_penalty=1.0)
    assert head["weight"].shape == (1, 5)
    assert head["bias"].shape == (1,)


@pytest.mark.parametrize("n_outputs", [2, 3])
def test_logistic_is_a_stationary_point_of_the_cross_entropy(n_outputs):
    features, labels, targets = problem(n_outputs)
    head = fit_head("logistic", features, labels, targets, l2_penalty=2.0)
    assert head["weight"].shape == (n_outputs, 5)
    logits = features @ head["weight"].T + head["bias"]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    slope = (probabilities - (targets == 1)).T @ features
    # two classes share the weights of one log-odds, so that its penalty counts twice in each
    factor = 2.0 if n_outputs == 2 else 1.0
    np.testing.assert_allclose(slope + factor * 2.0 * head["weight"], 0, atol=0.05)
    assert (logits.argmax(axis=1) == labels).mean() > 0.5


def test_a_class_without_an_example():
    features, _, targets = problem(3)
    with pytest.raises(ProbeError, match="class 2 has none"):
        fit_head("logistic", features, np.arange(60) % 2, targets, l2_penalty=1.0)


def test_features_that_are_not_finite():
    features, labels, targets = problem(2)
    features[7, 2] = np.inf
    with pytest.raises(ProbeError, match="training example 7"):
        fit_head("ridge", features, labels, targets, l2_penalty=1.0)


def test_a_fit_that_does_not_converge(monkeypatch):
    monkeypatch.setattr("finetune.analysis.probe._MOST_ITERATIONS", 1)
    features, labels, targets = problem(3)
    with pytest.raises(ProbeError, match="does not converge; raise its penalty"):
        fit_head("logistic", features, labels, targets, l2_penalty=1e-6)
