"""Retries: the number of attempts at a stage for each class of failure, and the halving of its batches."""

from collections import Counter
from collections.abc import Mapping

from orchestrator.stages.context.failures import FailureClass

ATTEMPTS = {
    FailureClass.INPUT: 1,
    FailureClass.CODE: 1,
    FailureClass.MEMORY: 3,
    FailureClass.STORAGE: 1,
    FailureClass.WORKER: 4,
    FailureClass.NODE: 6,
}
"""Failures of a stage in each class until a run gives it up; wrong input or code fails the same way again."""


class Retries:
    """The failures of the stages of one run; each class has a budget of its own.

    Args:
        out_of_memory: how often stages have run out of memory before, elsewhere; each is tried once more at least.
    """

    def __init__(self, out_of_memory: Mapping[str, int]) -> None:
        most = ATTEMPTS[FailureClass.MEMORY] - 1
        self._failures = {
            stage_id: Counter({FailureClass.MEMORY: min(count, most)}) for stage_id, count in out_of_memory.items()
        }

    def attempt(self, stage_id: str) -> int:
        """Return the number of the next attempt at a stage, counted from 1."""
        return self._of(stage_id).total() + 1

    def halvings(self, stage_id: str) -> int:
        """Return how often the batches of a stage are to be halved: once for each time that it ran out of memory."""
        return self._of(stage_id)[FailureClass.MEMORY]

    def failed(self, stage_id: str, failure: FailureClass) -> bool:
        """Count a failure; return whether the stage is to be tried again."""
        failures = self._failures.setdefault(stage_id, Counter())
        failures[failure] += 1
        return failures[failure] < ATTEMPTS[failure]

    def _of(self, stage_id: str) -> Counter[FailureClass]:
        return self._failures.get(stage_id, Counter())
