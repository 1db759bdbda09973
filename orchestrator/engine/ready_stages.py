"""Stages that are ready, in the order in which they are begun."""

import heapq
from collections import deque
from collections.abc import Iterable, Mapping

from orchestrator.store.stage import Stage

FIRST, IN_LINE, LAST = range(3)
"""Whether something stands before all that have a place in line, among them, or behind them."""


class ReadyStages:
    """A line of stages that keeps those together that share what a worker holds in memory.

    Of the stages with one key at most one is handed out at a time, and the next one as soon as it has ended: the worker
    that is free then goes on with what it holds, and no other worker makes the same again. Stages with another key, or
    with none, keep the other workers busy.

    Args:
        stages: the stages that are ready now.
        places: places in line, by identity; what has none, as it has to be computed again, goes before all that do.
    """

    def __init__(self, stages: Iterable[Stage], places: Mapping[str, int]) -> None:
        self._places = places
        self._line: list[tuple[int, int, int, Stage | str]] = []
        self._entries = 0
        self._entry_of: dict[str, int] = {}
        self._of: dict[str, deque[Stage]] = {}
        self._handed_out: set[str] = set()
        self._count = 0
        self.add(stages)

    def __len__(self) -> int:
        return self._count

    def add(self, stages: Iterable[Stage]) -> None:
        """Let stages wait in their places; of those that share a key, the first one's place counts."""
        for stage in stages:
            self._count += 1
            if stage.together is None:
                self._enter(stage, IN_LINE, self._place(stage))
                continue
            key = stage.together.key
            self._of.setdefault(key, deque()).append(stage)
            if key not in self._entry_of and key not in self._handed_out:
                self._enter(key, IN_LINE, self._place(stage))

    def _place(self, stage: Stage) -> int:
        return self._places.get(stage.stage_id, -1)

    def _enter(self, what: Stage | str, where: int, place: int = 0) -> None:
        self._entries += 1
        if isinstance(what, str):
            self._entry_of[what] = self._entries
        # the number lets equals stand in the order in which they came; the first of all stands before earlier ones
        heapq.heappush(self._line, (where, place, -self._entries if where == FIRST else self._entries, what))

    def take(self) -> Stage | None:
        """Return the next stage; None if every one shares something with a stage that is handed out."""
        while self._line:
            _, _, number, what = heapq.heappop(self._line)
            if isinstance(what, Stage):
                self._count -= 1
                return what
            if self._entry_of.get(what) == abs(number):  # else it was taken by its key
                return self._hand_out(what)
        return None

    def take_with_key(self, key: str) -> Stage | None:
        """Return the next stage of a key, before all others; None if there is none, or one of it is handed out."""
        return self._hand_out(key) if key in self._entry_of else None

    def _hand_out(self, key: str) -> Stage:
        self._count -= 1
        del self._entry_of[key]
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
        if self._of[key] and key not in self._entry_of:
            self._enter(key, LAST if elsewhere else FIRST)
