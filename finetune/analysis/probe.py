"""Linear probes: a head fitted to the pretrained model's features."""

import warnings
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from finetune.errors import ProbeError

ProbeKind = Literal["ridge", "logistic"]
_MOST_ITERATIONS = 10_000


def fit_head(
    kind: ProbeKind,
    features: NDArray[np.floating],
    labels: NDArray[np.integer] | NDArray[np.floating],
    targets: NDArray[np.float64],
    *,
    l2_penalty: float,
) -> dict[str, NDArray[np.float64]]:
    """Weight (C, d) and bias (C,) of a linear head.

    "ridge" minimizes |features W' + b - targets|^2 + l2_penalty |W|^2. "logistic" minimizes the summed
    cross-entropy of the labels + l2_penalty/2 |W|^2; for two classes the weights of the log-odds are shared out
    as -1/2 and +1/2.

    Args:
        kind: the probe.
        features: (n, d) inputs of the head.
        labels: (n,) classes; used by "logistic".
        targets: (n, C) coded targets; used by "ridge", and C counts for both.
        l2_penalty: strength of the L2 penalty, above 0.

    Raises:
        ProbeError: a class without a training example, a fit that does not converge, or features not finite.
    """
    x = np.asarray(features, dtype=np.float64)
    if not np.isfinite(x).all():
        example = int(np.flatnonzero(~np.isfinite(x).all(axis=1))[0])
        raise ProbeError(f"the features of training example {example} are NaN or infinite; check its text")
    return _ridge(x, targets, l2_penalty) if kind == "ridge" else _logistic(x, labels, targets.shape[1], l2_penalty)


def _ridge(x: NDArray[np.float64], targets: NDArray[np.float64], l2_penalty: float) -> dict[str, NDArray[np.float64]]:
    from sklearn.linear_model import Ridge

    fitted = Ridge(alpha=l2_penalty, solver="cholesky").fit(x, targets)
    shape = (targets.shape[1], x.shape[1])
    return {
        "weight": np.asarray(fitted.coef_, dtype=np.float64).reshape(shape),
        "bias": np.asarray(fitted.intercept_, dtype=np.float64).reshape(shape[0]),
    }


def _logistic(
    x: NDArray[np.float64],
    labels: NDArray[np.integer] | NDArray[np.floating],
    n_outputs: int,
    l2_penalty: float,
) -> dict[str, NDArray[np.float64]]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    absent = np.setdiff1d(np.arange(n_outputs), labels)
    if len(absent):
        raise ProbeError(
            f"a logistic probe needs training examples of every class, but class {absent[0]} has none; take more "
            "training examples, or a ridge head"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            fitted = LogisticRegression(C=1 / l2_penalty, max_iter=_MOST_ITERATIONS).fit(x, labels)
        except ConvergenceWarning as warning:
            raise ProbeError(
                "the logistic probe does not converge; raise its penalty, or take a ridge head"
            ) from warning
    weight, bias = np.asarray(fitted.coef_), np.asarray(fitted.intercept_)
    if n_outputs == 2:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return {"weight": weight, "bias": bias}
