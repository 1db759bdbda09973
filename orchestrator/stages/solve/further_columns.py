"""Tables of what else a decomposition gives: contributions of blocks, and the linearized model while it trains."""

from orchestrator.stages.base.columns import DIFFERENCE_COLUMNS, METRICS, SET_COLUMNS, SPLITS
from orchestrator.stages.base.tables import NAME, NAMES, REAL, Column, Table

REMAINDERS = tuple(each for each in DIFFERENCE_COLUMNS if each.name.endswith(("_relative", "_relative_to_change")))
"""Columns of a trained cell that say how much of it is not linear."""

_CONTRIBUTIONS = (
    Column("cell_id", NAME, "identity of the cell"),
    *SET_COLUMNS,
    Column("lambda_given", REAL, "lambda as the spec gives it"),
    Column("groups", NAMES, "groups of the block: one, or those that share a block"),
    Column(
        "contribution",
        REAL,
        "<K_g a, K a> / |K a|^2, share of the block's K_g a in the change K a of the training outputs, a = "
        "(K + lambda I)^-1 r; those of a cell add up to 1, single ones may be negative or above 1; null where nothing "
        "changes",
    ),
    Column(
        "squared_distance_share",
        REAL,
        "|d_g|^2 / |d|^2 = a'K_g a / a'K a, share of the block in the square of `parameter_distance`, between 0 and 1",
    ),
    *REMAINDERS,
)

CONTRIBUTIONS = Table(
    name="contributions",
    columns=_CONTRIBUTIONS,
    about="One row a cell and block of its kernel: which layers carry the change, and beside that, where the cell was "
    "trained, what in it is not linear; written with `kernel.contributions: true`. "
    "[Formulas](numbers.md#contributions).",
    rows_from="orchestrator.stages.solve.further_rows:contributions_rows",
    wanted=lambda spec: spec.kernel.contributions,
    hint="set kernel.contributions: true and run",
)

_FLOW = (
    *SET_COLUMNS,
    Column("trained_by", NAME, "flow: gradient flow; descent: full-batch gradient descent"),
    Column("lambda_given", REAL, "lambda as the spec gives it; 0 for training without it"),
    Column("lambda", REAL, "lambda of (1/2)|J d - r|^2 + (lambda/2)|d|^2, absolute"),
    Column("time_given", REAL, "time t as the spec gives it"),
    Column("time", REAL, "t, absolute"),
    Column("step_size", REAL, "h = 1/(sigma_max + lambda); null for the flow"),
    Column("steps", REAL, "t/h, rounded, at most 2^53; null for the flow", "steps"),
    Column("parameter_distance", REAL, "|d_t|, as in `cells`"),
    *(
        Column(f"{split}_loss", REAL, f"half the mean over {examples} of the squared residual, summed over outputs")
        for split, examples in SPLITS
    ),
    *(
        Column(f"{split}_{metric}", REAL, f"{meaning} on {examples}")
        for split, examples in SPLITS
        for metric, meaning in METRICS
    ),
)

FLOW = Table(
    name="flow",
    columns=_FLOW,
    about="One row a layer set, seed, training-set size, way of training, lambda and time: the linearized model "
    "while it trains; written with `kernel.flow_times`. [Formulas](numbers.md#the-linearized-model-while-it-trains).",
    rows_from="orchestrator.stages.solve.further_rows:flow_rows",
    wanted=lambda spec: spec.kernel.flow_times is not None,
    hint="set kernel.flow_times and run",
)
