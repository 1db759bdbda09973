"""The table that combinations fill."""

from orchestrator.stages.base.columns import LEARNING_RATE, METRICS, RANK
from orchestrator.stages.base.tables import COUNT, NAME, REAL, Column, Table

_COMBINATIONS = (
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


COMBINATIONS = Table(
    name="combinations",
    columns=_COMBINATIONS,
    about="One row two tasks, task to evaluate, operation, coefficient and lambda, of every layer set, seed "
    "and training-set size; written with `finetune.combinations`. [What is combined](training.md#combining-tasks).",
    rows_from="orchestrator.stages.combine.rows:combinations_rows",
    wanted=lambda spec: spec.finetune is not None and spec.finetune.combinations is not None,
    hint="give the spec `finetune.combinations` and at least two tasks, and run",
)
