"""The driver of an allocation: it runs a sweep together with other allocations, until it has nothing left to do.

`python -m orchestrator.cluster.driver FOLDER [--trust-remote-code]`, run by an allocation. On SIGTERM it begins no
further stage and exits with status 3 once the stages in flight have ended; before any is begun, at once.
"""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

from orchestrator.cluster.log import LogLines
from orchestrator.cluster.release import ran_out_of_memory
from orchestrator.engine.early_tables import EarlyTables
from orchestrator.engine.executors.joined_ray import JoinedRay
from orchestrator.engine.executors.ray_thread import leave
from orchestrator.engine.executors.ray_workers import RayExecutor
from orchestrator.engine.run import compute_missing, noted_damage
from orchestrator.engine.schedule import Report, Schedule
from orchestrator.errors import ChangedError, ExitCode, SweepError
from orchestrator.installation import installation_and_libraries
from orchestrator.plan.estimate import seconds_of_stages
from orchestrator.plan.plan import Plan, make_plan
from orchestrator.process_log import own_process, process_log
from orchestrator.store.claims import STALE_AFTER
from orchestrator.store.stage import Stage
from orchestrator.sweep.folder import ResultsFolder, Sweep
from orchestrator.sweep.settings import refuse_untrusted_code
from orchestrator.sweep.sources import find_again
from orchestrator.sweep.survey import surveys
from orchestrator.sweep.workers import worker_count
from slurm.submit.allocation import NODE_LOGS, UNFINISHED

logger = logging.getLogger(__name__)

LEAVE_AFTER = STALE_AFTER + 30
"""Seconds without work after which an allocation ends; by then it has taken over the claims of dead processes."""


class _StopError(BaseException):
    """The driver is told to stop before it has begun a stage."""


class Driver:
    """The driver of an allocation at work on a sweep.

    Args:
        folder: its results folder.
        trusts_code: whether code that comes with the model may run.
    """

    def __init__(self, folder: ResultsFolder, *, trusts_code: bool) -> None:
        self.folder = folder
        self._trusts_code = trusts_code
        self._told_to_stop = False
        self._may_leave = False
        self._schedule: Schedule | None = None

    def stop(self, *_: int | FrameType | None) -> None:
        """Begin no further stage; a signal handler, which leaves at once where none is begun."""
        before, self._told_to_stop = self._told_to_stop, True
        if self._schedule is not None:
            self._schedule.stop()
        elif self._may_leave and not before:
            raise _StopError

    def run(self) -> Report:
        """Work until nothing is left to do in this allocation, or until `stop`.

        Raises:
            SweepError: the results folder, the model or the data do not allow it.
            _StopError: it is told to stop before a stage is begun.
        """
        folder = self.folder
        logger.info("%s", installation_and_libraries())
        plan = _plan_of(folder, trusts_code=self._trusts_code)
        journal = folder.journal()
        estimates = seconds_of_stages(plan, folder)
        journal.write("run", phase="began", plan=plan.plan_id, cells=plan.n_cells, estimates=estimates)
        try:
            self._may_leave = True
            if self._told_to_stop:
                raise _StopError
            with RayExecutor(plan.sweep, folder, JoinedRay(Path(os.environ[NODE_LOGS]))) as executor:
                self._may_leave = False
                report = self._compute_missing(plan, executor)
        except BaseException as error:
            journal.write("run", phase="stopped", why=type(error).__name__)
            logger.info("the run stopped", exc_info=error)
            raise
        finally:
            self._may_leave = False
        journal.write("run", phase="ended", computed=report.computed, failed=len(report.failures), open=report.open)
        return report

    def _compute_missing(self, plan: Plan, executor: RayExecutor) -> Report:
        store, lines = self.folder.artifacts(), LogLines()

        def compute(missing: list[Stage]) -> Report:
            before = ran_out_of_memory(self.folder)
            self._schedule = Schedule(
                plan, store, executor, lines, missing, leave_after=LEAVE_AFTER, out_of_memory=before,
                tables=EarlyTables(plan, self.folder), workers=worker_count(plan.sweep),
            )  # fmt: skip
            if self._told_to_stop:
                self._schedule.stop()
            return self._schedule.run()

        report, n_cells = compute_missing(
            plan, self.folder, lines, self.folder.journal(), compute, also=noted_damage(plan, self.folder)
        )
        lines.end(report, n_cells)
        return report


def _plan_of(folder: ResultsFolder, *, trusts_code: bool) -> Plan:
    sweep = replace(folder.existing(), trusts_code=trusts_code)
    refuse_untrusted_code(sweep)
    _refuse_changed_sources(sweep)
    return make_plan(sweep, surveys(sweep, folder.artifacts()), folder.artifacts())


def _refuse_changed_sources(sweep: Sweep) -> None:
    for name, before in sweep.sources.named().items():
        if find_again(name, before).content_id != before.content_id:
            raise ChangedError(
                f"the {name} at {before.location} has changed since the sweep was submitted; restore it, or submit the "
                "spec again with `--on-change given`"
            )


def main(arguments: Sequence[str] | None = None) -> int:
    """Work on the sweep in a folder; return the exit status.

    Args:
        arguments: of the command line; None takes those of this process.
    """
    parser = argparse.ArgumentParser(prog="orchestrator.cluster.driver")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trust-remote-code", action="store_true")
    given = parser.parse_args(arguments)
    driver = Driver(ResultsFolder(given.folder), trusts_code=given.trust_remote_code)
    signal.signal(signal.SIGTERM, driver.stop)
    try:
        with own_process(), process_log(driver.folder.logs):
            report = driver.run()
    except _StopError:
        LogLines().note("stopped before a stage was begun")
        return UNFINISHED
    except SweepError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if report.stopped:
        return UNFINISHED
    return ExitCode.FAILED_STAGES if report.failures else ExitCode.OK


if __name__ == "__main__":
    leave(main())
