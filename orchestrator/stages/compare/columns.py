"""Columns and tables that comparisons fill."""

from typing import TYPE_CHECKING

from orchestrator.stages.base.columns import (
    DIFFERENCE_COLUMNS,
    DISTANCE,
    KERNEL_COLUMNS,
    MODELS,
    SET_COLUMNS,
    loss_rises,
    pulled,
    scores,
)
from orchestrator.stages.base.tables import COUNT, FLAG, NAME, REAL, Column, Table

if TYPE_CHECKING:
    from orchestrator.spec import Spec

TRAINING_COLUMNS = (
    Column(
        "head_trained",
        FLAG,
        "whether the trained model's head is trained; its linearization lacks a head that is not in the kernel; null "
        "where nothing is trained",
    ),
    Column(
        "finetune_n_train",
        COUNT,
        "examples that the cell and its linearization are trained on, and that their train_* columns are of; n_train "
        "where finetune.n_train does not say otherwise, null where nothing is trained",
        "examples",
    ),
    Column(
        "finetune_eval_in_train",
        COUNT,
        "evaluation examples whose text is one of those; null where finetune_n_train is n_train, for eval_in_train",
        "examples",
    ),
    *(
        column
        for model, whose in MODELS
        for column in (
            Column(f"{model}_status", NAME, f"how training ended {whose}: finished, stopped early, diverged"),
            Column(f"{model}_steps", COUNT, f"updates that made the weights {whose}", "steps"),
            loss_rises(model, whose, "before those weights"),
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
        "R + (lambda/2)|theta - theta_0|^2; null for regularizers other than l2sp",
    ),
    Column(
        "finetune_curvature",
        REAL,
        "b, estimated: the largest |d^2 f/dt^2| / |theta - theta_0|^2 of a few training examples' outputs at three "
        "places of the way from theta_0 to theta; null, as the two that follow, of sharded models (`sharding`)",
    ),
    Column("finetune_linearization_error", REAL, "|f(theta) - f(theta_0) - J (theta - theta_0)| of the same outputs"),
    Column(
        "finetune_linearization_bound",
        REAL,
        "(b/2) |theta - theta_0|^2, which the error does not exceed if b is the largest of the whole way",
    ),
    Column(
        "finetune_linearization_limit",
        REAL,
        "b R_0 / lambda, which finetune_linearization_bound cannot exceed where the distance keeps to its bound; known "
        "before training but for b",
    ),
    *KERNEL_COLUMNS,
    *DIFFERENCE_COLUMNS,
)

_TRAJECTORIES = (
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
            loss_rises(model, whose, "so far"),
            *pulled(model, whose, "the updates since the row before"),
        )
    ),
    Column(
        "finetune_distance_bound",
        REAL,
        "sqrt(2 R_0 / lambda), as in `cells`, which finetune_distance cannot exceed; null from where the objective has "
        "risen",
    ),
    *KERNEL_COLUMNS,
    *DIFFERENCE_COLUMNS,
)

_UPDATES = (
    Column("cell_id", NAME, "identity of the cell"),
    *SET_COLUMNS,
    Column("lambda_given", REAL, "lambda as the spec gives it"),
    Column("group", NAME, "group of parameters"),
    Column("weight_norm", REAL, "|W_0| of the weights that the group adapts, Frobenius"),
    Column("finetune_update_norm", REAL, "|W - W_0| of the trained model"),
    Column("linearized_update_norm", REAL, "|W - W_0| for the parameters of the trained linearization"),
)


TRAIN = "give the spec a section `finetune` and run"
"""Advice for users who ask for a table about training that a sweep lacks."""


def trains(spec: "Spec") -> bool:
    """Tell whether a sweep trains its cells."""
    return spec.finetune is not None


TRAJECTORIES = Table(
    name="trajectories",
    columns=_TRAJECTORIES,
    about="One row for each evaluation of a cell while its model or its linearization is trained; written where the "
    "spec has a section `finetune`. Columns of the model that has ended first are null from there on, and so are "
    "differences of the two.",
    rows_from="orchestrator.stages.compare.rows:trajectories_rows",
    wanted=trains,
    hint=TRAIN,
)

UPDATES = Table(
    name="updates",
    columns=_UPDATES,
    about="One row a cell and group that was trained; written where the spec has a section `finetune`.",
    rows_from="orchestrator.stages.compare.rows:updates_rows",
    wanted=trains,
    hint=TRAIN,
)
