"""The kind `batching`: a trial that the examples of a batch do not change each other's numbers."""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from orchestrator.stages.base.parameters import RowsParameters
from orchestrator.stages.base.scope import SeedScope
from orchestrator.stages.head import model_inputs
from orchestrator.store.stage import Stage, StageCost, StageKind
from orchestrator.sweep.passes import forward
from orchestrator.sweep.refinements import Groups

if TYPE_CHECKING:
    from orchestrator.sweep.variant import Variant

CROWD = 8
"""Most examples of the batches in which the trial checks that examples do not change each other's numbers."""


def cost(stage: Stage[RowsParameters], variant: "Variant") -> StageCost:
    """Return the cost of forward and backward passes for one output of the longest text, a few times and in a batch."""
    p, sizes = stage.parameters, variant.sizes
    together = 1 if p.scorer.batching == "alone" else min(CROWD, p.batch_size)
    longest = variant.sweep.spec.task.max_length / variant.survey.mean_tokens
    return 2 * forward(variant, (8 + together) * longest, at_once=longest) + StageCost(
        # One row of each text of a batch, and those of three texts that are compared.
        memory_bytes=(together + 3) * sizes.n_parameters * sizes.row_bytes,
    )


def plan(scope: SeedScope) -> None:
    """Add for each drawn training set the trial of the batches of captures, and of those in which cells are trained."""
    for groups in scope.variant.rows_used:
        for n_train in scope.drawn_sets:
            scope.add(trial(scope, n_train, groups))
        if scope.variant.sweep.spec.finetune is not None:
            for n_train in dict.fromkeys(map(scope.variant.sizes.trained_with, scope.drawn_sets)):
                scope.add(training_trial(scope, n_train, groups))


def trial(scope: SeedScope, n_train: int, groups: Groups) -> Stage[RowsParameters]:
    """Return the stage that tries the batches in which rows of the first `n_train` examples are captured.

    Args:
        scope: the seed.
        n_train: training examples.
        groups: one of the variant's `row_sets`.
    """
    drawn = scope.drawn_with(n_train)
    make = partial(Stage, BATCHING, scope.rows_of(groups), model_inputs(scope, drawn))
    return scope.kept((BATCHING.name, drawn, groups), make)


def training_trial(scope: SeedScope, n_train: int, groups: Groups) -> Stage[RowsParameters]:
    """Return the stage that tries the batches in which cells of a training-set size are trained; `groups` as above."""
    return Stage(BATCHING, _training_batches(scope, groups), model_inputs(scope, n_train))


def _training_batches(scope: SeedScope, groups: Groups) -> RowsParameters:
    """Return the parameters of training batches, which mix examples of any length."""
    rows, tokens = scope.rows_of(groups), scope.scorer.batch_tokens
    if scope.scorer.batching == "alone" or tokens == "auto":
        return rows
    scorer = replace(scope.scorer, batch_tokens=max(tokens, 2 * scope.variant.sweep.spec.task.max_length))
    return replace(rows, scorer=scorer, batch_size=max(rows.batch_size, 2))


BATCHING = StageKind(
    name="batching",
    parameters=RowsParameters,
    version=2,
    meaning="tries that the examples of a batch do not change each other's numbers",
    module="orchestrator.stages.batching.compute",
    plan=plan,
    cost=cost,
    runs_model=True,
)
