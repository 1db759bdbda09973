"""A worker has one model at a time, and frees a divided one before the next, unless a stage still holds it."""

import weakref
from types import SimpleNamespace
from typing import Any

from finetune.zero.scorer import ShardedScorer
from orchestrator.stages.context.work import Work
from tests.orchestrator.sweeps import sweep_of

PARAMETERS: dict[str, Any] = dict.fromkeys(
    ("model", "adapter", "adapter_seed", "head", "head_seed", "n_outputs", "dtype"), 0
)


class CircularScorer(ShardedScorer):
    """A divided model that refers to itself, as DeepSpeed's do."""

    def __init__(self) -> None:
        self.itself = self


class CircularWork(Work):
    """Loads such models, and counts those that live while it does."""

    def __init__(self) -> None:
        super().__init__(sweep_of(), SimpleNamespace(artifacts=lambda: None))  # type: ignore[arg-type]
        self.made: list[weakref.ref[CircularScorer]] = []
        self.living: list[int] = []

    def _load(self, *_: Any) -> CircularScorer:
        self.living.append(self.count())
        scorer = CircularScorer()
        self.made.append(weakref.ref(scorer))
        return scorer

    def count(self) -> int:
        return sum(made() is not None for made in self.made)


def test_a_divided_model_is_freed_before_the_next_and_when_it_is_forgotten():
    work = CircularWork()
    for seed in range(3):
        work.scorer(PARAMETERS | {"adapter_seed": seed}, None, [])
    assert work.living == [0, 0, 0]
    work.forget_scorer()
    assert work.count() == 0


def test_a_divided_model_that_is_held_is_not_freed():
    work = CircularWork()
    first = work.scorer(PARAMETERS, None, [])
    work.scorer(PARAMETERS | {"adapter_seed": 1}, None, [])
    work.forget_scorer()
    assert [made() for made in work.made] == [first, None]
