"""How a sweep stands: planned = finished + running + failed + missing, always."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import DamagedArtifactError
from orchestrator.folder import ResultsFolder
from orchestrator.plan import Plan
from orchestrator.stages.registry import KINDS
from orchestrator.store.journal import read_journals
from orchestrator.survey import survey_stage
from orchestrator.tables.write import damaged_tables, read_manifest


@dataclass(frozen=True)
class KindStatus:
    """Stages of one kind, each counted once."""

    kind: str
    planned: int
    finished: int
    running: int
    failed: int

    @property
    def missing(self) -> int:
        """Stages that nobody has finished, is computing or has given up."""
        return self.planned - self.finished - self.running - self.failed


@dataclass(frozen=True)
class Status:
    """How a sweep stands.

    Attributes:
        kinds: one entry a kind of stage.
        cells: cells of the grid.
        cells_finished: cells whose stage is finished.
        cells_in_tables: cells in the tables, which are written now and then.
        failures: the last failure of every failed stage: kind, stage, failure, message.
        damaged: artifacts and tables that do not match their checksums; empty unless they were verified.
    """

    kinds: tuple[KindStatus, ...]
    cells: int
    cells_finished: int
    cells_in_tables: int
    failures: tuple[Mapping[str, Any], ...]
    damaged: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every cell is in the tables."""
        return self.cells_in_tables == self.cells and not self.damaged


def status_of(plan: Plan, folder: ResultsFolder, *, verify: bool = False) -> Status:
    """Return how a sweep stands.

    Args:
        plan: the plan of the sweep.
        folder: its results folder.
        verify: read every artifact and table and compare it with its checksum.
    """
    store = folder.artifacts()
    finished = {kind: store.finished(kind) for kind in KINDS}
    running = set(folder.claims().held())
    failures = _failures(folder)
    kinds = []
    for kind in KINDS:
        planned = {stage.stage_id for stage in plan.stages if stage.kind == kind}
        if not planned:
            continue
        done = planned & finished[kind]
        now = (planned & running) - done
        failed = (planned & failures.keys()) - done - now
        kinds.append(KindStatus(kind, len(planned), len(done), len(now), len(failed)))
    manifest = read_manifest(folder)
    n_lambdas = len(plan.lambdas)
    solved = [solve for solve in plan.solves if solve.stage.stage_id in finished["solve"]]
    unfinished = {stage.stage_id for stage in plan.stages if stage.stage_id not in finished[stage.kind]} - running
    current = manifest is not None and manifest["plan"] == plan.plan_id
    return Status(
        kinds=tuple(kinds),
        cells=plan.n_cells,
        cells_finished=sum(len(solve.layer_sets) for solve in solved) * n_lambdas,
        cells_in_tables=manifest["tables"]["cells"]["rows"] if manifest and current else 0,
        failures=tuple(failures[stage_id] for stage_id in failures if stage_id in unfinished),
        damaged=tuple(_damaged(plan, folder, finished)) if verify else (),
    )


def _failures(folder: ResultsFolder) -> dict[str, Mapping[str, Any]]:
    """Return the last failure of every stage whose last event is a failure."""
    last: dict[str, Mapping[str, Any]] = {}
    for event in read_journals(folder.journals):
        if event["event"] in ("started", "finished", "failed"):
            last[event["stage"]] = event
    return {stage_id: event for stage_id, event in last.items() if event["event"] == "failed" and event.get("failure")}


def _damaged(plan: Plan, folder: ResultsFolder, finished: Mapping[str, set[str]]) -> list[str]:
    store = folder.artifacts()
    found = []
    survey = survey_stage(plan.sweep)
    for stage in (survey, *plan.stages):
        if stage.stage_id not in finished.get(stage.kind, store.finished(stage.kind)):
            continue
        try:
            store.read(stage.kind, stage.stage_id).verify()
        except DamagedArtifactError as error:
            found.append(f"{stage.kind}/{stage.stage_id}: {error.reason}")
    return found + [f"tables/{name}" for name in damaged_tables(folder)]
