"""Metrics of predictions for every lambda of a path, in one pass over all of them.

scikit-learn and scipy define them, and the tests compare with both; their checks of one lambda at a time cost more than
the ridge path itself.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from ntk_dist.arrays import FloatArray, IntArray

FEW_CLASSES = 8
"""Classes up to which predictions are faster counted class by class."""


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
    said_class = scores[:, :, 0] > 0 if scores.shape[2] == 1 else scores.argmax(axis=2)
    # comparing bytes takes a fraction of the time
    counted: type[np.integer[Any]] = np.int8 if n_classes <= FEW_CLASSES else np.int64
    predicted = said_class.astype(counted)
    n = len(labels)
    right = predicted == labels.astype(counted)
    true = np.bincount(labels, minlength=n_classes).astype(np.float64)
    said, hits = _counts(predicted, right, n_classes)
    correct = hits.sum(axis=1)
    metrics = {
        "accuracy": correct / n,
        "mcc": _mcc(correct, true, said, n),
        "f1": _macro_f1(hits, true, said),
    }
    unusable = ~np.isfinite(scores).all(axis=(1, 2))
    return {name: np.where(unusable, np.nan, values) for name, values in metrics.items()}


def regression_metrics(predictions: FloatArray, targets: FloatArray) -> dict[str, FloatArray]:
    """Return mse, mae, pearson, spearman and r2, each (L,), of predictions (L, n) against targets (n,).

    Correlations are nan where predictions or targets are constant, r2 where targets are; everything is nan
    where a prediction is not finite.
    """
    from scipy.stats import rankdata

    unusable: npt.NDArray[np.bool_] = np.asarray(~np.isfinite(predictions).all(axis=1))
    predictions = np.where(unusable[:, None], 0.0, predictions)
    errors = predictions - targets
    mse = (errors**2).mean(axis=1)
    varied = (np.ptp(predictions, axis=1) > 0) & (np.ptp(targets) > 0)
    metrics = {
        "mse": mse,
        "mae": np.abs(errors).mean(axis=1),
        "pearson": np.where(varied, _correlation(predictions, targets), np.nan),
        "spearman": np.where(varied, _correlation(rankdata(predictions, axis=1), rankdata(targets)), np.nan),
        "r2": 1 - mse / targets.var() if np.ptp(targets) else np.full(len(predictions), np.nan),
    }
    return {name: np.where(unusable, np.nan, values) for name, values in metrics.items()}


def majority_accuracy(train_labels: IntArray, eval_labels: IntArray) -> float:
    """Return the accuracy on eval_labels of the most common train label (the first of equals)."""
    values, counts = np.unique(train_labels, return_counts=True)
    return float(np.mean(eval_labels == values[counts.argmax()]))


def _counts(predicted: IntArray, right: npt.NDArray[np.bool_], n_classes: int) -> tuple[FloatArray, FloatArray]:
    """Return how often each class was predicted, and rightly, (L, C) each, for predictions (L, n)."""
    said, hits = np.empty((2, len(predicted), n_classes))
    if n_classes > FEW_CLASSES:
        places = predicted + n_classes * np.arange(len(predicted))[:, None]
        for counts, weights in ((said, None), (hits, right.ravel())):
            counts[:] = np.bincount(places.ravel(), weights, minlength=said.size).reshape(said.shape)
        return said, hits
    for each in range(n_classes):
        chosen = predicted == each
        said[:, each] = np.count_nonzero(chosen, axis=1)
        hits[:, each] = np.count_nonzero(chosen & right, axis=1)
    return said, hits


def _mcc(right: FloatArray, true: FloatArray, said: FloatArray, n: int) -> FloatArray:
    """Return the correlation (L,) of labels and predictions from counts: right (L,), true (C,), said (L, C)."""
    together = right * n - said @ true
    # The variances are whole numbers, so that a constant has exactly none.
    spread = (n**2 - true @ true) * (n**2 - (said**2).sum(axis=1))
    mcc: FloatArray = np.divide(together, np.sqrt(spread), out=np.zeros_like(right), where=spread > 0)
    return mcc


def _macro_f1(hits: FloatArray, true: FloatArray, said: FloatArray) -> FloatArray:
    """Return F1 (L,), averaged over the classes that occur, from counts: hits (L, C), true (C,), said (L, C)."""
    occurs = true + said
    f1 = np.divide(2 * hits, occurs, out=np.zeros_like(hits), where=occurs > 0)
    macro: FloatArray = f1.sum(axis=1) / (occurs > 0).sum(axis=1)
    return macro


def _correlation(predictions: FloatArray, targets: FloatArray) -> FloatArray:
    """Return the product-moment correlation (L,) of predictions (L, n) with targets (n,); nan of a constant."""
    x, y = (_unit(values) for values in (predictions, targets[None]))
    correlation: FloatArray = np.clip((x * y).sum(axis=1), -1.0, 1.0)
    return correlation


def _unit(values: FloatArray) -> FloatArray:
    """Return values (L, n) less their mean, scaled to length 1."""
    centered: FloatArray = values - values.mean(axis=1, keepdims=True)
    # The largest first, so that no square leaves the range of floats.
    with np.errstate(invalid="ignore", divide="ignore"):
        centered = centered / np.abs(centered).max(axis=1, keepdims=True)
        unit: FloatArray = centered / np.linalg.norm(centered, axis=1, keepdims=True)
    return unit
