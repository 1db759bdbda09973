"""Metrics of a whole path: values computed by hand, and what becomes of a lambda without a number."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn import metrics

from finetune.data.metrics import classification_metrics, majority_accuracy, regression_metrics

pytestmark = pytest.mark.filterwarnings("error")

SEEDS = st.integers(0, 10_000)


def test_classification_by_hand():
    labels, predictions = np.array([0, 0, 1, 2]), np.array([[0, 1, 1, 1], [0, 0, 1, 2], [0, 0, 0, 0]])
    result = classification_metrics(np.eye(4)[predictions], labels)  # nobody says class 3: no F1 to average
    np.testing.assert_allclose(result["accuracy"], [1 / 2, 1, 1 / 2])
    np.testing.assert_allclose(result["mcc"], [(2 * 4 - (2 * 1 + 1 * 3)) / np.sqrt((16 - 6) * (16 - 10)), 1, 0])
    np.testing.assert_allclose(result["f1"], [(2 / 3 + 2 / 4 + 0) / 3, 1, (4 / 6 + 0 + 0) / 3])


def test_one_class_alone_has_no_matthews_correlation():
    labels, predictions = np.array([1, 1, 1]), np.array([[1, 1, 1], [0, 0, 0], [1, 0, 0]])
    result = classification_metrics(np.eye(2)[predictions], labels)
    np.testing.assert_allclose(result["accuracy"], [1, 0, 1 / 3])
    np.testing.assert_array_equal(result["mcc"], [0, 0, 0])
    np.testing.assert_allclose(result["f1"], [1, 0, (2 / 4 + 0) / 2])


def test_of_equal_scores_the_first_is_the_class():
    result = classification_metrics(np.array([[[0.5, 0.5, 0.1], [0.1, 0.5, 0.5]]]), np.array([0, 1]))
    assert result["accuracy"] == 1


@given(SEEDS, st.integers(1, 3), st.integers(1, 25), st.integers(2, 5))
def test_classes_of_every_lambda_are_judged_as_scikit_learn_judges_them_alone(seed, L, n, C):
    rng = np.random.default_rng(seed)
    scores, labels = rng.standard_normal((L, n, C)), rng.integers(0, rng.integers(1, C + 1), n)
    scores[:, :, : rng.integers(1, C + 1)] += 1  # some classes are rarely said, or never
    said, result = scores.argmax(axis=2), classification_metrics(scores, labels)
    f1 = [metrics.f1_score(labels, y, average="macro", zero_division=0.0) for y in said]
    # Of constants there is no correlation, and scikit-learn warns of some.
    varied = [np.ptp(y) > 0 and np.ptp(labels) > 0 for y in said]
    mcc = [metrics.matthews_corrcoef(labels, y) if v else 0.0 for y, v in zip(said, varied, strict=True)]
    for name, expected in {"f1": f1, "mcc": mcc, "accuracy": (said == labels).mean(axis=1)}.items():
        np.testing.assert_allclose(result[name], expected, atol=1e-12)


@given(SEEDS, st.integers(1, 3), st.integers(2, 25), st.sampled_from([2, 5, 10**6]))
def test_numbers_of_every_lambda_are_judged_as_scipy_and_scikit_learn_judge_them_alone(seed, L, n, values):
    rng = np.random.default_rng(seed)
    targets, *predictions = rng.integers(0, values, (L + 1, n)) / 7  # few values have many ties
    result = regression_metrics(np.array(predictions), targets)
    for place, predicted in enumerate(predictions):
        varied = np.ptp(predicted) > 0 and np.ptp(targets) > 0
        expected = {
            "mse": metrics.mean_squared_error(targets, predicted),
            "mae": metrics.mean_absolute_error(targets, predicted),
            "r2": metrics.r2_score(targets, predicted) if np.ptp(targets) else np.nan,
            "pearson": pearsonr(predicted, targets).statistic if varied else np.nan,
            "spearman": spearmanr(predicted, targets).statistic if varied else np.nan,
        }
        for name, value in expected.items():
            np.testing.assert_allclose(result[name][place], value, rtol=1e-9, atol=1e-12)


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


def test_regression_by_hand():
    predictions, targets = np.array([[2.0, 2, 3, 5], [4, 3, 2, 1]]), np.array([1.0, 2, 3, 4])
    result = regression_metrics(predictions, targets)
    np.testing.assert_allclose(result["mse"], [2 / 4, 20 / 4])
    np.testing.assert_allclose(result["mae"], [2 / 4, 8 / 4])
    np.testing.assert_allclose(result["pearson"], [5 / np.sqrt(6 * 5), -1])
    np.testing.assert_allclose(result["spearman"], [4.5 / np.sqrt(4.5 * 5), -1])  # ranks 1.5, 1.5, 3 and 4
    np.testing.assert_allclose(result["r2"], [1 - 2 / 5, 1 - 20 / 5])


def test_two_points_lie_on_a_line():
    result = regression_metrics(np.array([[1.0, 5.0], [5.0, 1.0]]), np.array([0.0, 1.0]))
    np.testing.assert_allclose(result["pearson"], [1, -1])
    np.testing.assert_allclose(result["spearman"], [1, -1])


def test_one_example_has_errors_alone():
    result = regression_metrics(np.array([[3.0]]), np.array([1.0]))
    assert (result["mse"], result["mae"]) == (4, 2)
    assert all(np.isnan(result[name][0]) for name in ("pearson", "spearman", "r2"))


def test_a_spread_far_below_the_mean_still_has_a_correlation():
    result = regression_metrics(1e3 + 1e-12 * np.array([[-10.0, 0.0, 10.0]]), np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose([*result["pearson"], *result["spearman"]], 1, rtol=0.1)


def test_constants_have_no_correlation():
    varied, constant = np.array([1.0, 2.0, 4.0]), np.full(3, 0.1)
    result = regression_metrics(np.stack([constant, varied]), varied)
    np.testing.assert_allclose(result["pearson"], [np.nan, 1.0])
    np.testing.assert_allclose(result["spearman"], [np.nan, 1.0])
    result = regression_metrics(varied[None], constant)
    assert all(np.isnan(result[name][0]) for name in ("pearson", "spearman", "r2"))
    assert np.isfinite(result["mse"][0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_predictions_that_are_not_finite_spoil_their_own_lambda_alone(bad):
    result = regression_metrics(np.array([[1.0, bad, 2.0], [1.0, 3.0, 2.0]]), np.array([1.0, 3.0, 2.0]))
    for values in result.values():
        assert np.isnan(values[0])
        assert np.isfinite(values[1])


def test_majority():
    assert majority_accuracy(np.array([1, 1, 0, 2]), np.array([1, 0, 1, 1])) == 0.75
    assert majority_accuracy(np.array([1, 0]), np.array([1, 0, 0])) == pytest.approx(2 / 3)
