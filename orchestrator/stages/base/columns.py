"""Columns that more than one table has."""

from orchestrator.stages.base.tables import COUNT, NAME, REAL, Column

TASK = Column("task", NAME, "name of the task in grid.tasks; else file name or hub id of the data")
RANK = Column("adapter_rank", COUNT, "rank r of LoRA; null without adapter")
LEARNING_RATE = Column("learning_rate", REAL, "learning rate of fine-tuning; null where nothing is trained")
VARIANT_COLUMNS = (TASK, RANK, LEARNING_RATE)

METRICS = (
    ("accuracy", "accuracy"),
    ("mcc", "Matthews correlation"),
    ("f1", "F1, averaged over classes"),
    ("pearson", "Pearson correlation"),
    ("spearman", "Spearman correlation"),
    ("r2", "share of variance explained"),
)

SPLITS = (("train", "training examples"), ("eval", "evaluation examples"))
MODELS = (("finetune", "of the trained model"), ("linearized", "of the trained linearization"))
DISTANCE = "|theta - theta_0| over all trained parameters"


def scores(model: str, whose: str) -> tuple[Column, ...]:
    """Return the columns of losses and metrics of a model; `whose` names the model in their meanings."""
    losses = (
        Column(f"{model}_{split}_loss", REAL, f"half the mean squared residual over {examples}, {whose}")
        for split, examples in SPLITS
    )
    entropies = (
        Column(
            f"{model}_{split}_cross_entropy",
            REAL,
            f"mean cross-entropy over {examples} with outputs as logits, {whose}; null unless finetune.loss is "
            "cross_entropy",
        )
        for split, examples in SPLITS
    )
    metrics = (
        Column(f"{model}_{split}_{metric}", REAL, f"{meaning} on {examples}, {whose}")
        for split, examples in SPLITS
        for metric, meaning in METRICS
    )
    return *losses, *entropies, *metrics


def loss_rises(model: str, whose: str, when: str) -> Column:
    """Return the column that counts how often the objective of a model rose."""
    return Column(
        f"{model}_loss_rises",
        COUNT,
        f"evaluations, or steps of gradient descent, {when} at which (1/N) sum of losses + (lambda/2N)|theta - "
        f"theta_0|^2 had risen since the one before by more than rounding, {whose}; null for spd",
    )


def pulled(model: str, whose: str, steps: str) -> tuple[Column, ...]:
    """Return the columns with the share of `steps` in which lambda changed something of a model."""
    return (
        Column(
            f"{model}_pulled",
            REAL,
            f"share of {steps} at which lambda changed a gradient or a weight, {whose}; 0 means that it never acted",
        ),
        Column(
            f"{model}_pulled_tensors",
            REAL,
            f"share of the trained tensors that lambda changed, averaged over {steps}, {whose}",
        ),
    )


KERNEL_COLUMNS = (
    Column(
        "finetune_kernel_change",
        REAL,
        "|K - K_0| / |K_0|, kernel of a few training examples, with the outputs that the column `outputs` names",
    ),
    Column("finetune_kernel_alignment", REAL, "<K, K_0> / (|K| |K_0|) of the same"),
)

DIFFERENCE_COLUMNS = tuple(
    Column(f"difference_{split}_{name}", REAL, f"{meaning} on {examples}", unit)
    for split, examples in SPLITS
    for name, meaning, unit in (
        ("relative", "|f - f_lin| / |f| of the trained model f and the trained linearization f_lin", ""),
        ("relative_to_change", "|f - f_lin| / |f - f_0|, relative to what training changed", ""),
        ("kl", "mean KL divergence of softmax f_lin from softmax f", "nats"),
        ("agreement", "share on which both say the same class", ""),
    )
)

SET_COLUMNS = (
    Column("sweep", NAME, "name of the sweep"),
    *VARIANT_COLUMNS,
    Column("seed", COUNT, "seed of the grid"),
    Column("n_train", COUNT, "training examples", "examples"),
    Column("kernel", NAME, "sgd, sign or asymmetric_sign"),
    Column("outputs", NAME, "which outputs the kernel keeps: full, trace or margin"),
    Column("layer_set", NAME, "name of the layer set"),
)
