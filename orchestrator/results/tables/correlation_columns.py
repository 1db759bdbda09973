"""Columns of the table `correlations`, which is made of `cells`."""

from orchestrator.stages.base.columns import VARIANT_COLUMNS
from orchestrator.stages.base.tables import COUNT, FLAG, NAME, REAL, Column, Table
from orchestrator.stages.compare.columns import TRAIN, trains

_INTERVAL_ENDS = (("low", "lower"), ("high", "upper"))


def _coefficient(name: str, meaning: str) -> tuple[Column, ...]:
    ends = (Column(f"{name}_{end}", REAL, f"{which} end of its 95 % interval") for end, which in _INTERVAL_ENDS)
    error = Column(f"{name}_interval_error", REAL, "Monte Carlo standard error of these ends: of the less certain one")
    return Column(name, REAL, meaning), *ends, error


_CORRELATIONS = (
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
    Column(
        "quantity",
        NAME,
        "column of `cells` that is known without fine-tuning, or from the linearization alone; or contribution_to_all, "
        "where `contributions` is written: the sum of `contribution` over the layer set's blocks in the largest set",
    ),
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
        "Spearman correlation of the residuals of both ranks after a regression on the ranks of n_parameters; null "
        "for fewer than 4, or where the residuals are 0",
    ),
    Column("majority_accuracy", REAL, "accuracy of the majority baseline, averaged over seeds"),
)

CORRELATIONS = Table(
    name="correlations",
    columns=_CORRELATIONS,
    about="One row a quantity, outcome, regime, lambda, training-set size, task, rank and learning rate: how "
    "well the quantity orders layer sets; written where the spec has a section `finetune`. "
    "[How to read it](numbers.md#correlations).",
    rows_from="",
    wanted=trains,
    hint=TRAIN,
)
