"""The part of the Ray executor that runs in a worker process."""

import contextlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.engine.worker.execute import StageWorker, Task
from orchestrator.engine.worker.following import Follower, dismiss
from orchestrator.installation import Installation, difference, installation
from orchestrator.process_log import own_process, process_log
from orchestrator.spec import Spec
from orchestrator.stages.context.failures import FailureClass, Outcome, Status, failed
from orchestrator.sweep.folder import ResultsFolder, Sweep
from orchestrator.sweep.sources import Sources

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Introduction:
    """Facts that a worker reports about itself once it is up.

    Attributes:
        process: identification of its process in claims.
        node: Ray's identity of its node.
        address: IP address and port at which it awaits the others of its process group; None for all but the first.
        unfit: why its GPU cannot be used; None where it can, or none is wanted.
    """

    process: Mapping[str, Any]
    node: str
    address: tuple[str, int] | None
    unfit: Outcome | None = None


class Worker:
    """A worker process.

    It may be started by a driver of another version, so that its own arguments never change: it looks at `job` once it
    knows that both run the same ntksweep.

    Args:
        driver: the installation of the driver, as JSON.
        job: the arguments of `begin`.
    """

    def __init__(self, driver: Mapping[str, str], job: Mapping[str, Any]) -> None:
        here = installation()
        self._refusal = difference(Installation.from_json(driver), here, who=f"a worker on {here.host}")
        if self._refusal is None:
            self.begin(**job)

    def begin(
        self,
        *,
        spec: dict[str, Any],
        sources: dict[str, Any],
        folder: str,
        rank: int = 0,
        group_size: int = 1,
        on_a_gpu: int = 1,
        trusts_code: bool = False,
    ) -> None:
        """Get ready to compute stages.

        Args:
            spec: the spec as JSON.
            sources: the sources as JSON.
            folder: the results folder.
            rank: its number in its process group.
            group_size: how many processes that has.
            on_a_gpu: how many workers share its GPU.
            trusts_code: whether code that comes with the model may run.
        """
        with contextlib.suppress(OSError):
            os.chdir(Path(folder).parent)
        self._sweep = Sweep(Spec.model_validate(spec), Sources.from_json(sources), trusts_code)
        self._folder = ResultsFolder(Path(folder))
        self._log = contextlib.ExitStack()  # open for as long as the process lives
        self._log.enter_context(own_process())
        self._log.enter_context(process_log(self._folder.logs))
        logger.info("a worker, process %d of a process group of %d: %s", rank, group_size, installation())
        self._worker = StageWorker(self._sweep, self._folder, on_a_gpu)
        self._rank, self._size = rank, group_size
        self._meeting: Any = None
        self._follower: Follower | None = None

    def introduce(self) -> Introduction | str:
        """Return the facts about this worker, or why it refuses to work for its driver."""
        if self._refusal is not None:
            return self._refusal
        import ray

        address = None
        if self._size > 1 and self._rank == 0:
            from finetune.parallel.processes import MeetingPoint

            self._meeting = MeetingPoint(ray.util.get_node_ip_address())
            address = (self._meeting.address, self._meeting.port)
        node = ray.get_runtime_context().get_node_id()
        return Introduction(self._worker.process, node, address, self._worker.unfit_gpu())

    def execute(self, tasks: list[Task]) -> list[Outcome]:
        """Compute stages that need no other process."""
        outcomes: list[Outcome] = []
        if self._follower is not None:
            self._follower.forget()
        with contextlib.closing(self._worker.execute_all(tasks)) as computing:
            for outcome in computing:
                outcomes.append(outcome)
                if outcome.spent:
                    break
        rest = Outcome(Status.FAILED, FailureClass.WORKER, "the worker could not use its GPU any more")
        return outcomes + [rest] * (len(tasks) - len(outcomes))

    def lead(self, task: Task) -> Outcome:
        """Compute a stage with the others of the process group, who `follow` meanwhile."""
        if self._worker.process_group.size == 1:
            try:
                self._worker.process_group = self._meeting.open(self._size)
            except Exception as error:
                return failed(error)
        outcome = self._worker.execute(*task)
        dismiss(self._worker.process_group)
        return outcome

    def follow(self, address: tuple[str, int]) -> Outcome | None:
        """Take part in the stages of a process group whose first process is at an address; return a failure here."""
        import ray

        try:
            if self._follower is None:
                from finetune.parallel.processes import meet

                process_group = meet(*address, self._rank, self._size, ray.util.get_node_ip_address())
                self._follower = Follower(self._sweep, self._folder, process_group)
            return self._follower.follow()
        except Exception as error:  # the first process is gone
            return failed(error)
