"""Events of a cell, stage by stage, from the journals."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import ResultsError
from orchestrator.plan.plan import Plan, make_plan
from orchestrator.stages.base.cells import cell_ids
from orchestrator.store.journal import read_journals
from orchestrator.store.stage import Stage
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.survey import kept_surveys

_TELLING = ("started", "finished", "failed", "existing", "damaged", "released")


@dataclass(frozen=True)
class TracedEvent:
    """An event of a stage that a cell needs.

    Attributes:
        stage: description of the stage.
        stage_id: its identity.
        event: name of the event; `missing` where there is none.
        time: when, in seconds since 1970; None where there is no event.
        where: host and process, and the Slurm job if there was one.
        message: why, if it failed.
    """

    stage: str
    stage_id: str
    event: str
    time: float | None
    where: str
    message: str

    @property
    def line(self) -> str:
        """The event as a line for people."""
        when = "-" if self.time is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.time))
        why = f": {self.message.strip()}" if self.message else ""
        return f"{when}  {self.event:<9} {self.stage} ({self.stage_id}) {self.where}{why}"


def trace_cell(folder: ResultsFolder, cell_id: str) -> list[TracedEvent]:
    """Return all events of the stages that a cell needs, in the order in which the stages are needed.

    Raises:
        ResultsError: the sweep has no such cell, or keeps no survey to plan it by.
    """
    sweep = folder.existing()
    plan = make_plan(sweep, kept_surveys(sweep, folder.artifacts()), folder.artifacts())
    stages = list(_below(plan, *_filling(plan, cell_id)))
    events: dict[str, list[dict[str, Any]]] = {}
    for event in read_journals(folder.journals):
        if event["event"] in _TELLING and "stage" in event:
            events.setdefault(event["stage"], []).append(event)
    store = folder.artifacts()
    traced = []
    for stage in stages:
        for event in events.get(stage.stage_id, []):
            where = f"on {event['journal'].rpartition('-')[0]}" + (f", job {event['job']}" if "job" in event else "")
            traced.append(
                TracedEvent(stage.label, stage.stage_id, event["event"], event["time"], where, event.get("message", ""))
            )
        if stage.stage_id not in events:
            state = "finished" if store.has(stage.kind, stage.stage_id) else "missing"
            traced.append(TracedEvent(stage.label, stage.stage_id, state, None, "", ""))
    return traced


def _filling(plan: Plan, cell_id: str) -> list[Stage]:
    """Return the stages that fill a cell."""
    scale = plan.sweep.spec.grid.lambdas.scale
    for solve in plan.solves:
        for position, layer_set in enumerate(solve.layer_sets):
            cells = cell_ids(solve, layer_set, plan.lambdas, scale)
            if cell_id in cells:
                strength = cells.index(cell_id)
                compared = [each for each in solve.comparisons if each.layer_set == position]
                return [solve.stage, *(each.stage for each in compared if strength in each.lambdas)]
    raise ResultsError(f"the sweep has no cell `{cell_id}`; the column cell_id of the table `cells` has them")


def _below(plan: Plan, *stages: Stage) -> Iterator[Stage]:
    needed = {stage.stage_id for stage in stages}
    for each in reversed(plan.stages):
        if each.stage_id in needed:
            needed |= {stage_id for _, stage_id in each.needs()}
    return (each for each in plan.stages if each.stage_id in needed)
