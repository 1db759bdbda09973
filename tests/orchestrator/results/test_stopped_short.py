"""What is said where trainings ended long before their end: only of cells that aim at their exact solution."""

from typing import Any

import pyarrow as pa
import pytest

from orchestrator.results.stopped_short import stopped_short
from orchestrator.spec import Spec
from tests.orchestrator.sweeps import spec_of

FAR: dict[str, Any] = {
    "outputs": "full", "n_train": 10, "lambda_given": 0.1, "initial_train_loss": 1.0, "train_loss": 0.2,
    "linearized_train_loss": 0.9, "linearized_status": "finished", "finetune_n_train": 10,
}  # fmt: skip
NEAR = FAR | {"linearized_train_loss": 0.59, "lambda_given": 1.0}  # 0.6 is half of the way


def spec_with(**training: Any) -> Spec:
    return spec_of({"finetune": {"learning_rate": 0.1, "epochs": 2} | training})


def said(*rows: dict[str, Any], spec: Spec | None = None) -> str:
    return stopped_short(spec or spec_with(), pa.Table.from_pylist(list(rows)))


def test_the_sentence_counts_the_cells_and_has_their_mean_losses_and_the_cure():
    other = FAR | {"lambda_given": 10.0, "initial_train_loss": 0.5, "train_loss": 0.1, "linearized_train_loss": 0.5}
    assert said(FAR, NEAR, other) == (
        "In 2 of 3 trained cells (lambda 0.1 to 10) training stopped long before its end: on average the training loss "
        "of the linearization went from 0.75 to 0.7, and its exact solution has 0.15. Raise finetune.epochs or "
        "finetune.learning_rate."
    )
    assert said(FAR).startswith("In 1 of 1 trained cells (lambda 0.1) ")
    assert said(NEAR) == ""
    assert said(NEAR | {"linearized_train_loss": 0.61}) != ""


@pytest.mark.parametrize(
    "changed",
    [
        {"outputs": "trace"},  # the ridge solution has another kernel
        {"finetune_n_train": 100},  # and here other examples
        {"linearized_status": "diverged"},
        {"linearized_status": "stopped early"},
        {"linearized_train_loss": None, "linearized_status": None, "finetune_n_train": None},
        {"train_loss": None},
        {"train_loss": 0.995, "linearized_train_loss": 0.999},  # there is hardly a way to go
        {"linearized_train_loss": 1.1},  # a larger rate would make it worse
    ],
    ids=str,
)
def test_cells_that_aim_at_something_else_or_ended_otherwise_do_not_count(changed: dict[str, Any]):
    assert said(FAR | changed, NEAR) == ""


@pytest.mark.parametrize(
    "training",
    [{"loss": "cross_entropy"}, {"regularizer": "selective"}, {"early_stopping_patience": 2}],
    ids=str,
)
def test_trainings_without_that_solution_are_not_compared_with_it(training: dict[str, Any]):
    assert said(FAR, spec=spec_with(**training)) == ""
    assert said(FAR, spec=spec_of()) == ""
