"""Status of a sweep: planned = finished + running + failed + missing, always."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from orchestrator.plan.index import PlanIndex
from orchestrator.results.damage import damage_found, damage_noted
from orchestrator.results.tables.manifest import cells_in, foreign_in_tables, read_manifest
from orchestrator.results.time_left import RunningStage, time_left
from orchestrator.stages.registry import KINDS
from orchestrator.store.artifacts import ArtifactStore
from orchestrator.store.claims import ClaimBook
from orchestrator.store.history import History
from orchestrator.store.training_progress import TrainingProgress, progress_of, to_json
from orchestrator.sweep.folder import ResultsFolder


class State(StrEnum):
    """State of a stage, and of the cells that it fills."""

    FINISHED = "finished"
    RUNNING = "running"
    FAILED = "failed"
    MISSING = "missing"


@dataclass(frozen=True)
class Count:
    """Stages of one kind, or cells of one layer set, lambda or variant, each counted once.

    Attributes:
        name: the kind, the layer set, the variant, or the lambda as the spec gives it.
        planned: how many there are.
        finished: how many are done.
        running: how many a living process computes now.
        failed: how many failed in their last attempt.
        missing: how many are neither finished, running nor failed.
    """

    name: str | float
    planned: int
    finished: int
    running: int
    failed: int
    missing: int

    @classmethod
    def of(cls, name: str | float, states: Mapping[State, int]) -> "Count":
        """Return the count of states."""
        return cls(name, sum(states.values()), *(states.get(state, 0) for state in State))


@dataclass(frozen=True)
class Computing:
    """A stage that a living process is computing, and the facts of its claim, which are None if it cannot be read.

    Attributes:
        kind: kind of the stage.
        stage: identity of the stage.
        host: the machine, by its name or Slurm's.
        process: number of the process there.
        job: its Slurm job; None outside Slurm.
        since: when it began, in seconds since 1970.
        training: how far it is, if it is a training that has begun.
    """

    kind: str
    stage: str
    host: str | None
    process: int | None
    job: str | None
    since: float | None
    training: TrainingProgress | None = None

    @property
    def running(self) -> RunningStage:
        """Time and share of the stage so far."""
        seconds = max(0.0, time.time() - self.since) if self.since is not None else 0.0
        if self.training is None:
            return RunningStage(self.kind, seconds)
        steps = max(1, self.training.steps)
        return RunningStage(self.kind, seconds, self.training.step / steps, self.training.resumed_at / steps)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON."""
        return asdict(self) | {"training": self.training and to_json(self.training)}


@dataclass(frozen=True)
class Status:
    """Status of a sweep.

    Attributes:
        kinds: stages, one entry a kind.
        layer_sets: cells, one entry a layer set of the grid.
        lambdas: cells, one entry a lambda of the grid.
        variants: cells, one entry a task, rank and learning rate of the grid; none where it has one of each.
        cells: cells of the grid.
        cells_finished: cells whose stage is finished.
        cells_in_tables: cells in the tables, which are updated from time to time.
        computing: the stages that are being computed, with their processes.
        workers: number of processes that are computing.
        worker_seconds: what is left, in seconds of one worker, see `time_left`; None as long as it cannot be told.
        unmeasured: the kinds that are why.
        began: when the last run began, in seconds since 1970; None if none has.
        failures: the last failure of every failed stage: kind, stage, failure, message;
            for a stage that fills cells also which: layer_sets, seed, n_train.
        damaged: artifacts and tables that do not match their checksums; empty unless they were verified.
        damaged_before: those that did not when they were last verified, and were not made anew since; empty if they
            are verified now.
        foreign: paths in the folder that ntksweep did not write, or may not read; they are ignored.
        tables_complete: whether the tables have every row of the plan, also those that are about no cell.
        starting: whether no process has computed since the last run began: its workers start, and load libraries.
    """

    kinds: tuple[Count, ...]
    layer_sets: tuple[Count, ...]
    lambdas: tuple[Count, ...]
    variants: tuple[Count, ...]
    cells: int
    cells_finished: int
    cells_in_tables: int
    computing: tuple[Computing, ...]
    workers: int
    worker_seconds: float | None
    unmeasured: tuple[str, ...]
    failures: tuple[Mapping[str, Any], ...]
    damaged: tuple[str, ...]
    damaged_before: tuple[str, ...]
    foreign: tuple[str, ...]
    tables_complete: bool
    began: float | None = None
    starting: bool = False

    @property
    def elapsed(self) -> float | None:
        """Seconds since the last run began; None if none did."""
        return None if self.began is None else max(0.0, time.time() - self.began)

    @property
    def complete(self) -> bool:
        """True if every row is in the tables, and nothing is known to be damaged."""
        return self.tables_complete and not self.damaged and not self.damaged_before

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the present workers finish everything; None if there are none or no times are known."""
        if self.worker_seconds is None or (self.worker_seconds and not self.workers):
            return None
        return self.worker_seconds / max(1, self.workers)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON."""
        facts = asdict(self)
        named = {"kinds": "kind", "layer_sets": "layer_set", "lambdas": "lambda", "variants": "variant"}
        for part, name in named.items():
            facts[part] = [{name: count.pop("name"), **count} for count in facts[part]]
        facts["computing"] = [one.to_json() for one in self.computing]
        return facts | {"seconds_left": self.seconds_left, "complete": self.complete}


def status_of(
    plan: PlanIndex, folder: ResultsFolder, history: History | None = None, *, verify: bool = False
) -> Status:
    """Return the status of a sweep; only lists folders and reads no artifact, unless `verify` is set.

    What it then finds damaged is noted, for the next run and the next look, if the folder is writable; nothing else
    changes.

    Args:
        plan: the index of its plan.
        folder: its results folder.
        history: the journals as read by an earlier call, if there was one.
        verify: read every artifact and table and compare it with its checksum.
    """
    history = history or History(folder.journals)
    # In this order a stage that changes meanwhile is counted in its old state or in its new one.
    claims = folder.claims()
    held = claims.held()
    store = folder.artifacts()
    finished = {kind: store.finished(kind) for kind in plan.stages}
    history.update()
    failed = history.failures()
    states = dict(_states(plan, finished, held.keys(), failed.keys()))
    kinds = tuple(Count.of(kind, Counter(map(states.__getitem__, ids))) for kind, ids in plan.stages.items())
    layer_sets, lambdas, variants = _cells(plan, states)
    cells, cells_finished = plan.n_cells, sum(count.finished for count in layer_sets)
    running = {stage_id: holder for stage_id, holder in held.items() if states.get(stage_id) is State.RUNNING}
    left = _left(plan, kinds, cells_left=cells - cells_finished)
    manifest = _current_manifest(plan, folder)
    computing = tuple(_computing(plan.kinds[held_id], held_id, holder, folder) for held_id, holder in running.items())
    began = history.began()
    elapsed = 0.0 if began is None or not computing else time.time() - began
    time_to_go = time_left(left, history.times(), history.estimates(), (one.running for one in computing), elapsed)
    return Status(
        kinds=kinds,
        layer_sets=layer_sets,
        lambdas=lambdas,
        variants=variants if len(variants) > 1 else (),
        cells=cells,
        cells_finished=cells_finished,
        cells_in_tables=cells_in(manifest) if manifest else 0,
        computing=computing,
        workers=len({tuple(map(holder.get, _PROCESS)) for holder in running.values()}),
        worker_seconds=time_to_go.seconds,
        unmeasured=time_to_go.unknown,
        began=began,
        starting=history.is_starting(),
        failures=_failures(plan, states, failed),
        damaged=tuple(damage_found(plan, folder, finished)) if verify else (),
        damaged_before=() if verify else tuple(damage_noted(plan, folder)),
        foreign=_foreign(folder, store, claims, history),
        tables_complete=bool(manifest and manifest["complete"]),
    )


_PROCESS = ("host", "process_namespace", "process")
"""Fields of a claim that identify a process among those of all machines."""


def _states(
    plan: PlanIndex, finished: Mapping[str, Set[str]], held: Set[str], failed: Set[str]
) -> Iterator[tuple[str, State]]:
    """Yield the state of every stage: the first that applies, so that each stage has exactly one."""
    for kind, stages in plan.stages.items():
        done = finished[kind]
        for stage_id in stages:
            if stage_id in done:
                yield stage_id, State.FINISHED
            elif stage_id in held:
                yield stage_id, State.RUNNING
            else:
                yield stage_id, State.FAILED if stage_id in failed else State.MISSING


def _cells(plan: PlanIndex, states: Mapping[str, State]) -> tuple[tuple[Count, ...], ...]:
    """Return the counts of cells by layer set, by lambda and by variant."""
    of_set: list[Counter[State]] = [Counter() for _ in plan.layer_sets]
    of_variant: list[Counter[State]] = [Counter() for _ in plan.variants]
    # A solve stage fills every lambda of its layer sets, a comparison only some lambdas of one layer set: these are
    # counted lambda by lambda.
    of_all: Counter[State] = Counter()
    of_lambda: list[Counter[State]] = [Counter() for _ in plan.lambdas]
    for solve in plan.solves:
        state = states[solve.stage_id]
        if not solve.comparisons:
            of_all[state] += len(solve.layer_sets)
            of_variant[solve.variant][state] += len(solve.layer_sets) * len(plan.lambdas)
            for position in solve.layer_sets:
                of_set[position][state] += len(plan.lambdas)
        for each in solve.comparisons:
            together = _together(state, states[each.stage_id])
            of_set[each.layer_set][together] += len(each.in_grid)
            of_variant[solve.variant][together] += len(each.in_grid)
            for position in each.in_grid.values():
                of_lambda[position][together] += 1
    return (
        tuple(Count.of(name, of) for name, of in zip(plan.layer_sets, of_set, strict=True)),
        tuple(Count.of(strength, of_all + of) for strength, of in zip(plan.lambdas, of_lambda, strict=True)),
        tuple(Count.of(name, of) for name, of in zip(plan.variants, of_variant, strict=True)),
    )


def _left(plan: PlanIndex, kinds: Sequence[Count], *, cells_left: int) -> dict[str, int]:
    """Return the number of stages of each kind that are still to be computed, those that are running included."""
    unfinished = {kind: count.running + count.missing for kind, count in zip(plan.stages, kinds, strict=True)}
    if not cells_left and not any(unfinished.get(kind.name) for kind in KINDS.values() if kind.tables):
        return {}  # every table can be filled: inputs that were lost are no longer needed
    return {kind: count for kind, count in unfinished.items() if count}


def _failures(
    plan: PlanIndex, states: Mapping[str, State], failed: Mapping[str, Mapping[str, Any]]
) -> tuple[Mapping[str, Any], ...]:
    """Return the last failure of every failed stage, with the cells that the stage would fill."""
    return tuple(
        {**event, **plan.cells_of(stage_id)}
        for stage_id, event in failed.items()
        if states.get(stage_id) is State.FAILED
    )


def _foreign(folder: ResultsFolder, store: ArtifactStore, claims: ClaimBook, history: History) -> tuple[str, ...]:
    """Return the paths in the folder that ntksweep did not write, or may not read."""
    return (
        *(f"artifacts/{name}" for name in store.foreign(("survey", *KINDS))),
        *(f"claims/{name}" for name in claims.foreign()),
        *(f"journal/{name}" for name in history.foreign()),
        *(f"tables/{name}" for name in foreign_in_tables(folder)),
    )


def _together(*states: State) -> State:
    """Return the state of a cell that several stages fill."""
    if all(state is State.FINISHED for state in states):
        return State.FINISHED
    return next(state for state in (State.FAILED, State.RUNNING, State.MISSING) if state in states)


def _current_manifest(plan: PlanIndex, folder: ResultsFolder) -> dict[str, Any] | None:
    """Return the manifest of the tables if they belong to this plan."""
    manifest = read_manifest(folder)
    return manifest if manifest is not None and manifest["plan"] == plan.plan_id else None


def _computing(kind: str, stage_id: str, holder: Mapping[str, Any], folder: ResultsFolder) -> Computing:
    return Computing(
        kind, stage_id, holder.get("host"), holder.get("process"), holder.get("slurm_job"), holder.get("taken"),
        progress_of(folder.training / f"{stage_id}.json"),
    )  # fmt: skip
