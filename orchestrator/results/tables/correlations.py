"""The table `correlations`: correlations over layer sets of spectra and linearized models with fine-tuning outcomes."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from threadpoolctl import threadpool_limits

from ntk_dist.arrays import FloatArray, IntArray
from orchestrator.results.tables.contribution_to_all import CONTRIBUTION, contribution_to_all
from orchestrator.results.tables.correlation_columns import CORRELATIONS
from orchestrator.results.tables.schema import arrow_schema
from orchestrator.results.tables.statistics import (
    COEFFICIENTS,
    average_over_seeds,
    bootstrap,
    correlations,
    interval_error,
    percentile_interval,
)

if TYPE_CHECKING:
    import pandas as pd

BoolArray = npt.NDArray[np.bool_]

CORRELATIONS_SCHEMA = arrow_schema(CORRELATIONS)

ON_LOG_SCALE = {
    "condition_number_fixed_sigma": True,
    "condition_number_relative_sigma": True,
    "effective_rank": False,
    "label_alignment": False,
    "decay_exponent": False,
    "trace": True,
    "sigma_max": True,
    "gcv": False,
    "leave_one_out_loss": False,
    "log_evidence": False,
    CONTRIBUTION: False,
    "eval_loss": False,
    "train_loss": False,
    "linearized_eval_loss": False,
    "n_parameters": True,
}
"""Quantities of a layer set that are known without fine-tuning, and whether their logarithm is taken."""

OUTCOMES = (
    "finetune_eval_loss",
    "finetune_train_loss",
    "finetune_eval_accuracy",
    "finetune_eval_mcc",
    "finetune_eval_f1",
    "finetune_eval_pearson",
    "finetune_eval_spearman",
)

FEWEST = {name: 4 if name == "partial_spearman" else 3 for name in COEFFICIENTS}
"""Layer sets that a coefficient needs: with one fewer it is 1 or -1 whatever the values."""

LINEAR_UP_TO = 0.1
"""|f - f_lin| / |f| on evaluation examples up to which a layer set at a lambda is in the linear regime."""

REGIMES = ("all", "linear", "nonlinear")
"""Regimes of layer sets at a lambda: all of them, those that the linearization describes, or the others."""

_ENDS = ("", "_low", "_high", "_interval_error")
_OF_THE_SWEEP = ("sweep", "model", "lambda_scale")
_OF_A_GROUP = ("task", "adapter_rank", "learning_rate", "n_train", "lambda_given")
_STATUSES = ("finetune_status", "linearized_status")
CELL_COLUMNS = (
    "cell_id", *_OF_THE_SWEEP, *_OF_A_GROUP, "seed", "layer_set", *_STATUSES,
    *(name for name in ON_LOG_SCALE if name != CONTRIBUTION), *OUTCOMES, "majority_accuracy",
    "difference_eval_relative",
)  # fmt: skip
"""Columns of `cells` that the table is made of."""


def correlations_of(cells: pa.Table, contributions: pa.Table | None = None) -> pa.RecordBatch:
    """Return a row for every task, rank, learning rate, training-set size, lambda, regime, quantity and outcome.

    Quantities and outcomes that no cell has, such as the accuracy of a regression, have no rows, nor have regimes that
    no layer set is in.

    Args:
        cells: the columns `CELL_COLUMNS` of the table `cells`; cells that were not trained or diverged are left out.
        contributions: the columns that `contribution_to_all` takes of the table of that name, where it is written.
    """
    frame: pd.DataFrame = cells.to_pandas()
    frame[CONTRIBUTION] = np.nan if contributions is None else frame["cell_id"].map(contribution_to_all(contributions))
    quantities = [name for name in ON_LOG_SCALE if frame[name].notna().any()]
    outcomes = [name for name in OUTCOMES if frame[name].notna().any()]
    usable = frame[frame["finetune_status"].notna() & (frame["finetune_status"] != "diverged")]
    # One thread: the matrices are too small for several, which would wait for each other on a busy machine.
    with threadpool_limits(limits=1):
        rows = [
            {name: _plain(group[name].iloc[0]) for name in (*_OF_THE_SWEEP, *_OF_A_GROUP)} | row
            for _, group in usable.groupby(list(_OF_A_GROUP), dropna=False)
            for row in _rows_of(group, quantities, outcomes)
        ]
    return pa.RecordBatch.from_pylist(rows, schema=CORRELATIONS_SCHEMA)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and np.isnan(value) else value


def _rows_of(group: "pd.DataFrame", quantities: list[str], outcomes: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of the cells of one lambda of one task, without their common columns."""
    seeds, of_seed = np.unique(group["seed"], return_inverse=True)
    layer_sets, of_layer_set = np.unique(group["layer_set"], return_inverse=True)

    def array(names: list[str]) -> FloatArray:
        values = np.full((len(names), len(seeds), len(layer_sets)), np.nan)
        for position, name in enumerate(names):
            values[position, of_seed, of_layer_set] = _numbers(group, name)
        return values

    x, y, difference = array(quantities), array(outcomes), array(["difference_eval_relative"])[0]
    n_parameters = group.groupby("layer_set")["n_parameters"].first().to_numpy(dtype=np.float64)
    majority = group.groupby("seed")["majority_accuracy"].first().mean()
    found: dict[bytes, dict[str, FloatArray]] = {}
    for regime, members in zip(REGIMES, _members_of_regimes(difference), strict=True):
        if not members.any():
            continue
        if (key := members.tobytes()) not in found:  # most often all layer sets are in one regime
            found[key] = _found(x[..., members], y[..., members], n_parameters[members])
        for i, quantity in enumerate(quantities):
            for j, outcome in enumerate(outcomes):
                numbers = {name: float(values[i, j]) for name, values in found[key].items()}
                numbers["majority_accuracy"] = majority
                yield {
                    "regime": regime,
                    "quantity": quantity,
                    "on_log_scale": ON_LOG_SCALE[quantity],
                    "outcome": outcome,
                    "n_seeds": len(seeds),
                    **{name: None if np.isnan(value) else value for name, value in numbers.items()},
                }


def _members_of_regimes(difference: FloatArray) -> tuple[BoolArray, BoolArray, BoolArray]:
    """Return which layer sets (L,) are in each of `REGIMES`, by their |f - f_lin| / |f| (S, L) in every seed.

    The geometric mean over seeds decides, since differences of seeds are factors. Where a seed has no difference, as
    where the linearization diverged, the regime is unknown.
    """
    known = np.isfinite(difference).all(axis=0)
    logarithms = np.log(difference, out=np.full_like(difference, -np.inf), where=difference > 0)
    small = logarithms.mean(axis=0) <= np.log(LINEAR_UP_TO)
    return np.ones_like(known), known & small, known & ~small


def _numbers(group: "pd.DataFrame", name: str) -> FloatArray:
    """Return a column, or its logarithm if that is correlated; nan or infinite where there is no number."""
    values = group[name].to_numpy(dtype=np.float64, na_value=np.nan)
    if name == "linearized_eval_loss":
        values = np.where(group["linearized_status"] == "diverged", np.nan, values)
    if ON_LOG_SCALE.get(name, False):
        values = np.log(values, out=np.full_like(values, np.nan), where=values > 0)
    return values


def _found(quantities: FloatArray, outcomes: FloatArray, n_parameters: FloatArray) -> dict[str, FloatArray]:
    """Return every coefficient with its interval, and the number of layer sets, (P, Q) each.

    A pair is correlated over the layer sets that have both in every seed: each seed has its own examples, and averages
    over different seeds would differ by what the seeds differ in.

    Args:
        quantities: (P, S, L) of S seeds and L layer sets; not finite where missing.
        outcomes: (Q, S, L); not finite where missing.
        n_parameters: of each layer set (L,).
    """
    shape = (len(quantities), len(outcomes))
    found = {f"{name}{end}": np.full(shape, np.nan) for name in COEFFICIENTS for end in _ENDS}
    found["n_layer_sets"] = np.zeros(shape)
    for rows, has_rows in _equally_complete(quantities):
        for columns, has_columns in _equally_complete(outcomes):
            both = has_rows & has_columns
            place = np.ix_(rows, columns)
            found["n_layer_sets"][place] = both.sum()
            block = _coefficients(quantities[rows][..., both], outcomes[columns][..., both], n_parameters[both])
            for name, values in block.items():
                found[name][place] = values
    return found


def _equally_complete(values: FloatArray) -> Iterator[tuple[IntArray, BoolArray]]:
    """Yield positions of variables (V, S, L) that exist in every seed for the same layer sets, and those sets (L,)."""
    complete = np.isfinite(values).all(axis=1)
    distinct, kinds = np.unique(complete, axis=0, return_inverse=True)
    for kind, layer_sets in enumerate(distinct):
        yield np.flatnonzero(kinds == kind), layer_sets


def _coefficients(x: FloatArray, y: FloatArray, control: FloatArray) -> dict[str, FloatArray]:
    """Return the coefficients (P, Q) that the number of layer sets allows, and the ends of their intervals.

    Args:
        x: quantities (P, S, L); finite.
        y: outcomes (Q, S, L); finite.
        control: parameters of the layer sets (L,).
    """
    _, n_seeds, n = x.shape
    names = [name for name in COEFFICIENTS if n >= FEWEST[name]]
    if not names:
        return {}
    once = np.ones(n_seeds, dtype=np.int64)
    averages = [average_over_seeds(values, once) for values in (x, y)]
    measured = correlations(averages[0], averages[1], control, np.ones((1, n), dtype=np.int64))
    draws = bootstrap(x, y, control)
    found: dict[str, FloatArray] = {}
    for name in names:
        found[name] = measured[name][0]
        ends = (*percentile_interval(draws[name]), interval_error(draws[name]))
        for end, values in zip(_ENDS[1:], ends, strict=True):
            # A variable that is constant on average may vary in draws; it has no coefficient, and so no interval.
            found[f"{name}{end}"] = np.where(np.isnan(found[name]), np.nan, values)
    return found
