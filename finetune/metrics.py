"""Metrics of predictions, for every lambda of a path at once."""

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.integer]


def classification_metrics(scores: FloatArray, labels: IntArray) -> dict[str, FloatArray]:
    """Return accuracy, Matthews correlation ("mcc") and macro F1 ("f1"), each (L,), of scores (L, n, C).

    The class is the highest score (the first of equals); with C = 1 the score is the margin of class 1 over
    class 0. mcc is the multi-class one of Gorodkin (2004), 0 where it is undefined; F1 is averaged over the
    classes that occur in labels (n,) or predictions, as scikit-learn does. nan where a score is not finite.

    Raises ValueError for a label outside 0..C-1.
    """
    n_classes = max(scores.shape[2], 2)
    if labels.size and not (labels.min() >= 0 and labels.max() < n_classes):
        raise ValueError(f"labels must lie in 0..{n_classes - 1}, got {labels.min()}..{labels.max()}")
    predicted = scores[:, :, 0] > 0 if scores.shape[2] == 1 else scores.argmax(axis=2)
    confusion = confusion_tensor(predicted.astype(np.int64), labels, n_classes).astype(np.float64)
    metrics = {"accuracy": _accuracy(confusion), "mcc": _mcc(confusion), "f1": _macro_f1(confusion)}
    unusable = ~np.isfinite(scores).all(axis=(1, 2))
    return {name: np.where(unusable, np.nan, values) for name, values in metrics.items()}


def regression_metrics(predictions: FloatArray, targets: FloatArray) -> dict[str, FloatArray]:
    """Return mse, mae, pearson, spearman and r2, each (L,), of predictions (L, n) against targets (n,).

    Correlations are nan where predictions or targets are constant, r2 where targets are; everything is nan
    where a prediction is not finite.
    """
    unusable: npt.NDArray[np.bool_] = np.asarray(~np.isfinite(predictions).all(axis=1))
    predictions = np.where(unusable[:, None], 0.0, predictions)
    error = predictions - targets
    mse = (error**2).mean(axis=1)
    spread = float(targets.var())
    ranks = rankdata(predictions, axis=1)
    metrics = {
        "mse": mse,
        "mae": np.abs(error).mean(axis=1),
        "pearson": _correlation(predictions, targets),
        "spearman": _correlation(ranks, rankdata(targets)),
        "r2": 1 - mse / spread if np.ptp(targets) else np.full(len(predictions), np.nan),
    }
    return {name: np.where(unusable, np.nan, values) for name, values in metrics.items()}


def majority_accuracy(train_labels: IntArray, eval_labels: IntArray) -> float:
    """Return the accuracy on eval_labels of the commonest train label (the first of equals)."""
    values, counts = np.unique(train_labels, return_counts=True)
    return float(np.mean(eval_labels == values[counts.argmax()]))


def confusion_tensor(predicted: IntArray, labels: IntArray, n_classes: int) -> npt.NDArray[np.int64]:
    """Return counts (L, C, C), label by prediction, of predicted (L, n) and labels (n,)."""
    n_lambdas = len(predicted)
    cells = (np.arange(n_lambdas)[:, None] * n_classes + labels) * n_classes + predicted
    counts = np.bincount(cells.ravel(), minlength=n_lambdas * n_classes**2)
    return counts.reshape(n_lambdas, n_classes, n_classes)


def _accuracy(confusion: FloatArray) -> FloatArray:
    total = confusion.sum(axis=(1, 2))
    hits: FloatArray = np.trace(confusion, axis1=1, axis2=2)
    accuracy: FloatArray = hits / total
    return accuracy


def _mcc(confusion: FloatArray) -> FloatArray:
    n = confusion.sum(axis=(1, 2))
    true, predicted = confusion.sum(axis=2), confusion.sum(axis=1)
    covariance = np.trace(confusion, axis1=1, axis2=2) * n - (true * predicted).sum(axis=1)
    squares = (n**2 - (true**2).sum(axis=1)) * (n**2 - (predicted**2).sum(axis=1))
    mcc: FloatArray = np.divide(covariance, np.sqrt(squares), out=np.zeros_like(n), where=squares > 0)
    return mcc


def _macro_f1(confusion: FloatArray) -> FloatArray:
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    occurrences = confusion.sum(axis=1) + confusion.sum(axis=2)
    f1 = np.divide(2 * hits, occurrences, out=np.zeros_like(occurrences), where=occurrences > 0)
    average: FloatArray = f1.sum(axis=1) / (occurrences > 0).sum(axis=1)
    return average


def _correlation(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return the Pearson correlation of each row of x (L, n) with y (n,), nan where either is constant."""
    constant = (np.ptp(x, axis=1) == 0) | (np.ptp(y) == 0)
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean()
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y)
    usable = ~constant & (norms > 0)
    correlation: FloatArray = np.divide(x @ y, norms, out=np.full(len(x), np.nan), where=usable)
    return correlation
