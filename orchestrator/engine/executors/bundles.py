"""How many stages of a kind a worker is handed at once."""

from collections.abc import Sequence

from orchestrator.stages.context.failures import Outcome
from orchestrator.store.stage import StageKind

SHORT_SECONDS = 0.02
"""Stages that take less are given out several at once: a call to a worker itself takes a good part of that time."""

LONG_SECONDS = 1.0
"""A call that took longer is followed by calls with one stage."""

BUNDLE_SECONDS = 0.5
"""Time for which a worker is given stages of a kind that shares work: a run that is told to stop waits no longer, and
other runs wait no longer for the stages that a worker has claimed."""

MOST_TASKS_A_CALL = 16
"""Most stages that a worker is given at once; if it dies, those that are not published are begun again."""


class BundleSizes:
    """The number of stages of each kind that a worker is given at once, by how long the last ones took."""

    def __init__(self) -> None:
        self._sizes: dict[StageKind, int] = {}

    def of(self, kind: StageKind) -> int:
        """Return the most stages of a kind to give out at once; one until it is known how long they take."""
        return self._sizes.get(kind, 1)

    def took(self, kind: StageKind, outcomes: Sequence[Outcome]) -> None:
        """Note how the stages of a kind ended that were given out together."""
        seconds = sum(outcome.seconds for outcome in outcomes)
        if kind.bundled:
            wanted = int(BUNDLE_SECONDS * len(outcomes) / seconds) if seconds else self.of(kind)
        else:
            wanted = int((2.0 if seconds < SHORT_SECONDS * len(outcomes) else 0.5) * self.of(kind))
        # However many stages there are, a run that is told to stop must not wait for long.
        most = 1 if seconds > LONG_SECONDS else MOST_TASKS_A_CALL
        self._sizes[kind] = max(1, min(wanted, most))

    def clear(self) -> None:
        """Begin again with one stage of each kind."""
        self._sizes.clear()
