"""Running a sweep: from a spec to tables, continuing from where an earlier run ended."""

import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from finetune.parallel.process_group import ProcessGroup
from orchestrator.engine.early_tables import EarlyTables
from orchestrator.engine.executors.choose import make_executor
from orchestrator.engine.schedule import MOST_REPAIRS, Progress, Report, Schedule
from orchestrator.environment import refuse_missing_deepspeed
from orchestrator.errors import DamagedArtifactError, GpuFailedError, RayFailedError, StorageError, SweepError
from orchestrator.installation import installation_and_libraries
from orchestrator.plan.index import keep_plan
from orchestrator.plan.plan import Plan, make_plan, missing_stages
from orchestrator.plan.stacks_note import stacks_notes
from orchestrator.process_log import process_log
from orchestrator.results.tables.manifest import TABLES_NOTED, cells_in_complete_tables
from orchestrator.results.tables.write import collect
from orchestrator.spec import Spec
from orchestrator.stages.registry import KINDS
from orchestrator.store.files import remove_leftovers
from orchestrator.store.journal import Journal
from orchestrator.store.stage import Stage
from orchestrator.sweep.folder import ResultsFolder, Sweep
from orchestrator.sweep.on_change import OnChange
from orchestrator.sweep.settings import refuse_untrusted_code
from orchestrator.sweep.sources import find_sources
from orchestrator.sweep.survey import all_kept, keep_surveys, surveys
from orchestrator.sweep.workers import refuse_more_workers_than_gpus_hold, worker_count

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ending:
    """Result of a run.

    Attributes:
        plan: the plan of the sweep.
        report: stages computed, failed and blocked.
        n_cells: cells in the tables.
        was_finished: whether everything was finished before the run.
        tables_written: whether only the tables were missing then, damaged, or those of another plan.
    """

    plan: Plan
    report: Report
    n_cells: int
    was_finished: bool
    tables_written: bool = False


def resolve(spec: Spec, spec_folder: Path, folder: ResultsFolder, *, trusts_code: bool = False) -> Sweep:
    """Find the model and the data of a spec.

    Args:
        spec: the spec.
        spec_folder: folder that relative paths in the spec start from.
        folder: results folder, whose fingerprints save reading unchanged files again.
        trusts_code: whether code that comes with the model may run.

    Raises:
        SourceError: the model or the data is not there.
        ResultsError: the folder holds something that is not a sweep.
    """
    stored = folder.stored()
    if stored is None:
        return Sweep(spec, find_sources(spec, spec_folder), trusts_code)
    sources = find_sources(spec, spec_folder, known=stored.sources)
    asked = stored.blocks_asked if folder.has_kernels else ()  # what was asked for and never made binds nobody
    stacked = stored.stacked_before.grown(stored.spec, spec, folder.begun_trainings)
    return Sweep(spec, sources, trusts_code, stored.drawn_before, asked, stacked)


def run(
    spec: Spec,
    spec_folder: Path,
    progress: Progress,
    *,
    on_change: OnChange = OnChange.REFUSE,
    process_group: ProcessGroup | None = None,
    trusts_code: bool = False,
) -> Ending:
    """Run a sweep until every cell is in the tables, or failed.

    Args:
        spec: the spec.
        spec_folder: folder that relative paths in the spec start from.
        progress: is told about the progress of the run.
        on_change: what to do if the results folder holds other numbers than the spec asks for.
        process_group: the processes that run it inline, of which this one is the first; None for this one alone.
        trusts_code: whether code that comes with the model may run.

    Raises:
        SweepError: the spec, the model, the data or the results folder do not allow it; nothing was lost.
    """
    from orchestrator.plan.estimate import refuse_what_cannot_fit
    from orchestrator.sweep.model_memory import refuse_model_that_cannot_fit, this_device

    folder = ResultsFolder(spec.folder)
    sweep = folder.settle(resolve(spec, spec_folder, folder, trusts_code=trusts_code), on_change, progress.note)
    store = folder.artifacts()
    remove_leftovers(folder.root)
    found = surveys(sweep, store)
    plan = make_plan(sweep, found, store)
    damaged = noted_damage(plan, folder)
    if not damaged and is_finished(plan, folder):
        with suppress(StorageError):  # a finished sweep may be in a read-only archive
            _restore_index(plan, folder)
            _clear_claims(plan, folder)
        return Ending(plan, Report(), plan.n_cells, was_finished=True)
    refuse_untrusted_code(sweep)
    if spec.group_size > 1:
        refuse_missing_deepspeed()
    refuse_what_cannot_fit(plan, folder)
    workers = worker_count(sweep)
    refuse_more_workers_than_gpus_hold(spec, workers)
    refuse_model_that_cannot_fit(sweep, plan.variants[0].survey, this_device(spec, workers))
    for note in (*folder.changes_since(sweep), *stacks_notes(plan, missing_stages(plan, store))):
        progress.note(note)
    # Only a sweep that can run takes the folder: a spec that is refused leaves nothing behind.
    folder.write(sweep)
    keep_surveys(sweep, found, store)
    keep_plan(plan, folder)
    folder.refusals().clear()
    with process_log(folder.logs):
        return _run_logged(plan, folder, progress, process_group or ProcessGroup(), damaged)


def _run_logged(
    plan: Plan, folder: ResultsFolder, progress: Progress, process_group: ProcessGroup, damaged: Sequence[str]
) -> Ending:
    from orchestrator.plan.estimate import seconds_of_stages

    sweep, store, journal = plan.sweep, folder.artifacts(), folder.journal()
    estimates = seconds_of_stages(plan, folder)
    executor = sweep.spec.compute.executor
    journal.write("run", phase="began", plan=plan.plan_id, cells=plan.n_cells, executor=executor, estimates=estimates)
    logger.info("%s", installation_and_libraries())
    logger.info("%s: plan %s of %d cells in %s", sweep.spec.name, plan.plan_id, plan.n_cells, folder.root)
    logger.debug("compute: %s", sweep.spec.compute)

    def compute(missing: list[Stage]) -> Report:
        with make_executor(sweep, folder, process_group) as workers_here:
            tables, workers = EarlyTables(plan, folder), worker_count(sweep)
            return Schedule(plan, store, workers_here, progress, missing, tables=tables, workers=workers).run()

    tables_only = not damaged and not missing_stages(plan, store) and cells_in_complete_tables(plan, folder) is None
    try:
        report, n_cells = compute_missing(plan, folder, progress, journal, compute, also=damaged)
    except BaseException as error:
        journal.write("run", phase="stopped", why=type(error).__name__)
        logger.info("the run stopped", exc_info=error)
        raise
    noted_damage(plan, folder)
    remove_leftovers(folder.root)
    journal.write("run", phase="ended", computed=report.computed, failed=len(report.failures))
    was_finished = not missing_stages(plan, store) and not report.computed
    return Ending(plan, report, n_cells, was_finished, tables_written=was_finished and tables_only)


def is_finished(plan: Plan, folder: ResultsFolder) -> bool:
    """Tell whether intact tables hold every cell of a plan; reads no artifact but the survey, lists folders only."""
    store = folder.artifacts()
    return (
        cells_in_complete_tables(plan, folder) is not None
        and not missing_stages(plan, store)
        and all_kept(plan.sweep, store)
    )


def _restore_index(plan: Plan, folder: ResultsFolder) -> None:
    """Write the stored spec and the plan of a finished folder again if they were lost; the numbers do not need them."""
    if not os.path.lexists(folder.spec_path):
        folder.write(plan.sweep)
    if not os.path.lexists(folder.plan_path):
        keep_plan(plan, folder)


def noted_damage(plan: Plan, folder: ResultsFolder) -> list[str]:
    """Set aside artifacts that a read-only command noted as damaged and that still are; return the stages to repeat.

    Raises:
        StorageError: the folder cannot be written.
    """
    store, planned = folder.artifacts(), {(stage.kind, stage.stage_id) for stage in plan.stages}
    damaged = []
    for noted in store.noted():
        if noted[0] == TABLES_NOTED:
            continue  # they are written again where they do not match
        intact = store.is_intact(*noted)
        if not intact:
            store.set_aside(*noted)
        if intact or noted not in planned:
            store.drop_note(*noted)
        else:
            damaged.append(noted[1])  # noted until it is computed, because this run may end before that
    return damaged


def compute_missing(
    plan: Plan,
    folder: ResultsFolder,
    progress: Progress,
    journal: Journal,
    compute: Callable[[list[Stage]], Report],
    *,
    also: Sequence[str] = (),
) -> tuple[Report, int]:
    """Compute the missing stages of a plan, and collect the tables; return the report and the cells in the tables.

    Nothing is collected, and 0 cells are returned, if `compute` left the rest to other runs, which are computing it.

    Args:
        plan: the plan.
        folder: the results folder.
        progress: is told about the progress of the run.
        journal: where damaged artifacts are noted.
        compute: computes stages until they are finished, given up, or it is told to stop.
        also: identities of stages that are to be computed whether or not anything needs them.

    Raises:
        SweepError: nothing more can be written, or an artifact is damaged again and again.
    """
    store = folder.artifacts()
    total = Report()
    damaged: list[str] = []
    while True:
        missing = missing_stages(plan, store, [*also, *damaged])
        progress.begin(*_counts(plan, {stage.stage_id for stage in missing}))
        logger.info("%d of %d stages are missing", len(missing), len(plan.stages))
        if missing:
            report = _computed(plan, folder, compute, missing)
            total = replace(report, computed=total.computed + report.computed)
            if total.left:
                return total, 0
            if total.stopped:
                with suppress(SweepError):
                    return total, collect(plan, folder)
                return total, 0
        try:
            began = time.perf_counter()
            n_cells = collect(plan, folder)
            logger.info("%d cells in the tables, collected in %.1f s", n_cells, time.perf_counter() - began)
            _clear_claims(plan, folder)
            return total, n_cells
        except DamagedArtifactError as error:
            progress.note(str(error))
            journal.write("damaged", kind=error.kind, stage=error.stage_id, message=str(error))
            damaged.append(error.stage_id)
            if damaged.count(error.stage_id) > MOST_REPAIRS:
                raise
            store.set_aside(error.kind, error.stage_id)


def _computed(
    plan: Plan, folder: ResultsFolder, compute: Callable[[list[Stage]], Report], missing: list[Stage]
) -> Report:
    """Compute stages; where that is cut short, collect what is finished, which can be looked at before it goes on."""
    began = time.perf_counter()
    try:
        report = compute(missing)
    except (KeyboardInterrupt, RayFailedError, GpuFailedError):
        with suppress(SweepError):
            collect(plan, folder)
        raise
    seconds = time.perf_counter() - began
    logger.info("%d stages computed here in %.1f s, %d failed", report.computed, seconds, len(report.failures))
    return report


def _clear_claims(plan: Plan, folder: ResultsFolder) -> None:
    """Remove claims that killed processes have left.

    Raises:
        StorageError: the folder cannot be written.
    """
    store, kinds = folder.artifacts(), {stage.stage_id: stage.kind for stage in plan.stages}
    folder.claims().clear(lambda stage_id: stage_id in kinds and store.has(kinds[stage_id], stage_id))


def _counts(plan: Plan, missing: set[str]) -> tuple[dict[str, int], dict[str, int]]:
    totals = dict.fromkeys(KINDS, 0)
    finished = dict.fromkeys(KINDS, 0)
    for stage in plan.stages:
        totals[stage.kind] += 1
        finished[stage.kind] += stage.stage_id not in missing
    return totals, finished
