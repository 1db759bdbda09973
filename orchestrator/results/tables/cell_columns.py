"""Columns of `cells`: one row a cell."""

import pyarrow as pa

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
    TASK,
    Column,
    pulled,
    scores,
)

GRID_COLUMNS = (
    Column("cell_id", NAME, "identity of the cell: hash of everything that fixes its numbers"),
    Column("sweep", NAME, "name of the sweep"),
    Column("model", NAME, "folder name or hub id of the model"),
    TASK,
    Column("task_kind", NAME, "classification or regression"),
    Column("adapter", NAME, "lora or none"),
    RANK,
    Column(
        "rank_threshold",
        COUNT,
        "smallest r with r (r + 1)/2 > K N for N training examples and K outputs that are trained, from which on LoRA "
        "has no spurious local minima if the model is linear in its weights (arXiv 2402.11867); null without adapter",
    ),
    Column("head", NAME, "kind of head"),
    Column("head_in_kernel", FLAG, "whether the head's parameters are in the kernel"),
    Column("kernel", NAME, "sgd, sign or asymmetric_sign"),
    Column("outputs", NAME, "which outputs the kernel keeps: full, trace or margin"),
    Column("dtype", NAME, "precision of model and Jacobian"),
    LEARNING_RATE,
    Column("seed", COUNT, "seed of the grid"),
    Column("n_train", COUNT, "training examples", "examples"),
    Column("n_eval", COUNT, "evaluation examples", "examples"),
    Column("repeats_in_train", COUNT, "training examples whose text an earlier one has", "examples"),
    Column("eval_in_train", COUNT, "evaluation examples whose text is a training example's too", "examples"),
    Column("layer_set", NAME, "name of the layer set"),
    Column("n_layers", COUNT, "layers that the set touches", "layers"),
    Column("lowest_layer", COUNT, "lowest layer of the set; null if it touches none"),
    Column("highest_layer", COUNT, "highest layer of the set; null if it touches none"),
    Column("n_parameters", COUNT, "parameters of the set, without structurally zero ones", "parameters"),
    Column("lambda_given", REAL, "lambda as the spec gives it"),
    Column("lambda_scale", NAME, "absolute, or trace: in units of trace/M"),
)

_SINGLE = "in float32; null where the model is in float32 or float64"
SPECTRUM_COLUMNS = (
    Column("kernel_size", COUNT, "rows M of the kernel", "rows"),
    Column("sigma_max", REAL, "largest eigenvalue"),
    Column("sigma_min", REAL, "smallest eigenvalue"),
    Column("trace", REAL, "trace of the kernel"),
    Column("condition_number", REAL, "sigma_max / sigma_min; infinite where sigma_min <= 0"),
    Column("condition_number_resolved", FLAG, "whether sigma_min exceeds the noise floor; if not, it is noise"),
    Column("condition_number_fixed_sigma", REAL, "(sigma_max + s)/(sigma_min + s) with s = kernel.sigma"),
    Column("condition_number_relative_sigma", REAL, "the same with s = kernel.relative_sigma * trace/M"),
    Column("effective_rank", REAL, "exp of the entropy of the normalised spectrum", "modes"),
    Column("label_alignment", REAL, "<K, YY'> / (|K| |YY'|), Frobenius norms"),
    Column("decay_exponent", REAL, "a of the fit sigma_i ~ i^-a above the noise floor"),
    Column("noise_floor", REAL, "eigenvalues below cannot be told from 0"),
    Column(
        "row_precision_error",
        REAL,
        f"largest over the groups: |J - J32| / |J32| of the first training examples, J32 of the same model {_SINGLE}",
    ),
    Column("kernel_precision_error", REAL, f"the same for the kernel of all captured groups {_SINGLE}"),
    Column(
        "feature_share_train",
        REAL,
        "|F r| / |K r| over training examples: K = P + F, P the head's block, F all others, r = y - f_0; above 1 where "
        "the two work against each other, null where the head is out of the kernel or all there is",
    ),
    Column("feature_share_eval", REAL, "the same for the rows of K between evaluation and training examples"),
    Column("feature_trace_share", REAL, "trace F / trace K"),
)

_INITIAL = "of the model before fine-tuning"
RIDGE_COLUMNS = (
    Column("lambda", REAL, "lambda of (1/2)|J d - r|^2 + (lambda/2)|d|^2, absolute"),
    Column("initial_train_loss", REAL, f"train_loss {_INITIAL}"),
    Column("initial_eval_loss", REAL, f"eval_loss {_INITIAL}"),
    Column(
        "train_loss",
        REAL,
        "half the mean over training examples of the squared residual, summed over outputs",
    ),
    Column("eval_loss", REAL, "the same over evaluation examples"),
    Column("objective", REAL, "(1/2)|J d - r|^2 + (lambda/2)|d|^2 at its minimum"),
    Column(
        "parameter_distance",
        REAL,
        "|d|, the distance from the pretrained parameters; for `outputs: trace` and `kernel: sign` a norm in the "
        "kernel's space, sqrt(tr a'Ka) for a = (K + lambda I)^-1 r, and not to be set beside distances of parameters",
    ),
    Column("parameter_distance_bound", REAL, "|r| / (2 sqrt(lambda)), which |d| cannot exceed, in the same space"),
    Column("degrees_of_freedom", REAL, "trace of K (K + lambda I)^-1"),
    Column(
        "gcv",
        REAL,
        "generalised cross-validation, (1/M) |y - f|^2 / (1 - trace S/M)^2 for f = S y, the fit of a ridge head being "
        "part of S; null under a logistic head",
    ),
    Column(
        "leave_one_out_loss",
        REAL,
        "train_loss of leave-one-example-out residuals, a fitted head being fitted without the example too and the "
        "kernel held; null without eigenvectors",
    ),
    Column("missing_estimates", NAME, "why gcv or leave_one_out_loss is null; null where neither is"),
    Column(
        "ridge_residual",
        REAL,
        "|r - (K + lambda I) a| / |lambda a| where K was not decomposed, which no relative error of the training "
        "residuals lambda a exceeds; null where it was",
    ),
    Column("majority_accuracy", REAL, "eval_accuracy of always saying the commonest training class"),
    *(
        Column(f"{when}{split}_{metric}", REAL, f"{meaning} on {examples}" + (f", {_INITIAL}" if when else ""))
        for when, split, examples in (
            ("", "train", "training examples"),
            ("", "eval", "evaluation examples"),
            ("initial_", "eval", "evaluation examples"),
        )
        for metric, meaning in METRICS
    ),
)

PROVENANCE_COLUMNS = tuple(
    Column(name, kind, meaning, unit, provenance=True)
    for name, kind, meaning, unit in (
        ("stage_id", NAME, "stage that computed the cell", ""),
        ("host", NAME, "machine that computed it", ""),
        ("device", NAME, "processor or accelerator that computed it", ""),
        ("job", NAME, "Slurm job; null outside Slurm", ""),
        ("attempt", COUNT, "how often the stage was begun in its run", ""),
        ("seconds", REAL, "time of the stage divided by its cells", "s"),
        ("peak_memory_bytes", COUNT, "peak resident memory of the worker during the stage", "B"),
        ("finished", pa.timestamp("ms", tz="UTC"), "when the stage was finished", ""),
        ("python", NAME, "version of Python", ""),
        ("ntksweep", NAME, "version of ntksweep", ""),
        ("torch", NAME, "version of torch", ""),
        ("transformers", NAME, "version of transformers", ""),
        ("numpy", NAME, "version of numpy", ""),
        ("scipy", NAME, "version of scipy", ""),
        ("git", NAME, "commit of ntksweep's checkout; null when installed from a package", ""),
        (
            "halvings",
            COUNT,
            "most often that a stage below the cell had its batches halved to fit into memory; where not 0, numbers "
            "agree with those of whole batches to rounding only",
            "",
        ),
        (
            "fallback",
            NAME,
            "why the kernel was decomposed on the processor although compute.device asks for a GPU; null where it was "
            "not",
            "",
        ),
    )
)

TRAINING_COLUMNS = (
    Column(
        "head_trained",
        FLAG,
        "whether the trained model's head is trained; its linearization lacks a head that is not in the kernel; null "
        "where nothing is trained",
    ),
    *(
        column
        for model, whose in MODELS
        for column in (
            Column(f"{model}_status", NAME, f"how training ended {whose}: finished, stopped early, diverged"),
            Column(f"{model}_steps", COUNT, f"updates that made the weights {whose}", "steps"),
            Column(f"{model}_failed_step", COUNT, f"updates before the loss exploded, {whose}; null if it did not"),
            *scores(model, whose),
            Column(f"{model}_distance", REAL, f"{DISTANCE}, {whose}"),
            *pulled(model, whose, "all updates"),
        )
    ),
    Column(
        "finetune_distance_bound",
        REAL,
        "sqrt(2 R_0 / lambda), R the summed loss: the distance cannot exceed it where training has lowered "
        "R + (lambda/2)|theta - theta_0|^2; null for other losses and regularizers",
    ),
    Column(
        "finetune_curvature",
        REAL,
        "b, estimated: the largest |d^2 f/dt^2| / |theta - theta_0|^2 of a few training examples' outputs at three "
        "places of the way from theta_0 to theta; null, as the two that follow, of models divided by `sharding`",
    ),
    Column("finetune_linearization_error", REAL, "|f(theta) - f(theta_0) - J (theta - theta_0)| of the same outputs"),
    Column(
        "finetune_linearization_bound",
        REAL,
        "(b/2) |theta - theta_0|^2, which the error does not exceed if b is the largest of the whole way",
    ),
    *KERNEL_COLUMNS,
    *DIFFERENCE_COLUMNS,
)

CELLS = (*GRID_COLUMNS, *SPECTRUM_COLUMNS, *RIDGE_COLUMNS, *TRAINING_COLUMNS, *PROVENANCE_COLUMNS)
