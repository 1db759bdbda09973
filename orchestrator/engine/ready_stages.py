"""Stages that are ready, in the order in which they are begun."""

from collections import deque
from collections.abc import Iterable, Iterator

from orchestrator.store.stage import Stage


class ReadyStages:
    """A queue of stages that keeps those together that share what a worker holds in memory.

    Of the stages with one key at most one is handed out at a time, and the next one as soon as it has ended: the worker
    that is free then goes on with what it holds, and no other worker makes the same again. Stages with another key, or
    with none, keep the other workers busy.
    """

    def __init__(self, stages: Iterable[Stage]) -> None:
        self._order: deque[Stage | str] = deque()
        self._of: dict[str, deque[Stage]] = {}
        self._handed_out: set[str] = set()
        self._count = 0
        self.add(stages)

    def __len__(self) -> int:
        return self._count

    def add(self, stages: Iterable[Stage]) -> None:
        """Add stages behind all others."""
        self._order.extend(self._waiting(stages))

    def add_first(self, stages: Iterable[Stage]) -> None:
        """Add stages, in their order, before all others."""
        self._order.extendleft(reversed(list(self._waiting(stages))))

    def _waiting(self, stages: Iterable[Stage]) -> Iterator[Stage | str]:
        """Let stages wait; yield what goes into the order: a stage, or a key once for all that share it."""
        for stage in stages:
            self._count += 1
            if stage.together is None:
                yield stage
                continue
            key = stage.together.key
            waiting = self._of.setdefault(key, deque())
            waiting.append(stage)
            if len(waiting) == 1 and key not in self._handed_out:
                yield key

    def take(self) -> Stage | None:
        """Return the next stage; None if every one shares something with a stage that is handed out."""
        if not self._order:
            return None
        first = self._order.popleft()
        if isinstance(first, Stage):
            self._count -= 1
            return first
        return self._hand_out(first)

    def take_with_key(self, key: str) -> Stage | None:
        """Return the next stage of a key, before all others; None if there is none, or one of it is handed out."""
        if not self._of.get(key) or key in self._handed_out:
            return None
        self._order.remove(key)
        return self._hand_out(key)

    def _hand_out(self, key: str) -> Stage:
        self._count -= 1
        self._handed_out.add(key)
        return self._of[key].popleft()

    def ended(self, stage: Stage, *, elsewhere: bool = False) -> None:
        """Let the next stage of its key be taken: before all others, or behind them if it is computed elsewhere.

        Whoever computes it there goes on with those of the same key.
        """
        if stage.together is None:
            return
        key = stage.together.key
        self._handed_out.discard(key)
        if not self._of[key]:
            return
        if elsewhere:
            self._order.append(key)
        else:
            self._order.appendleft(key)
