"""Metrics of predictions by scikit-learn and scipy, for every lambda of a path."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import NearConstantInputWarning, pearsonr, spearmanr

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.integer]


def classification_metrics(scores: FloatArray, labels: IntArray) -> dict[str, FloatArray]:
    """Return accuracy, Matthews correlation ("mcc") and macro F1 ("f1"), each (L,), of scores (L, n, C).

    The class is the highest score (the first of equals); with C = 1 the score is the margin of class 1 over
    class 0. mcc is the multi-class one of Gorodkin (2004), 0 where it is undefined; F1 is averaged over the
    classes that occur in labels (n,) or predictions. nan where a score is not finite.

    Raises ValueError for a label outside 0..C-1.
    """
    n_classes = max(scores.shape[2], 2)
    if labels.size and not (labels.min() >= 0 and labels.max() < n_classes):
        raise ValueError(f"labels must lie in 0..{n_classes - 1}, got {labels.min()}..{labels.max()}")
    predicted = (scores[:, :, 0] > 0).astype(np.int64) if scores.shape[2] == 1 else scores.argmax(axis=2)
    metrics = {
        "accuracy": (predicted == labels).mean(axis=1),
        "mcc": _mcc(predicted, labels),
        "f1": _macro_f1(predicted, labels, n_classes),
    }
    unusable = ~np.isfinite(scores).all(axis=(1, 2))
    return {name: np.where(unusable, np.nan, values) for name, values in metrics.items()}


def regression_metrics(predictions: FloatArray, targets: FloatArray) -> dict[str, FloatArray]:
    """Return mse, mae, pearson, spearman and r2, each (L,), of predictions (L, n) against targets (n,).

    Correlations are nan where predictions or targets are constant, r2 where targets are; everything is nan
    where a prediction is not finite.
    """
    from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

    unusable: npt.NDArray[np.bool_] = np.asarray(~np.isfinite(predictions).all(axis=1))
    predictions = np.where(unusable[:, None], 0.0, predictions)
    # A path is a regression with one output a lambda.
    outputs = (np.broadcast_to(targets[:, None], predictions.T.shape), predictions.T)
    nowhere = np.full(len(predictions), np.nan)
    metrics = {
        "mse": mean_squared_error(*outputs, multioutput="raw_values"),
        "mae": mean_absolute_error(*outputs, multioutput="raw_values"),
        "pearson": _correlation(pearsonr, predictions, targets),
        "spearman": _correlation(spearmanr, predictions, targets),
        "r2": r2_score(*outputs, multioutput="raw_values") if np.ptp(targets) else nowhere,
    }
    return {name: np.where(unusable, np.nan, values) for name, values in metrics.items()}


def majority_accuracy(train_labels: IntArray, eval_labels: IntArray) -> float:
    """Return the accuracy on eval_labels of the commonest train label (the first of equals)."""
    values, counts = np.unique(train_labels, return_counts=True)
    return float(np.mean(eval_labels == values[counts.argmax()]))


def _mcc(predicted: IntArray, labels: IntArray) -> FloatArray:
    from sklearn.metrics import matthews_corrcoef

    # Of constants there is no correlation, and scikit-learn may warn of them.
    varied = (np.ptp(predicted, axis=1) > 0) & (np.ptp(labels) > 0)
    return np.array([matthews_corrcoef(labels, p) if v else 0.0 for p, v in zip(predicted, varied, strict=True)])


def _macro_f1(predicted: IntArray, labels: IntArray, n_classes: int) -> FloatArray:
    from sklearn.metrics import f1_score

    # A yes or no for each lambda and class: one call for all, as nearly all of its time goes into checks.
    classes = np.arange(n_classes)
    said = (predicted.T[:, :, None] == classes).reshape(len(labels), -1)
    true = np.tile(labels[:, None] == classes, len(predicted))
    f1 = f1_score(true, said, average=None, zero_division=np.nan).reshape(len(predicted), n_classes)
    macro: FloatArray = np.nanmean(f1, axis=1)
    return macro


def _correlation(measure: Callable[..., Any], predictions: FloatArray, targets: FloatArray) -> FloatArray:
    """Return the correlation of each row of predictions (L, n) with targets (n,), nan where either is constant."""
    varied = (np.ptp(predictions, axis=1) > 0) & (np.ptp(targets) > 0)
    # scipy warns of a spread that is small beside the mean, and of the p-values of two points.
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore", NearConstantInputWarning)
        found = [measure(p, targets).statistic if v else np.nan for p, v in zip(predictions, varied, strict=True)]
    return np.array(found)
