"""Proof by the journals of a sweep: that nothing finished was computed again, and that nothing is missing."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from orchestrator.plan.plan import make_plan
from orchestrator.stages.registry import KINDS
from orchestrator.store.journal import read_journals
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.survey import surveys


@dataclass(frozen=True)
class Proof:
    """Return how often each stage was begun and finished, by the journals."""

    started: Counter[str]
    finished: Counter[str]

    @property
    def cut_short(self) -> int:
        """Attempts that no event ended: their process was killed."""
        return self.started.total() - self.finished.total()


def prove_nothing_was_computed_twice(results: Path, *, repaired: Collection[str] = ()) -> Proof:
    """Check the journals of a sweep against its artifacts, and return what they say.

    Every planned stage is finished. Each was finished at most once by the journals (never, where the process was killed
    between the artifact and the event) and never begun once its artifact was there.

    Args:
        results: the results folder.
        repaired: stages whose artifact was damaged and computed again; each may be finished once more.
    """
    folder = ResultsFolder(results)
    store, sweep = folder.artifacts(), folder.existing()
    plan = make_plan(sweep, surveys(sweep, store))
    planned = {stage.stage_id: stage for stage in plan.stages}
    missing = [stage_id for stage_id, stage in planned.items() if stage_id not in store.finished(stage.kind)]
    assert not missing, f"{len(missing)} stages are missing"

    started, finished = Counter[str](), Counter[str]()
    for event in read_journals(folder.journals):
        if event["event"] == "finished":
            finished[event["stage"]] += 1
        if event["event"] == "started":
            started[event["stage"]] += 1
            if event["stage"] not in repaired:
                published = store.record_path(event["kind"], event["stage"]).stat().st_mtime
                assert event["time"] < published, f"{event['kind']} {event['stage']} was begun after it was finished"
    twice = [stage_id for stage_id, times in finished.items() if times > 1 + (stage_id in repaired)]
    assert not twice, f"{len(twice)} stages were computed again: {twice[:3]}"
    assert not finished.keys() - planned.keys(), "a stage was computed that nobody planned"
    assert not planned.keys() - started.keys(), "a stage is there that nobody began"
    assert {stage.kind for stage in plan.stages} <= set(KINDS)
    return Proof(started, finished)
