"""The work in an allocation: Ray on its nodes, and a driver beside it that works until it is told to stop."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import Any

from submitit import JobEnvironment
from submitit.core.utils import UncompletedJobError
from submitit.helpers import Checkpointable

from slurm.errors import SlurmError
from slurm.query.commands import run_command
from slurm.ray.cluster import HeadLostError, NotWantedError, RayCluster, RaySettings, RayStartError

UNFINISHED = 3
"""Exit status of a driver that stopped because it was told to, while work was left."""

NODE_LOGS = "NTKSWEEP_NODE_LOGS"
"""Variable of the environment in which a driver finds the folder with the logs of the nodes."""

MOST_STARTS = 4
"""Most starts of Ray and its driver in an allocation, the first one included.

Others follow if one is killed, or if Ray gives up: its programs wait 15 seconds for each other, too little on a busy
machine, and no setting changes that.
"""

LOOK_SECONDS = 0.5
"""Pause between looks at the driver and at Ray."""

SECONDS_TO_END = 20
"""Seconds that Ray and Slurm need to end an allocation, taken from the driver's time to end its current work."""


class Ending(Enum):
    """The end of one start of Ray and its driver."""

    DONE = "done"
    UNFINISHED = "unfinished"
    FAILED = "failed"
    LOST = "lost"


@dataclass(frozen=True)
class Allocation(Checkpointable):
    """The work of one Slurm job, given to submitit as a pickle of these attributes.

    Attributes:
        driver: command that works; on SIGTERM it ends soon, with exit status 3 if work is left.
        cleanup: command that is run after each driver, once its processes are gone; the names of the nodes on which
            they certainly are come as further arguments, as `--out-of-memory=NODE` those where memory was the cause.
        ray: what Ray is started with on every node.
        logs: folder for the logs of the nodes.
        signal_seconds: how long before the time limit Slurm sends its signal.
    """

    driver: tuple[str, ...]
    cleanup: tuple[str, ...]
    ray: RaySettings
    logs: str
    signal_seconds: int

    def __call__(self) -> str:
        """Work until the driver is done, or until Slurm says to stop; return how it ended.

        Raises:
            AllocationFailedError: the driver failed, or Ray or the driver was lost again and again.
            RayStartError: Ray cannot start.
        """
        with _told() as told:
            ending = self._run_until_it_ends(told)
        if ending is Ending.UNFINISHED and told.by is signal.SIGUSR2:
            told.checkpoint_and_requeue()
        if ending is Ending.LOST:
            raise AllocationFailedError(
                f"Ray or its driver was lost at each of {MOST_STARTS} starts, for the reasons above; perhaps the nodes "
                "have too little memory or are busy with other work; finished stages are kept: go on with "
                "`ntksweep resume`"
            )
        if ending is Ending.FAILED:
            raise AllocationFailedError("the driver failed; its last lines are above")
        return str(ending.value)

    def _run_until_it_ends(self, told: "_Told") -> Ending:
        for start in range(MOST_STARTS):
            if start:
                _say(f"starting again ({start} of {MOST_STARTS - 1})")
            try:
                ending = self._run_once(told)
            except RayStartError:
                _wait_if_queued_again()
                raise
            if ending is Ending.LOST and told.by is not None:
                return Ending.UNFINISHED
            if ending in (Ending.LOST, Ending.FAILED):
                _wait_if_queued_again()
            if ending is not Ending.LOST:
                return ending
        return Ending.LOST

    def _run_once(self, told: "_Told") -> Ending:
        # Several allocations of a sweep write below one folder, and may share a node.
        logs = Path(self.logs) / f"{JobEnvironment().job_id}_nodes"
        cluster = RayCluster(self.ray, logs, wanted=lambda: told.by is None)
        try:
            with cluster:
                return self._drive(cluster, told)
        except NotWantedError:
            return Ending.UNFINISHED
        except HeadLostError as error:
            _say(str(error))
            return Ending.LOST
        except RayStartError as error:
            if not error.passes:
                raise
            _say(str(error))
            return Ending.LOST
        finally:
            # The job is about to end, so the time is limited: claims that are not cleaned up in time become stale.
            with suppress(subprocess.TimeoutExpired):
                nodes = [*cluster.ended_nodes, *(f"--out-of-memory={node}" for node in cluster.out_of_memory)]
                subprocess.run([*self.cleanup, *nodes], check=False, timeout=SECONDS_TO_END)

    def _drive(self, cluster: RayCluster, told: "_Told") -> Ending:
        if told.by is not None:
            return Ending.UNFINISHED
        driver = subprocess.Popen(self.driver, env={**os.environ, **cluster.environment, NODE_LOGS: str(cluster.logs)})
        try:
            status = self._wait(driver, cluster, told)
        finally:
            if driver.poll() is None:
                driver.kill()
                driver.wait()
        if status == UNFINISHED:
            return Ending.UNFINISHED
        if status < 0:
            _say(f"the driver was killed by signal {-status}")
            return Ending.LOST
        return Ending.FAILED if status else Ending.DONE

    def _wait(self, driver: "subprocess.Popen[bytes]", cluster: RayCluster, told: "_Told") -> int:
        deadline: float | None = None
        while True:
            for event in cluster.poll():
                _say(f"node {event.node} {event.kind}: {event.message}")
            if told.by is not None and deadline is None:
                deadline = time.monotonic() + max(1, self.signal_seconds - SECONDS_TO_END)
                _say(f"told to stop by {told.by.name}; no further stage is begun")
                driver.terminate()
            try:
                return driver.wait(LOOK_SECONDS)
            except subprocess.TimeoutExpired:
                if deadline is not None and time.monotonic() > deadline:
                    _say("what is in flight takes too long; it is given up")
                    return UNFINISHED


class AllocationFailedError(SlurmError):
    """An allocation could not do its work."""


class _Told:
    """The signal by which Slurm has told this process to stop, if it has."""

    def __init__(self) -> None:
        self.by: signal.Signals | None = None
        self._requeue: Any = signal.getsignal(signal.SIGUSR2)  # submitit's own, installed before this is called

    def stop(self, number: int, _: FrameType | None) -> None:
        if self.by is None:
            self.by = signal.Signals(number)

    def checkpoint_and_requeue(self) -> None:
        """Queue the job again through submitit, which counts how often it may; ends this process.

        Raises:
            AllocationFailedError: it may not be queued again.
        """
        # Slurm sends SIGTERM as soon as it has been asked to, to the process that asks as well.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if callable(self._requeue):
            try:
                self._requeue(signal.SIGUSR2, None)
            except UncompletedJobError:
                raise AllocationFailedError(
                    "the time limit is near, work is left, and the job was queued again as often as the profile's "
                    "`requeues` allows; go on with `ntksweep resume`"
                ) from None


def _wait_if_queued_again() -> None:
    """Wait to be killed if Slurm has queued this job again, as it does when it loses touch with the first node.

    Processes there go on until slurmd is back and kills them. If this one ended before, Slurm would take that for the
    end of the job that waits in its queue, and cancel it.
    """
    job = os.environ["SLURM_JOB_ID"]
    try:
        told = run_command("squeue", "--noheader", f"--jobs={job}", "--Format=RestartCnt", timeout=10, patience=0)
    except SlurmError:
        return  # without an answer nothing is known, and this start counts as any other
    restarts = told.split()
    if not restarts or int(restarts[0]) <= int(os.environ.get("SLURM_RESTART_COUNT", "0")):
        return
    _say("Slurm lost touch with this node and has queued the job again; what is left of it here waits to be ended")
    while True:
        signal.pause()


@contextmanager
def _told() -> Iterator[_Told]:
    told = _Told()
    # SIGTERM comes when a job is canceled, requeued by hand, or preempted on a cluster that gives no other warning.
    before = {number: signal.signal(number, told.stop) for number in (signal.SIGUSR2, signal.SIGTERM)}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(message: str) -> None:
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} allocation: {message}\n")
    sys.stderr.flush()
