"""The table that additions fill."""

from orchestrator.stages.base.columns import SET_COLUMNS
from orchestrator.stages.base.tables import COUNT, NAMES, REAL, REALS, Column, Table

_BOTH = "of K + S"
_ROUNDED = "not resolved where below noise_floor"
_ADDITIONS = (
    *SET_COLUMNS,
    Column("added_layer", COUNT, "layer that is added to the set"),
    Column("added_groups", NAMES, "groups of that layer which are in some layer set, but not in this one"),
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
    Column("lambdas", REALS, "lambda, absolute, of the lists that follow, in the order of the grid"),
    Column(
        "kernel_ridge_form",
        REALS,
        "r'(K + lambda I)^-1 r for each lambda, r = y - f_0: 2/lambda times the least of the ridge objective",
    ),
    Column("ridge_form", REALS, f"the same {_BOTH}, which cannot exceed it"),
    Column(
        "ridge_form_lower",
        REALS,
        "which ridge_form cannot be below: kernel_ridge_form / (1 + block_sigma_max / (s + lambda)), s = "
        "max(0, kernel_sigma_min - its noise floor)",
    ),
)


ADDITIONS_TABLE = Table(
    name="additions",
    columns=_ADDITIONS,
    about="One row a layer set, layer that it lacks, seed and training-set size: what adding the layer does to "
    "the spectrum, beside what bounds and predicts it; written with `kernel.additions: true`. "
    "[What is proven and what is not](numbers.md#additions).",
    rows_from="orchestrator.stages.additions.rows:additions_rows",
    wanted=lambda spec: spec.kernel.additions,
    hint="set kernel.additions: true and run",
)
