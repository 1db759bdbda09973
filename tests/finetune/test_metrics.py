"""Metrics of a whole path against scikit-learn and scipy, one lambda at a time."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from finetune.metrics import classification_metrics, majority_accuracy, regression_metrics

SEEDS = st.integers(0, 10_000)


@given(SEEDS, st.integers(1, 3), st.integers(1, 25), st.integers(2, 5))
def test_classification_is_scikit_learns(seed, L, n, C):
    rng = np.random.default_rng(seed)
    scores, labels = rng.standard_normal((L, n, C)), rng.integers(0, rng.integers(1, C + 1), n)
    actual = classification_metrics(scores, labels)
    predictions = scores.argmax(axis=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of single labels
        np.testing.assert_allclose(actual["accuracy"], [metrics.accuracy_score(labels, y) for y in predictions])
        expected = [metrics.matthews_corrcoef(labels, y) for y in predictions]
        np.testing.assert_allclose(actual["mcc"], expected, atol=1e-12)
        expected = [metrics.f1_score(labels, y, average="macro") for y in predictions]
        np.testing.assert_allclose(actual["f1"], expected, atol=1e-12)


@given(SEEDS)
def test_one_column_is_the_margin_of_class_one(seed):
    rng = np.random.default_rng(seed)
    margin, labels = rng.standard_normal((2, 9, 1)), rng.integers(0, 2, 9)
    two_columns = np.concatenate([np.zeros_like(margin), margin], axis=2)
    expected = classification_metrics(two_columns, labels)
    for name, values in classification_metrics(margin, labels).items():
        np.testing.assert_array_equal(values, expected[name])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_spoil_their_own_lambda_alone(bad):
    scores = np.zeros((2, 3, 2))
    scores[0, 1, 1] = bad
    for values in classification_metrics(scores, np.array([0, 0, 0])).values():
        assert np.isnan(values[0])
        assert np.isfinite(values[1])


@pytest.mark.parametrize("label", [-1, 2])
def test_refuses_labels_outside_the_scores(label):
    with pytest.raises(ValueError, match=r"0\.\.1"):
        classification_metrics(np.zeros((1, 2, 2)), np.array([0, label]))


@given(SEEDS, st.integers(1, 3), st.integers(3, 25), st.booleans())
def test_regression_is_scipys(seed, L, n, ties):
    rng = np.random.default_rng(seed)
    predictions, targets = rng.standard_normal((L, n)), rng.standard_normal(n)
    if ties:
        predictions, targets = np.round(predictions), np.round(targets)
    if np.ptp(targets) == 0 or (np.ptp(predictions, axis=1) == 0).any():
        return
    actual = regression_metrics(predictions, targets)
    for name, reference in {
        "mse": lambda y: metrics.mean_squared_error(targets, y),
        "mae": lambda y: metrics.mean_absolute_error(targets, y),
        "pearson": lambda y: stats.pearsonr(y, targets).statistic,
        "spearman": lambda y: stats.spearmanr(y, targets).statistic,
        "r2": lambda y: metrics.r2_score(targets, y),
    }.items():
        np.testing.assert_allclose(actual[name], [reference(y) for y in predictions], atol=1e-10)


@pytest.mark.filterwarnings("error")
def test_constants_have_no_correlation():
    varied, constant = np.array([1.0, 2.0, 4.0]), np.full(3, 0.1)
    result = regression_metrics(np.stack([constant, varied]), varied)
    np.testing.assert_allclose(result["pearson"], [np.nan, 1.0])
    np.testing.assert_allclose(result["spearman"], [np.nan, 1.0])
    result = regression_metrics(varied[None], constant)
    assert all(np.isnan(result[name][0]) for name in ("pearson", "spearman", "r2"))
    assert np.isfinite(result["mse"][0])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_predictions_that_are_not_finite_spoil_their_own_lambda_alone(bad):
    result = regression_metrics(np.array([[1.0, bad, 2.0], [1.0, 3.0, 2.0]]), np.array([1.0, 3.0, 2.0]))
    for values in result.values():
        assert np.isnan(values[0])
        assert np.isfinite(values[1])


def test_majority():
    assert majority_accuracy(np.array([1, 1, 0, 2]), np.array([1, 0, 1, 1])) == 0.75
    assert majority_accuracy(np.array([1, 0]), np.array([1, 0, 0])) == pytest.approx(2 / 3)
