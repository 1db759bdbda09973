"""A worker has one model at a time, and frees a sharded one before the next, unless a stage still holds it."""

import weakref
from dataclasses import replace
from typing import Any

import torch

from finetune.parallel.process_group import ProcessGroup
from finetune.zero.scorer import ShardedScorer
from orchestrator.stages.context.worker_state import ModelCache
from tests.orchestrator.sweeps import plan_of, sweep_of

PARAMETERS = plan_of().solves[0].stage.parameters.problem.scorer


class CircularScorer(ShardedScorer):
    """A sharded model that refers to itself, as DeepSpeed's do."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.itself = self


class CircularModels(ModelCache):
    """Loads such models, and counts those that live while it does."""

    def __init__(self) -> None:
        super().__init__(sweep_of())
        self.made: list[weakref.ref[CircularScorer]] = []
        self.living: list[int] = []

    def seed(self, seed: int) -> CircularScorer:
        scorer = self.scorer(replace(PARAMETERS, adapter_seed=seed), None, (), ProcessGroup())
        assert isinstance(scorer, CircularScorer)
        return scorer

    def _load(self, *_: Any) -> CircularScorer:
        self.living.append(self.count())
        scorer = CircularScorer()
        self.made.append(weakref.ref(scorer))
        return scorer

    def count(self) -> int:
        return sum(made() is not None for made in self.made)


def test_a_sharded_model_is_freed_before_the_next_and_when_it_is_forgotten():
    models = CircularModels()
    for seed in range(3):
        models.seed(seed)
    assert models.living == [0, 0, 0]
    models.forget()
    assert models.count() == 0


def test_a_sharded_model_that_is_held_is_not_freed():
    models = CircularModels()
    first = models.seed(0)
    models.seed(1)
    models.forget()
    assert [made() for made in models.made] == [first, None]
