"""Explicit schemas of the tables, documented column by column; columns are only ever added."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

SCHEMA_VERSION = 5
"""Raised when columns are added; stands in the metadata of every file."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: its name.
        type: its Arrow type.
        meaning: what it holds.
        unit: unit of its numbers; empty for pure numbers and names.
        provenance: whether it says where a number comes from rather than what it is; provenance may differ between two
            runs of one sweep, nothing else may, but for last bits where `halvings` is not 0.
    """

    name: str
    type: pa.DataType
    meaning: str
    unit: str = ""
    provenance: bool = False


def arrow_schema(table: str, columns: Sequence[Column]) -> pa.Schema:
    """Return the Arrow schema of a table, meanings and units in the fields' metadata."""
    fields = [
        pa.field(
            column.name,
            column.type,
            metadata={
                "meaning": column.meaning,
                "unit": column.unit,
                "provenance": "yes" if column.provenance else "no",
            },
        )
        for column in columns
    ]
    return pa.schema(fields, metadata={"ntksweep_table": table, "ntksweep_schema_version": str(SCHEMA_VERSION)})


_NAME, _COUNT, _REAL, _FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()

_TASK = Column("task", _NAME, "name of the task in grid.tasks; else file name or hub id of the data")
_RANK = Column("adapter_rank", _COUNT, "rank r of LoRA; null without adapter")
_LEARNING_RATE = Column("learning_rate", _REAL, "learning rate of fine-tuning; null where nothing is trained")
_VARIANT_COLUMNS = (_TASK, _RANK, _LEARNING_RATE)

GRID_COLUMNS = (
    Column("cell_id", _NAME, "identity of the cell: hash of everything that fixes its numbers"),
    Column("sweep", _NAME, "name of the sweep"),
    Column("model", _NAME, "folder name or hub id of the model"),
    _TASK,
    Column("task_kind", _NAME, "classification or regression"),
    Column("adapter", _NAME, "lora or none"),
    _RANK,
    Column(
        "rank_threshold",
        _COUNT,
        "smallest r with r (r + 1)/2 > K N for N training examples and K outputs that are trained, from which on LoRA "
        "has no spurious local minima if the model is linear in its weights (arXiv 2402.11867); null without adapter",
    ),
    Column("head", _NAME, "kind of head"),
    Column("head_in_kernel", _FLAG, "whether the head's parameters are in the kernel"),
    Column("kernel", _NAME, "sgd, sign or asymmetric_sign"),
    Column("outputs", _NAME, "which outputs the kernel keeps: full, trace or margin"),
    Column("dtype", _NAME, "precision of model and Jacobian"),
    _LEARNING_RATE,
    Column("seed", _COUNT, "seed of the grid"),
    Column("n_train", _COUNT, "training examples", "examples"),
    Column("n_eval", _COUNT, "evaluation examples", "examples"),
    Column("repeats_in_train", _COUNT, "training examples whose text an earlier one has", "examples"),
    Column("eval_in_train", _COUNT, "evaluation examples whose text is a training example's too", "examples"),
    Column("layer_set", _NAME, "name of the layer set"),
    Column("n_layers", _COUNT, "layers that the set touches", "layers"),
    Column("lowest_layer", _COUNT, "lowest layer of the set; null if it touches none"),
    Column("highest_layer", _COUNT, "highest layer of the set; null if it touches none"),
    Column("n_parameters", _COUNT, "parameters of the set, without structurally zero ones", "parameters"),
    Column("lambda_given", _REAL, "lambda as the spec gives it"),
    Column("lambda_scale", _NAME, "absolute, or trace: in units of trace/M"),
)

_SINGLE = "in float32; null where the model is in float32 or float64"
SPECTRUM_COLUMNS = (
    Column("kernel_size", _COUNT, "rows M of the kernel", "rows"),
    Column("sigma_max", _REAL, "largest eigenvalue"),
    Column("sigma_min", _REAL, "smallest eigenvalue"),
    Column("trace", _REAL, "trace of the kernel"),
    Column("condition_number", _REAL, "sigma_max / sigma_min; infinite where sigma_min <= 0"),
    Column("condition_number_resolved", _FLAG, "whether sigma_min exceeds the noise floor; if not, it is noise"),
    Column("condition_number_fixed_sigma", _REAL, "(sigma_max + s)/(sigma_min + s) with s = kernel.sigma"),
    Column("condition_number_relative_sigma", _REAL, "the same with s = kernel.relative_sigma * trace/M"),
    Column("effective_rank", _REAL, "exp of the entropy of the normalised spectrum", "modes"),
    Column("label_alignment", _REAL, "<K, YY'> / (|K| |YY'|), Frobenius norms"),
    Column("decay_exponent", _REAL, "a of the fit sigma_i ~ i^-a above the noise floor"),
    Column("noise_floor", _REAL, "eigenvalues below cannot be told from 0"),
    Column(
        "row_precision_error",
        _REAL,
        f"largest over the groups: |J - J32| / |J32| of the first training examples, J32 of the same model {_SINGLE}",
    ),
    Column("kernel_precision_error", _REAL, f"the same for the kernel of all captured groups {_SINGLE}"),
    Column(
        "feature_share_train",
        _REAL,
        "|F r| / |K r| over training examples: K = P + F, P the head's block, F all others, r = y - f_0; above 1 where "
        "the two work against each other, null where the head is out of the kernel or all there is",
    ),
    Column("feature_share_eval", _REAL, "the same for the rows of K between evaluation and training examples"),
    Column("feature_trace_share", _REAL, "trace F / trace K"),
)

_METRICS = (
    ("accuracy", "accuracy"),
    ("mcc", "Matthews correlation"),
    ("f1", "F1, averaged over classes"),
    ("pearson", "Pearson correlation"),
    ("spearman", "Spearman correlation"),
    ("r2", "share of variance explained"),
)
_INITIAL = "of the model before fine-tuning"
RIDGE_COLUMNS = (
    Column("lambda", _REAL, "lambda of (1/2)|J d - r|^2 + (lambda/2)|d|^2, absolute"),
    Column("initial_train_loss", _REAL, f"train_loss {_INITIAL}"),
    Column("initial_eval_loss", _REAL, f"eval_loss {_INITIAL}"),
    Column(
        "train_loss",
        _REAL,
        "half the mean over training examples of the squared residual, summed over outputs",
    ),
    Column("eval_loss", _REAL, "the same over evaluation examples"),
    Column("objective", _REAL, "(1/2)|J d - r|^2 + (lambda/2)|d|^2 at its minimum"),
    Column(
        "parameter_distance",
        _REAL,
        "|d|, the distance from the pretrained parameters; for `outputs: trace` and `kernel: sign` a norm in the "
        "kernel's space, sqrt(tr a'Ka) for a = (K + lambda I)^-1 r, and not to be set beside distances of parameters",
    ),
    Column("parameter_distance_bound", _REAL, "|r| / (2 sqrt(lambda)), which |d| cannot exceed, in the same space"),
    Column("degrees_of_freedom", _REAL, "trace of K (K + lambda I)^-1"),
    Column(
        "gcv",
        _REAL,
        "generalised cross-validation, (1/M) |y - f|^2 / (1 - trace S/M)^2 for f = S y, the fit of a ridge head being "
        "part of S; null under a logistic head",
    ),
    Column(
        "leave_one_out_loss",
        _REAL,
        "train_loss of leave-one-example-out residuals, a fitted head being fitted without the example too and the "
        "kernel held; null without eigenvectors",
    ),
    Column("missing_estimates", _NAME, "why gcv or leave_one_out_loss is null; null where neither is"),
    Column(
        "ridge_residual",
        _REAL,
        "|r - (K + lambda I) a| / |lambda a| where K was not decomposed, which no relative error of the training "
        "residuals lambda a exceeds; null where it was",
    ),
    Column("majority_accuracy", _REAL, "eval_accuracy of always saying the commonest training class"),
    *(
        Column(f"{when}{split}_{metric}", _REAL, f"{meaning} on {examples}" + (f", {_INITIAL}" if when else ""))
        for when, split, examples in (
            ("", "train", "training examples"),
            ("", "eval", "evaluation examples"),
            ("initial_", "eval", "evaluation examples"),
        )
        for metric, meaning in _METRICS
    ),
)

PROVENANCE_COLUMNS = tuple(
    Column(name, kind, meaning, unit, provenance=True)
    for name, kind, meaning, unit in (
        ("stage_id", _NAME, "stage that computed the cell", ""),
        ("host", _NAME, "machine that computed it", ""),
        ("device", _NAME, "processor or accelerator that computed it", ""),
        ("job", _NAME, "Slurm job; null outside Slurm", ""),
        ("attempt", _COUNT, "how often the stage was begun in its run", ""),
        ("seconds", _REAL, "time of the stage divided by its cells", "s"),
        ("peak_memory_bytes", _COUNT, "peak resident memory of the worker during the stage", "B"),
        ("finished", pa.timestamp("ms", tz="UTC"), "when the stage was finished", ""),
        ("python", _NAME, "version of Python", ""),
        ("ntksweep", _NAME, "version of ntksweep", ""),
        ("torch", _NAME, "version of torch", ""),
        ("transformers", _NAME, "version of transformers", ""),
        ("numpy", _NAME, "version of numpy", ""),
        ("scipy", _NAME, "version of scipy", ""),
        ("git", _NAME, "commit of ntksweep's checkout; null when installed from a package", ""),
        (
            "halvings",
            _COUNT,
            "most often that a stage below the cell had its batches halved to fit into memory; where not 0, numbers "
            "agree with those of whole batches to rounding only",
            "",
        ),
        (
            "fallback",
            _NAME,
            "why the kernel was decomposed on the processor although compute.device asks for a GPU; null where it was "
            "not",
            "",
        ),
    )
)

_SPLITS = (("train", "training examples"), ("eval", "evaluation examples"))
_MODELS = (("finetune", "of the trained model"), ("linearized", "of the trained linearization"))
_DISTANCE = "|theta - theta_0| over all trained parameters"


def _scores(model: str, whose: str) -> tuple[Column, ...]:
    losses = (
        Column(f"{model}_{split}_loss", _REAL, f"half the mean squared residual over {examples}, {whose}")
        for split, examples in _SPLITS
    )
    metrics = (
        Column(f"{model}_{split}_{metric}", _REAL, f"{meaning} on {examples}, {whose}")
        for split, examples in _SPLITS
        for metric, meaning in _METRICS
    )
    return *losses, *metrics


def _pulled(model: str, whose: str, steps: str) -> tuple[Column, ...]:
    return (
        Column(
            f"{model}_pulled",
            _REAL,
            f"share of {steps} at which lambda changed a gradient or a weight, {whose}; 0 means that it never acted",
        ),
        Column(
            f"{model}_pulled_tensors",
            _REAL,
            f"share of the trained tensors that lambda changed, averaged over {steps}, {whose}",
        ),
    )


KERNEL_COLUMNS = (
    Column(
        "finetune_kernel_change",
        _REAL,
        "|K - K_0| / |K_0|, kernel of a few training examples, with the outputs that the column `outputs` names",
    ),
    Column("finetune_kernel_alignment", _REAL, "<K, K_0> / (|K| |K_0|) of the same"),
)

DIFFERENCE_COLUMNS = tuple(
    Column(f"difference_{split}_{name}", _REAL, f"{meaning} on {examples}", unit)
    for split, examples in _SPLITS
    for name, meaning, unit in (
        ("relative", "|f - f_lin| / |f| of the trained model f and the trained linearization f_lin", ""),
        ("relative_to_change", "|f - f_lin| / |f - f_0|, relative to what training changed", ""),
        ("kl", "mean KL divergence of softmax f_lin from softmax f", "nats"),
        ("agreement", "share on which both say the same class", ""),
    )
)

TRAINING_COLUMNS = (
    Column(
        "head_trained",
        _FLAG,
        "whether the trained model's head is trained; its linearization lacks a head that is not in the kernel; null "
        "where nothing is trained",
    ),
    *(
        column
        for model, whose in _MODELS
        for column in (
            Column(f"{model}_status", _NAME, f"how training ended {whose}: finished, stopped early, diverged"),
            Column(f"{model}_steps", _COUNT, f"updates that made the weights {whose}", "steps"),
            Column(f"{model}_failed_step", _COUNT, f"updates before the loss exploded, {whose}; null if it did not"),
            *_scores(model, whose),
            Column(f"{model}_distance", _REAL, f"{_DISTANCE}, {whose}"),
            *_pulled(model, whose, "all updates"),
        )
    ),
    Column(
        "finetune_distance_bound",
        _REAL,
        "sqrt(2 R_0 / lambda), R the summed loss: the distance cannot exceed it where training has lowered "
        "R + (lambda/2)|theta - theta_0|^2; null for other losses and regularizers",
    ),
    Column(
        "finetune_curvature",
        _REAL,
        "b, estimated: the largest |d^2 f/dt^2| / |theta - theta_0|^2 of a few training examples' outputs at three "
        "places of the way from theta_0 to theta; null, as the two that follow, of models divided by `sharding`",
    ),
    Column("finetune_linearization_error", _REAL, "|f(theta) - f(theta_0) - J (theta - theta_0)| of the same outputs"),
    Column(
        "finetune_linearization_bound",
        _REAL,
        "(b/2) |theta - theta_0|^2, which the error does not exceed if b is the largest of the whole way",
    ),
    *KERNEL_COLUMNS,
    *DIFFERENCE_COLUMNS,
)

CELLS = (*GRID_COLUMNS, *SPECTRUM_COLUMNS, *RIDGE_COLUMNS, *TRAINING_COLUMNS, *PROVENANCE_COLUMNS)

_SET_COLUMNS = (
    Column("sweep", _NAME, "name of the sweep"),
    *_VARIANT_COLUMNS,
    Column("seed", _COUNT, "seed of the grid"),
    Column("n_train", _COUNT, "training examples", "examples"),
    Column("kernel", _NAME, "sgd, sign or asymmetric_sign"),
    Column("outputs", _NAME, "which outputs the kernel keeps: full, trace or margin"),
    Column("layer_set", _NAME, "name of the layer set"),
)

SPECTRA = (
    *_SET_COLUMNS,
    Column("groups", pa.list_(_NAME), "groups of the layer set"),
    Column("kernel_size", _COUNT, "rows M of the kernel; beyond its eigenvalues the spectrum is 0", "rows"),
    Column(
        "eigenvalues",
        pa.list_(_REAL),
        "eigenvalues, descending; singular values for asymmetric_sign; null where K was not decomposed",
    ),
)

_REALS = pa.list_(_REAL)
_FROM_PRODUCTS = "|K v - s v| of each, for unit vectors v: an eigenvalue lies within that distance"
DENSITIES = (
    *_SET_COLUMNS,
    Column("groups", pa.list_(_NAME), "groups of the layer set"),
    Column("kernel_size", _COUNT, "rows M of the kernel", "rows"),
    Column("trace", _REAL, "trace of the kernel, exact"),
    Column("frobenius_norm", _REAL, "Frobenius norm of the kernel, exact"),
    Column("noise_floor", _REAL, "eigenvalues below cannot be told from 0"),
    Column("largest", _REALS, "largest eigenvalues that were found, descending"),
    Column("largest_residuals", _REALS, _FROM_PRODUCTS),
    Column("smallest", _REALS, "smallest eigenvalues that were found, ascending; the smallest there is may be smaller"),
    Column("smallest_residuals", _REALS, _FROM_PRODUCTS),
    Column("probe_seed", _COUNT, "seed of the random vectors"),
    Column("nodes", _REALS, "x of the quadrature: the sum of w f(x) estimates that of f over all eigenvalues"),
    Column("weights", _REALS, "w of the quadrature; they add up to M", "eigenvalues"),
    Column("grid", _REALS, "eigenvalues at which the density is given, even on a logarithmic scale"),
    Column(
        "density",
        _REALS,
        "quadrature smoothed by Gaussians of 0.1 powers of ten, with what lies below noise_floor put there; its "
        "integral over log10 of the grid is M; empty for a kernel of zeros",
        "eigenvalues for each power of ten",
    ),
    Column("ridge_steps", _COUNT, "size of the Krylov space of the ridge path", "steps"),
    Column("passes", _COUNT, "how often all stored tiles of the layer set were read"),
)

PREDICTIONS = (
    Column("cell_id", _NAME, "identity of the cell"),
    *_SET_COLUMNS,
    Column("lambda_given", _REAL, "lambda as the spec gives it"),
    Column("example", _COUNT, "row of the evaluation example in its split, counted from 0"),
    Column("output", _COUNT, "output, counted from 0; the margin is output 0"),
    Column("prediction", _REAL, "f_0 + J d"),
)

TRAJECTORIES = (
    Column("cell_id", _NAME, "identity of the cell"),
    *_SET_COLUMNS,
    Column("lambda_given", _REAL, "lambda as the spec gives it"),
    Column("step", _COUNT, "updates made", "steps"),
    *(
        column
        for model, whose in _MODELS
        for column in (
            *_scores(model, whose),
            Column(f"{model}_distance", _REAL, f"{_DISTANCE}, {whose}"),
            *_pulled(model, whose, "the updates since the row before"),
        )
    ),
    *KERNEL_COLUMNS,
    *DIFFERENCE_COLUMNS,
)

UPDATES = (
    Column("cell_id", _NAME, "identity of the cell"),
    *_SET_COLUMNS,
    Column("lambda_given", _REAL, "lambda as the spec gives it"),
    Column("group", _NAME, "group of parameters"),
    Column("weight_norm", _REAL, "|W_0| of the weights that the group adapts, Frobenius"),
    Column("finetune_update_norm", _REAL, "|W - W_0| of the trained model"),
    Column("linearized_update_norm", _REAL, "|W - W_0| for the parameters of the trained linearization"),
)

_BOTH = "of K + S"
_ROUNDED = "not resolved where below noise_floor"
ADDITIONS = (
    *_SET_COLUMNS,
    Column("added_layer", _COUNT, "layer that is added to the set"),
    Column("added_groups", pa.list_(_NAME), "groups of that layer which are in some layer set, but not in this one"),
    Column("n_parameters_added", _COUNT, "parameters of those, without structurally zero ones", "parameters"),
    Column("kernel_sigma_max", _REAL, "largest eigenvalue of the layer set's kernel K"),
    Column("kernel_sigma_min", _REAL, "smallest eigenvalue of K"),
    Column("kernel_condition_number", _REAL, "(sigma_max + s)/(max(sigma_min, 0) + s) of K, s = sigma"),
    Column("block_sigma_max", _REAL, "largest eigenvalue of the added block S"),
    Column("block_sigma_min", _REAL, "smallest eigenvalue of S"),
    Column("sigma_max", _REAL, f"largest eigenvalue {_BOTH}, measured"),
    Column("sigma_max_lower", _REAL, "which sigma_max cannot be below (Weyl)"),
    Column("sigma_max_upper", _REAL, "which sigma_max cannot exceed (Weyl)"),
    Column("sigma_max_first_order", _REAL, "sigma_max to first order in S; cannot exceed it either"),
    Column("sigma_min", _REAL, f"smallest eigenvalue {_BOTH}, measured; {_ROUNDED}"),
    Column("sigma_min_lower", _REAL, "which sigma_min cannot be below (Weyl)"),
    Column("sigma_min_upper", _REAL, "which sigma_min cannot exceed (Weyl)"),
    Column("sigma_min_first_order", _REAL, "sigma_min to first order in S; cannot be below it either"),
    Column("noise_floor", _REAL, f"eigenvalues {_BOTH} below cannot be told from 0"),
    Column("sigma", _REAL, "kernel.sigma of the spec"),
    Column("condition_number", _REAL, f"(sigma_max + s)/(max(sigma_min, 0) + s) {_BOTH}, s = sigma, measured"),
    Column(
        "condition_number_upper",
        _REAL,
        "which condition_number cannot exceed; infinite where sigma_min_lower is -sigma or less by rounding",
    ),
    Column("condition_number_first_order", _REAL, "condition_number of the first-order sigma_max and sigma_min"),
)

COMBINATIONS = (
    Column("sweep", _NAME, "name of the sweep"),
    Column("task_a", _NAME, "task with displacement d_i; the one that is negated"),
    Column("task_b", _NAME, "task with displacement d_j; for a negation the other task"),
    Column("eval_task", _NAME, "task on whose evaluation examples the numbers are: task_a or task_b"),
    Column("operation", _NAME, "interpolation (1 - a) d_i + a d_j, addition a (d_i + d_j), or negation -a d_i"),
    Column("coefficient", _REAL, "a of the operation"),
    _RANK,
    _LEARNING_RATE,
    Column("seed", _COUNT, "seed of the grid"),
    Column("n_train", _COUNT, "training examples of each task", "examples"),
    Column("outputs", _NAME, "which outputs are trained: full, trace or margin"),
    Column("layer_set", _NAME, "name of the layer set"),
    Column("lambda_given", _REAL, "lambda as the spec gives it, of both tasks"),
    Column("lambda_scale", _NAME, "absolute, or trace: in units of trace/M"),
    *(
        column
        for model, whose in (
            ("finetune", "of the model with the combined weights"),
            ("linearized", "of the linearization with its own weights combined"),
        )
        for column in (
            Column(f"{model}_eval_loss", _REAL, f"half the mean squared residual over evaluation examples, {whose}"),
            *(
                Column(f"{model}_eval_{metric}", _REAL, f"{meaning} on evaluation examples, {whose}")
                for metric, meaning in _METRICS
            ),
        )
    ),
    Column(
        "linearity_gap",
        _REAL,
        "|f - f'| / |f| of the outputs f of the model with the combined weights and f' = f_0 + u (f_i - f_0) + "
        "v (f_j - f_0), the outputs of the trained models combined with the weights of d_i and d_j; 0 for a model that "
        "is linear in its weights",
    ),
)

_INTERVAL_ENDS = (("low", "lower"), ("high", "upper"))


def _coefficient(name: str, meaning: str) -> tuple[Column, ...]:
    ends = (Column(f"{name}_{end}", _REAL, f"{which} end of its 95 % interval") for end, which in _INTERVAL_ENDS)
    error = Column(f"{name}_interval_error", _REAL, "Monte Carlo standard error of these ends: of the less certain one")
    return Column(name, _REAL, meaning), *ends, error


CORRELATIONS = (
    Column("sweep", _NAME, "name of the sweep"),
    Column("model", _NAME, "folder name or hub id of the model"),
    *_VARIANT_COLUMNS,
    Column("n_train", _COUNT, "training examples", "examples"),
    Column("lambda_given", _REAL, "lambda as the spec gives it"),
    Column("lambda_scale", _NAME, "absolute, or trace: in units of trace/M"),
    Column(
        "regime",
        _NAME,
        "layer sets that are correlated: all; linear, those whose geometric mean of difference_eval_relative over "
        "seeds is at most 0.1 at this lambda; or nonlinear, the others",
    ),
    Column("quantity", _NAME, "column of `cells` that is known without fine-tuning, or from the linearization alone"),
    Column("on_log_scale", _FLAG, "whether the quantity's logarithm is averaged and correlated"),
    Column("outcome", _NAME, "column of `cells` that fine-tuning ended with"),
    Column(
        "n_layer_sets",
        _COUNT,
        "layer sets of the regime that have both in every seed and did not diverge; others are left out",
    ),
    Column("n_seeds", _COUNT, "seeds over which a layer set is averaged before it is correlated"),
    *_coefficient("pearson", "Pearson correlation across layer sets; null for fewer than 3, or where one is constant"),
    *_coefficient("spearman", "Spearman correlation of the same"),
    *_coefficient("kendall", "Kendall's tau-b of the same"),
    *_coefficient(
        "partial_spearman",
        "Spearman correlation of what ranks of n_parameters leave of both ranks; null for fewer than 4, or where they "
        "leave nothing",
    ),
    Column("majority_accuracy", _REAL, "accuracy of always saying the commonest training class, averaged over seeds"),
)

TABLES: dict[str, Sequence[Column]] = {
    "cells": CELLS,
    "spectra": SPECTRA,
    "predictions": PREDICTIONS,
    "densities": DENSITIES,
    "additions": ADDITIONS,
    "trajectories": TRAJECTORIES,
    "updates": UPDATES,
    "combinations": COMBINATIONS,
    "correlations": CORRELATIONS,
}
