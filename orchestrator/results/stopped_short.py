"""Trainings that ended far from where they lead: the exact solution of the linearization says so."""

import numpy as np
import pyarrow as pa

from ntk_dist.arrays import FloatArray
from orchestrator.spec import Spec

COLUMNS_COMPARED = (
    "outputs", "n_train", "lambda_given", "initial_train_loss", "train_loss", "linearized_train_loss",
    "linearized_status", "finetune_n_train",
)  # fmt: skip
"""Columns of `cells` that `stopped_short` reads."""

LEAST_SHARE = 0.5
"""Share of the way to the exact solution, in the training loss, below which a training stopped short."""

LEAST_WAY = 0.01
"""Share of the first training loss that the exact solution takes away; with less there is hardly a way to go."""


def stopped_short(spec: Spec, cells: pa.Table) -> str:
    """Return a sentence about trained linearizations that ended far from their exact solution; empty where none did.

    With squared loss and `l2sp`, training the linearization leads to the ridge solution of the same cell, which is
    known: where its training loss is not even half of the way there, the steps were too few or too small, for the
    model as for its linearization. Cells that aim at something else, that were stopped early, or whose loss rose say
    nothing about that and are not counted.

    Args:
        spec: the spec of the sweep.
        cells: the table `cells`, with `COLUMNS_COMPARED`.
    """
    training = spec.finetune
    if training is None or training.loss != "squared" or training.regularizer != "l2sp":
        return ""
    if training.early_stopping_patience is not None or not set(COLUMNS_COMPARED) <= set(cells.column_names):
        return ""
    start, exact, ended = (
        _floats(cells, name) for name in ("initial_train_loss", "train_loss", "linearized_train_loss")
    )
    with np.errstate(invalid="ignore"):  # comparisons with nan, of cells that are not trained
        same = (np.array(cells["outputs"].to_pylist()) != "trace") & (
            _floats(cells, "finetune_n_train") == _floats(cells, "n_train")
        )
        compared = same & (np.array(cells["linearized_status"].to_pylist()) == "finished") & np.isfinite(exact + ended)
        short = compared & (start - exact >= LEAST_WAY * start) & (ended <= start)
        short &= start - ended < LEAST_SHARE * (start - exact)
    if not short.any():
        return ""
    lambdas = _floats(cells, "lambda_given")[short]
    low, high = f"{lambdas.min():.3g}", f"{lambdas.max():.3g}"
    first, last, best = (f"{losses[short].mean():.4g}" for losses in (start, ended, exact))
    return (
        f"In {short.sum():,} of {compared.sum():,} trained cells (lambda {low if low == high else f'{low} to {high}'}) "
        "training stopped long before its end: on average the training loss of the linearization went from "
        f"{first} to {last}, and its exact solution has {best}. Raise finetune.epochs or finetune.learning_rate."
    )


def _floats(cells: pa.Table, name: str) -> FloatArray:
    """Return a column; nan where it has none."""
    return np.asarray(cells[name].cast(pa.float64()).to_numpy(), dtype=np.float64)
