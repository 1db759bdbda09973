"""The table about Hessians of outputs."""

from orchestrator.stages.base.columns import SET_COLUMNS
from orchestrator.stages.base.tables import COUNT, NAME, REAL, Column, Table

_OVER = "over the outputs of the examples"

_SMOOTHNESS = (
    *SET_COLUMNS,
    Column("place", NAME, "random: theta_0 + r v, v a random unit vector; trained: the weights that a cell ends with"),
    Column("distance", REAL, "|theta - theta_0| over all trained parameters: r, or what training moved"),
    Column("cell_id", NAME, "identity of the cell; null at random places, which all cells of the layer set share"),
    Column("lambda_given", REAL, "lambda as the spec gives it; null at random places"),
    Column("examples", COUNT, "evaluation examples, the first ones", "examples"),
    Column(
        "hessian_norm_max",
        REAL,
        f"largest spectral norm of an output's Hessian in the trained parameters, {_OVER}; 0 for a linear model, null "
        "where a derivative is not finite",
    ),
    Column("hessian_norm_mean", REAL, f"mean of the same {_OVER}"),
    Column(
        "hessian_residual",
        REAL,
        f"largest |H v - s v| / |s| {_OVER}, for the unit vector v and the value s at which the iteration for a norm "
        "ended: an eigenvalue of H is as close to s",
    ),
)


SMOOTHNESS_TABLE = Table(
    name="smoothness",
    columns=_SMOOTHNESS,
    about="One row for each radius around theta_0, of every layer set, seed and training-set size, and one for each "
    "trained cell; written with `finetune.smoothness`. [What is measured](training.md#smoothness).",
    rows_from="orchestrator.stages.smoothness.rows:smoothness_rows",
    wanted=lambda spec: spec.finetune is not None and spec.finetune.smoothness is not None,
    hint="give the spec `finetune.smoothness` and run",
)
