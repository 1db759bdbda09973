"""Columns and tables that solve stages fill."""

from orchestrator.stages.base.columns import METRICS, SET_COLUMNS
from orchestrator.stages.base.tables import COUNT, FLAG, NAME, NAMES, REAL, REALS, Column, Table

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
    Column("effective_rank", REAL, "exp of the entropy of the normalized spectrum", "modes"),
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
    Column(
        "lambda",
        REAL,
        "lambda of (1/2)|J d - r|^2 + (lambda/2)|d|^2, absolute; null where it is in units of a kernel that is zero",
    ),
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
        "generalized cross-validation, (1/M) |y - f|^2 / (1 - trace S/M)^2 for f = S y, the fit of a ridge head being "
        "part of S; null under a logistic head",
    ),
    Column(
        "leave_one_out_loss",
        REAL,
        "train_loss of leave-one-example-out residuals, a fitted head being fitted without the example too and the "
        "kernel held; null without eigenvectors",
    ),
    Column(
        "log_evidence",
        REAL,
        "log-density of r = y - f_0 under N(0, t (K + lambda I)/lambda), each target alone, for the most likely t, "
        "2 objective / (entries of r); the ridge solution is its mean; null under a fitted head, which saw the labels",
    ),
    Column("missing_estimates", NAME, "why lambda, gcv, leave_one_out_loss or log_evidence is null; null if none is"),
    Column(
        "ridge_residual",
        REAL,
        "|r - (K + lambda I) a| / |lambda a| where K was not decomposed, which no relative error of the training "
        "residuals lambda a exceeds; null where it was",
    ),
    Column(
        "majority_accuracy",
        REAL,
        "eval_accuracy of the majority baseline, which always predicts the most frequent training class",
    ),
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

_SPECTRA = (
    *SET_COLUMNS,
    Column("groups", NAMES, "groups of the layer set"),
    Column("kernel_size", COUNT, "rows M of the kernel; beyond its eigenvalues the spectrum is 0", "rows"),
    Column(
        "eigenvalues",
        REALS,
        "eigenvalues, descending; singular values for asymmetric_sign; null where K was not decomposed",
    ),
)

_FROM_PRODUCTS = "|K v - s v| of each, for unit vectors v: an eigenvalue lies within that distance"
_DENSITIES = (
    *SET_COLUMNS,
    Column("groups", NAMES, "groups of the layer set"),
    Column("kernel_size", COUNT, "rows M of the kernel", "rows"),
    Column("trace", REAL, "trace of the kernel, exact"),
    Column("frobenius_norm", REAL, "Frobenius norm of the kernel, exact"),
    Column("noise_floor", REAL, "eigenvalues below cannot be told from 0"),
    Column("largest", REALS, "largest eigenvalues that were found, descending"),
    Column("largest_residuals", REALS, _FROM_PRODUCTS),
    Column("smallest", REALS, "smallest eigenvalues that were found, ascending; the smallest there is may be smaller"),
    Column("smallest_residuals", REALS, _FROM_PRODUCTS),
    Column("probe_seed", COUNT, "seed of the random vectors"),
    Column("nodes", REALS, "x of the quadrature: the sum of w f(x) estimates that of f over all eigenvalues"),
    Column("weights", REALS, "w of the quadrature; they add up to M", "eigenvalues"),
    Column("grid", REALS, "eigenvalues at which the density is given, even on a logarithmic scale"),
    Column(
        "density",
        REALS,
        "quadrature smoothed by Gaussians of 0.1 powers of ten, with what lies below noise_floor put there; its "
        "integral over log10 of the grid is M; empty for a kernel of zeros",
        "eigenvalues for each power of ten",
    ),
    Column("ridge_steps", COUNT, "size of the Krylov space of the ridge path", "steps"),
    Column("passes", COUNT, "how often all stored tiles of the layer set were read"),
)

_PREDICTIONS = (
    Column("cell_id", NAME, "identity of the cell"),
    *SET_COLUMNS,
    Column("lambda_given", REAL, "lambda as the spec gives it"),
    Column("example", COUNT, "row of the evaluation example in its split, counted from 0"),
    Column("output", COUNT, "output, counted from 0; the margin is output 0"),
    Column("prediction", REAL, "f_0 + J d"),
    Column(
        "predictive_variance",
        REAL,
        "variance of the prediction under the Gaussian process of log_evidence, (t/lambda) [k(x,x) - k(x) (K + lambda "
        "I)^-1 k(x)']; null where log_evidence is, and without kernel.eigenvectors",
    ),
    Column("observation_variance", REAL, "that of a label, predictive_variance + t"),
)


SPECTRA = Table(
    name="spectra",
    columns=_SPECTRA,
    about="One row a layer set, seed and training-set size.",
    rows_from="orchestrator.stages.solve.rows:spectra_rows",
)

PREDICTIONS = Table(
    name="predictions",
    columns=_PREDICTIONS,
    about="One row an evaluation example, output and cell; written with `results.predictions: true`.",
    rows_from="orchestrator.stages.solve.rows:predictions_rows",
    wanted=lambda spec: spec.results.predictions,
    hint="set results.predictions: true and run",
)

DENSITIES = Table(
    name="densities",
    columns=_DENSITIES,
    about="One row a layer set, seed and training-set size whose kernel was not decomposed: the ends of its "
    "spectrum and an estimate of where its eigenvalues lie; written with `kernel.decomposition: iterative`. "
    "[How exact they are](numbers.md#without-a-decomposition).",
    rows_from="orchestrator.stages.solve.rows:densities_rows",
    wanted=lambda spec: spec.kernel.decomposition == "iterative",
    hint="set kernel.decomposition: iterative and run",
)
