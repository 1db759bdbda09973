"""Explicit schemas of the tables, documented column by column; columns are only ever added."""

from collections.abc import Sequence

import pyarrow as pa

from orchestrator.results.tables.cell_columns import CELLS
from orchestrator.results.tables.columns import (
    COUNT,
    DIFFERENCE_COLUMNS,
    DISTANCE,
    FLAG,
    KERNEL_COLUMNS,
    LEARNING_RATE,
    METRICS,
    MODELS,
    NAME,
    RANK,
    REAL,
    SET_COLUMNS,
    VARIANT_COLUMNS,
    Column,
    pulled,
    scores,
)

SPECTRA = (
    *SET_COLUMNS,
    Column("groups", pa.list_(NAME), "groups of the layer set"),
    Column("kernel_size", COUNT, "rows M of the kernel; beyond its eigenvalues the spectrum is 0", "rows"),
    Column(
        "eigenvalues",
        pa.list_(REAL),
        "eigenvalues, descending; singular values for asymmetric_sign; null where K was not decomposed",
    ),
)

_REALS = pa.list_(REAL)
_FROM_PRODUCTS = "|K v - s v| of each, for unit vectors v: an eigenvalue lies within that distance"
DENSITIES = (
    *SET_COLUMNS,
    Column("groups", pa.list_(NAME), "groups of the layer set"),
    Column("kernel_size", COUNT, "rows M of the kernel", "rows"),
    Column("trace", REAL, "trace of the kernel, exact"),
    Column("frobenius_norm", REAL, "Frobenius norm of the kernel, exact"),
    Column("noise_floor", REAL, "eigenvalues below cannot be told from 0"),
    Column("largest", _REALS, "largest eigenvalues that were found, descending"),
    Column("largest_residuals", _REALS, _FROM_PRODUCTS),
    Column("smallest", _REALS, "smallest eigenvalues that were found, ascending; the smallest there is may be smaller"),
    Column("smallest_residuals", _REALS, _FROM_PRODUCTS),
    Column("probe_seed", COUNT, "seed of the random vectors"),
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
    Column("ridge_steps", COUNT, "size of the Krylov space of the ridge path", "steps"),
    Column("passes", COUNT, "how often all stored tiles of the layer set were read"),
)

PREDICTIONS = (
    Column("cell_id", NAME, "identity of the cell"),
    *SET_COLUMNS,
    Column("lambda_given", REAL, "lambda as the spec gives it"),
    Column("example", COUNT, "row of the evaluation example in its split, counted from 0"),
    Column("output", COUNT, "output, counted from 0; the margin is output 0"),
    Column("prediction", REAL, "f_0 + J d"),
)

TRAJECTORIES = (
    Column("cell_id", NAME, "identity of the cell"),
    *SET_COLUMNS,
    Column("lambda_given", REAL, "lambda as the spec gives it"),
    Column("step", COUNT, "updates made", "steps"),
    *(
        column
        for model, whose in MODELS
        for column in (
            *scores(model, whose),
            Column(f"{model}_distance", REAL, f"{DISTANCE}, {whose}"),
            *pulled(model, whose, "the updates since the row before"),
        )
    ),
    *KERNEL_COLUMNS,
    *DIFFERENCE_COLUMNS,
)

UPDATES = (
    Column("cell_id", NAME, "identity of the cell"),
    *SET_COLUMNS,
    Column("lambda_given", REAL, "lambda as the spec gives it"),
    Column("group", NAME, "group of parameters"),
    Column("weight_norm", REAL, "|W_0| of the weights that the group adapts, Frobenius"),
    Column("finetune_update_norm", REAL, "|W - W_0| of the trained model"),
    Column("linearized_update_norm", REAL, "|W - W_0| for the parameters of the trained linearization"),
)

_BOTH = "of K + S"
_ROUNDED = "not resolved where below noise_floor"
ADDITIONS = (
    *SET_COLUMNS,
    Column("added_layer", COUNT, "layer that is added to the set"),
    Column("added_groups", pa.list_(NAME), "groups of that layer which are in some layer set, but not in this one"),
    Column("n_parameters_added", COUNT, "parameters of those, without structurally zero ones", "parameters"),
    Column("kernel_sigma_max", REAL, "largest eigenvalue of the layer set's kernel K"),
    Column("kernel_sigma_min", REAL, "smallest eigenvalue of K"),
    Column("kernel_condition_number", REAL, "(sigma_max + s)/(max(sigma_min, 0) + s) of K, s = sigma"),
    Column("block_sigma_max", REAL, "largest eigenvalue of the added block S"),
    Column("block_sigma_min", REAL, "smallest eigenvalue of S"),
    Column("sigma_max", REAL, f"largest eigenvalue {_BOTH}, measured"),
    Column("sigma_max_lower", REAL, "which sigma_max cannot be below (Weyl)"),
    Column("sigma_max_upper", REAL, "which sigma_max cannot exceed (Weyl)"),
    Column("sigma_max_first_order", REAL, "sigma_max to first order in S; cannot exceed it either"),
    Column("sigma_min", REAL, f"smallest eigenvalue {_BOTH}, measured; {_ROUNDED}"),
    Column("sigma_min_lower", REAL, "which sigma_min cannot be below (Weyl)"),
    Column("sigma_min_upper", REAL, "which sigma_min cannot exceed (Weyl)"),
    Column("sigma_min_first_order", REAL, "sigma_min to first order in S; cannot be below it either"),
    Column("noise_floor", REAL, f"eigenvalues {_BOTH} below cannot be told from 0"),
    Column("sigma", REAL, "kernel.sigma of the spec"),
    Column("condition_number", REAL, f"(sigma_max + s)/(max(sigma_min, 0) + s) {_BOTH}, s = sigma, measured"),
    Column(
        "condition_number_upper",
        REAL,
        "which condition_number cannot exceed; infinite where sigma_min_lower is -sigma or less by rounding",
    ),
    Column("condition_number_first_order", REAL, "condition_number of the first-order sigma_max and sigma_min"),
)

COMBINATIONS = (
    Column("sweep", NAME, "name of the sweep"),
    Column("task_a", NAME, "task with displacement d_i; the one that is negated"),
    Column("task_b", NAME, "task with displacement d_j; for a negation the other task"),
    Column("eval_task", NAME, "task on whose evaluation examples the numbers are: task_a or task_b"),
    Column("operation", NAME, "interpolation (1 - a) d_i + a d_j, addition a (d_i + d_j), or negation -a d_i"),
    Column("coefficient", REAL, "a of the operation"),
    RANK,
    LEARNING_RATE,
    Column("seed", COUNT, "seed of the grid"),
    Column("n_train", COUNT, "training examples of each task", "examples"),
    Column("outputs", NAME, "which outputs are trained: full, trace or margin"),
    Column("layer_set", NAME, "name of the layer set"),
    Column("lambda_given", REAL, "lambda as the spec gives it, of both tasks"),
    Column("lambda_scale", NAME, "absolute, or trace: in units of trace/M"),
    *(
        column
        for model, whose in (
            ("finetune", "of the model with the combined weights"),
            ("linearized", "of the linearization with its own weights combined"),
        )
        for column in (
            Column(f"{model}_eval_loss", REAL, f"half the mean squared residual over evaluation examples, {whose}"),
            *(
                Column(f"{model}_eval_{metric}", REAL, f"{meaning} on evaluation examples, {whose}")
                for metric, meaning in METRICS
            ),
        )
    ),
    Column(
        "linearity_gap",
        REAL,
        "|f - f'| / |f| of the outputs f of the model with the combined weights and f' = f_0 + u (f_i - f_0) + "
        "v (f_j - f_0), the outputs of the trained models combined with the weights of d_i and d_j; 0 for a model that "
        "is linear in its weights",
    ),
)

_INTERVAL_ENDS = (("low", "lower"), ("high", "upper"))


def _coefficient(name: str, meaning: str) -> tuple[Column, ...]:
    ends = (Column(f"{name}_{end}", REAL, f"{which} end of its 95 % interval") for end, which in _INTERVAL_ENDS)
    error = Column(f"{name}_interval_error", REAL, "Monte Carlo standard error of these ends: of the less certain one")
    return Column(name, REAL, meaning), *ends, error


CORRELATIONS = (
    Column("sweep", NAME, "name of the sweep"),
    Column("model", NAME, "folder name or hub id of the model"),
    *VARIANT_COLUMNS,
    Column("n_train", COUNT, "training examples", "examples"),
    Column("lambda_given", REAL, "lambda as the spec gives it"),
    Column("lambda_scale", NAME, "absolute, or trace: in units of trace/M"),
    Column(
        "regime",
        NAME,
        "layer sets that are correlated: all; linear, those whose geometric mean of difference_eval_relative over "
        "seeds is at most 0.1 at this lambda; or nonlinear, the others",
    ),
    Column("quantity", NAME, "column of `cells` that is known without fine-tuning, or from the linearization alone"),
    Column("on_log_scale", FLAG, "whether the quantity's logarithm is averaged and correlated"),
    Column("outcome", NAME, "column of `cells` that fine-tuning ended with"),
    Column(
        "n_layer_sets",
        COUNT,
        "layer sets of the regime that have both in every seed and did not diverge; others are left out",
    ),
    Column("n_seeds", COUNT, "seeds over which a layer set is averaged before it is correlated"),
    *_coefficient("pearson", "Pearson correlation across layer sets; null for fewer than 3, or where one is constant"),
    *_coefficient("spearman", "Spearman correlation of the same"),
    *_coefficient("kendall", "Kendall's tau-b of the same"),
    *_coefficient(
        "partial_spearman",
        "Spearman correlation of what ranks of n_parameters leave of both ranks; null for fewer than 4, or where they "
        "leave nothing",
    ),
    Column("majority_accuracy", REAL, "accuracy of always saying the commonest training class, averaged over seeds"),
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
