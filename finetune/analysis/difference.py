"""Distances between two models' outputs on the same examples."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from finetune.settings import TaskKind
from ntk_dist.arrays import FloatArray


def output_difference(
    trained: FloatArray, linearized: FloatArray, initial: FloatArray, *, kind: TaskKind
) -> dict[str, FloatArray]:
    """Compare outputs f of the trained model with those f_lin of its linearization, (L, n, R) each.

    Args:
        trained: f.
        linearized: f_lin.
        initial: f_0 (n, R), the model before training.
        kind: what the outputs stand for.

    Returns:
        (L,) each: `relative` |f - f_lin| / |f| and `relative_to_change` |f - f_lin| / |f - f_0| (nan where nothing
        moved), Frobenius norms over examples and outputs; for classification also `kl`, the mean over
        examples of KL(softmax f | softmax f_lin) in nats, and `agreement`, the share of examples for which both say the
        same class. A single output counts as the margin of class 1 over class 0.
    """
    apart = _norm(trained - linearized)
    found = {"relative": _share(apart, _norm(trained)), "relative_to_change": _share(apart, _norm(trained - initial))}
    if kind == "classification":
        p, q = (log_softmax(_logits(each), axis=2) for each in (trained, linearized))
        # Negative only by rounding.
        found["kl"] = np.maximum((np.exp(p) * (p - q)).sum(axis=2).mean(axis=1), 0.0)
        found["agreement"] = (_classes(trained) == _classes(linearized)).mean(axis=1)
    return found


def _norm(values: FloatArray) -> FloatArray:
    return np.asarray(np.sqrt(np.einsum("lnr,lnr->l", values, values)))


def _share(part: FloatArray, whole: FloatArray) -> FloatArray:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _logits(outputs: FloatArray) -> FloatArray:
    return outputs if outputs.shape[2] > 1 else np.concatenate([np.zeros_like(outputs), outputs], axis=2)


def _classes(outputs: FloatArray) -> NDArray[np.int64]:
    return np.asarray(_logits(outputs).argmax(axis=2))
