"""The best lambda of each layer set, and which model's numbers say so: what `run` and `show` print about a sweep."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.results.least import LEAST_SEEDS, is_flat
from orchestrator.results.loading import Results
from orchestrator.results.stopped_short import COLUMNS_COMPARED, stopped_short

MODELS = ("", "linearized_", "finetune_")
"""What the columns of each model begin with: ridge solution, trained linearization, fine-tuned model."""

METRICS = ("loss", "accuracy", "mcc", "f1", "pearson", "spearman", "r2")

_VARIANT = ("task", "adapter_rank", "learning_rate", "n_train")
_STOPPED = ("task", "adapter_rank", "n_train", "layer_set")
_KERNEL = ("condition_number_relative_sigma", "effective_rank")
_OUTCOMES = tuple(f"{model}eval_{metric}" for model in MODELS for metric in METRICS)
_COLUMNS = [
    *_VARIANT, "task_kind", "layer_set", "seed", "n_parameters", "lambda_given", "lambda", "lambda_scale",
    "majority_accuracy", "dtype", "trace", "kernel_size", "initial_train_loss",
    "finetune_status", "linearized_status", *_KERNEL, *_OUTCOMES,
]  # fmt: skip

_UNIT_ROUNDOFFS = {"float64": 2.0**-53, "float32": 2.0**-24}
_FEW = 50


@dataclass(frozen=True)
class Mean:
    """A mean over seeds.

    Attributes:
        mean: the mean.
        standard_error: its standard error, sd/sqrt(seeds); None for one seed.
        seeds: seeds that have a number.
    """

    mean: float
    standard_error: float | None
    seeds: int


@dataclass(frozen=True)
class Stopping:
    """The time at which gradient flow without lambda has its lowest evaluation loss, of the times that were looked at.

    Attributes:
        time: as the spec gives it.
        eval_loss: mean over seeds there.
    """

    time: float
    eval_loss: float


@dataclass(frozen=True)
class LayerSetSummary:
    """A layer set of a task, rank, learning rate and training-set size at its best lambda.

    Attributes:
        task: name of the task.
        adapter_rank: rank of LoRA; None without adapter.
        learning_rate: that of training, where the grid has several.
        n_train: training examples.
        layer_set: name of the layer set.
        n_parameters: its parameters.
        best_lambda: the lambda, as the spec gives it, with the lowest mean of `chosen_by`.
        chosen_by: the column that chose it: finetune_eval_loss, or eval_loss where nothing is trained yet.
        at_edge: whether it is the smallest or the largest lambda of the grid, and the others are worse.
        numbers: by column of `cells`, the mean over seeds there; None where no seed has a number.
        condition_number_relative_sigma: geometric mean over all lambdas and seeds; nan where a cell has none.
        effective_rank: mean over those.
        stopping: the best time to stop training without lambda, where the sweep has trajectories.
    """

    task: str
    adapter_rank: int | None
    learning_rate: float | None
    n_train: int
    layer_set: str
    n_parameters: int
    best_lambda: float
    chosen_by: str
    at_edge: bool
    numbers: dict[str, Mean | None]
    condition_number_relative_sigma: float
    effective_rank: float
    stopping: Stopping | None = None


@dataclass(frozen=True)
class Summary:
    """Summary of a sweep.

    Attributes:
        layer_sets: one entry a layer set, in the grid's order, for every task, rank, learning rate and size.
        metric: accuracy or pearson, whichever the first task has.
        trained: whether any cell has numbers of training.
        trains: whether the sweep trains its cells, now or later.
        n_cells: cells that are in the table.
        n_seeds: number of seeds of the cells.
        least_seeds: number of seeds below which a standard error means nothing.
        lambda_scale: absolute, or trace: in units of trace/M.
        lambda_range: the smallest and the largest lambda of the grid, as the spec gives them; nan without cells.
        trace_units: the smallest and the largest trace/M of a kernel.
        majority_accuracy: by task, mean accuracy of always predicting the majority class; empty for regression.
        no_better_than_majority: the tasks of which no layer set has a higher accuracy at its best lambda.
        stopped_short: a sentence about trainings that ended long before their end; empty where none did.
        zero_kernels: layer sets without a lambda, because it is in units of their kernel and that is zero.
        rounding_kernels: layer sets whose kernel is no larger than what the rounding of a backward pass makes of zero.
    """

    layer_sets: list[LayerSetSummary]
    metric: str
    trained: bool
    trains: bool
    n_cells: int
    n_seeds: int
    least_seeds: int
    lambda_scale: str
    lambda_range: tuple[float, float]
    trace_units: tuple[float, float]
    majority_accuracy: dict[str, float]
    no_better_than_majority: list[str]
    stopped_short: str
    zero_kernels: list[str]
    rounding_kernels: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON, each number under the name of its column of `cells`."""
        facts = vars(self) | {"layer_sets": [], "metric": f"eval_{self.metric}"}
        for each in self.layer_sets:
            numbers = {name: found and vars(found) for name, found in each.numbers.items()}
            about = {name: value for name, value in vars(each).items() if name not in ("numbers", "stopping")}
            if each.stopping:
                about["stopping"] = vars(each.stopping)
            facts["layer_sets"].append(about | numbers)
        return facts


def summarize(results: Results) -> Summary:
    """Return the summary of a sweep; of one without cells it has no layer sets."""
    cells = _without_diverged(_without_nan(results.cells.to_arrow(_COLUMNS)))
    n_cells = len(cells)
    trained = cells["finetune_eval_loss"].null_count < len(cells)
    if not trained and len(cells):  # what is there is then the same for every learning rate
        rates = cells["learning_rate"]
        cells = cells.filter(pc.or_kleene(pc.is_null(rates), pc.equal(rates, rates[0])))
    lambdas = cells["lambda_given"].unique().to_pylist()
    edges = {min(lambdas), max(lambdas)} if len(lambdas) > 1 else set()
    classification = "classification" in cells["task_kind"].unique().to_pylist()
    metric = "accuracy" if classification else "pearson"
    named = [name for name in _OUTCOMES if cells[name].null_count < len(cells) or name == f"eval_{metric}"]
    stopping = _best_times(results)
    layer_sets = [_best(rows, edges, named, stopping) for rows in _by_layer_set(cells)]
    majority = _majority(cells)
    stored = results.folder.stored()
    return Summary(
        layer_sets=layer_sets,
        metric=metric,
        trained=trained,
        trains=stored is not None and stored.spec.finetune is not None,
        n_cells=n_cells,
        n_seeds=pc.count_distinct(cells["seed"]).as_py(),
        least_seeds=LEAST_SEEDS,
        lambda_scale=str(cells["lambda_scale"][0]) if len(cells) else "absolute",
        lambda_range=(min(lambdas), max(lambdas)) if lambdas else (math.nan, math.nan),
        trace_units=_trace_units(cells),
        majority_accuracy=majority,
        no_better_than_majority=[task for task in majority if not _has_better(layer_sets, task, majority[task])],
        stopped_short=stopped_short(stored.spec, results.cells.to_arrow(list(COLUMNS_COMPARED)))
        if stored and trained
        else "",
        zero_kernels=cells.filter(pc.is_null(cells["lambda"]))["layer_set"].unique().to_pylist(),
        rounding_kernels=_of_rounding(cells),
    )


def _of_rounding(cells: pa.Table) -> list[str]:
    """Return layer sets whose gradients are a few unit roundoffs of the errors, as attention to one token leaves."""
    found: dict[str, None] = {}
    for dtype, roundoff in _UNIT_ROUNDOFFS.items():
        errors = pc.multiply(cells["initial_train_loss"], 2 * (_FEW * roundoff) ** 2)
        is_small = pc.less(pc.divide(cells["trace"], pc.cast(cells["kernel_size"], pa.float64())), errors)
        is_some = pc.and_(pc.greater(cells["trace"], 0.0), pc.equal(cells["dtype"], dtype))
        found |= dict.fromkeys(cells.filter(pc.and_(is_small, is_some))["layer_set"].to_pylist())
    return list(found)


def _majority(cells: pa.Table) -> dict[str, float]:
    """Return the mean accuracy of the majority baseline, for each task with classes."""
    found = {}
    for task in cells["task"].unique():
        values = cells.filter(pc.equal(cells["task"], task))["majority_accuracy"].drop_null()
        if len(values):
            found[str(task)] = math.fsum(values.to_pylist()) / len(values)
    return found


def _has_better(layer_sets: Sequence[LayerSetSummary], task: str, accuracy: float) -> bool:
    """Tell whether a layer set of a task has a higher accuracy at its best lambda, or none has an accuracy."""
    columns = {"finetune_eval_loss": "finetune_eval_accuracy", "eval_loss": "eval_accuracy"}
    found = [each.numbers.get(columns[each.chosen_by]) for each in layer_sets if each.task == task]
    known = [mean.mean for mean in found if mean is not None]
    return not known or max(known) > accuracy


def _trace_units(cells: pa.Table) -> tuple[float, float]:
    """Return the smallest and the largest trace/M of the kernels; nan without cells."""
    units = pc.min_max(pc.divide(cells["trace"], pc.cast(cells["kernel_size"], pa.float64()))).as_py()
    return math.nan if units["min"] is None else units["min"], math.nan if units["max"] is None else units["max"]


def _without_nan(cells: pa.Table) -> pa.Table:
    """Return a table with null in place of nan, because means leave nulls out."""
    for position, field in enumerate(cells.schema):
        if pa.types.is_floating(field.type):
            values = cells.column(position)
            known = pc.if_else(pc.is_nan(values), pa.nulls(len(values), field.type), values)
            cells = cells.set_column(position, field.name, known)
    return cells


def _without_diverged(cells: pa.Table) -> pa.Table:
    """Return a table with null in place of the numbers of trainings that diverged."""
    for model in MODELS[1:]:
        diverged = pc.fill_null(pc.equal(cells[f"{model}status"], "diverged"), fill_value=False)
        for name in (f"{model}eval_{metric}" for metric in METRICS):
            values = cells[name]
            cells = cells.set_column(
                cells.column_names.index(name), name, pc.if_else(diverged, pa.nulls(len(values), values.type), values)
            )
    return cells


def _by_layer_set(cells: pa.Table) -> Iterable[list[dict[str, Any]]]:
    """Return for each layer set of a variant a row for each lambda, with means over seeds."""
    cells = cells.append_column("log_condition", pc.ln(cells["condition_number_relative_sigma"]))
    means = [*_OUTCOMES, "log_condition", "effective_rank"]
    spread = pc.VarianceOptions(ddof=1, min_count=2)
    aggregates: list[tuple[Any, ...]] = [("n_parameters", "min"), ("seed", "count")]
    aggregates += [(name, how) for name in means for how in ("mean", "count")]
    aggregates += [(name, "stddev", spread) for name in _OUTCOMES]
    keys = [*_VARIANT, "layer_set", "lambda_given"]
    # several threads would return groups in another order each time
    rows = cells.group_by(keys, use_threads=False).aggregate(aggregates).to_pylist()
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys[:-1]), []).append(row)
    return found.values()


def _best(
    rows: Sequence[Mapping[str, Any]],
    edges: set[float],
    named: Sequence[str],
    stopping: Mapping[tuple[Any, ...], Stopping],
) -> LayerSetSummary:
    first = rows[0]
    judge = "finetune_eval_loss" if any(row["finetune_eval_loss_count"] for row in rows) else "eval_loss"
    most = max(row[f"{judge}_count"] for row in rows)

    def badness(row: Mapping[str, Any]) -> tuple[bool, float, float]:
        mean = row[f"{judge}_mean"]
        # a mean over fewer seeds, as where some diverged, is that of an easier task or of luck
        return row[f"{judge}_count"] < most, math.inf if mean is None else mean, row["lambda_given"]

    chosen = min(rows, key=badness)
    losses = [mean for row in rows if (mean := row[f"{judge}_mean"]) is not None]
    flat = bool(losses) and is_flat(min(losses), max(losses))
    known = sum(row["log_condition_count"] for row in rows) == sum(row["seed_count"] for row in rows)
    return LayerSetSummary(
        task=str(first["task"]),
        adapter_rank=first["adapter_rank"],
        learning_rate=first["learning_rate"],
        n_train=int(first["n_train"]),
        layer_set=str(first["layer_set"]),
        n_parameters=int(first["n_parameters_min"]),
        best_lambda=float(chosen["lambda_given"]),
        chosen_by=judge,
        at_edge=chosen["lambda_given"] in edges and not flat,
        numbers={name: _mean_of(chosen, name) for name in named},
        condition_number_relative_sigma=math.exp(_mean(rows, "log_condition")) if known else math.nan,
        effective_rank=_mean(rows, "effective_rank"),
        stopping=stopping.get(tuple(first[name] for name in _STOPPED)),
    )


def _best_times(results: Results) -> dict[tuple[Any, ...], Stopping]:
    """Return the best time to stop by `_STOPPED`; empty without trajectories."""
    if "flow" not in results.names:
        return {}
    flow = results.table("flow").to_arrow([*_STOPPED, "trained_by", "lambda_given", "time_given", "eval_loss"])
    flow = flow.filter(pc.and_(pc.equal(flow["trained_by"], "flow"), pc.equal(flow["lambda_given"], 0.0)))
    means = flow.group_by([*_STOPPED, "time_given"], use_threads=False).aggregate([("eval_loss", "mean")]).to_pylist()
    found: dict[tuple[Any, ...], Stopping] = {}
    for row in sorted(means, key=lambda each: each["time_given"]):
        key, loss = tuple(row[name] for name in _STOPPED), row["eval_loss_mean"]
        if loss is not None and (key not in found or loss < found[key].eval_loss):
            found[key] = Stopping(row["time_given"], loss)
    return found


def _mean_of(row: Mapping[str, Any], name: str) -> Mean | None:
    count, spread = row[f"{name}_count"], row[f"{name}_stddev"]
    if not count:
        return None
    return Mean(row[f"{name}_mean"], None if spread is None else spread / math.sqrt(count), count)


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    """Return the mean over all cells of means over those of each lambda."""
    counts = [row[f"{name}_count"] for row in rows]
    total = math.fsum(row[f"{name}_mean"] * count for row, count in zip(rows, counts, strict=True) if count)
    return total / sum(counts) if sum(counts) else math.nan
