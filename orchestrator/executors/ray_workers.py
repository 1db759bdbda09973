"""The Ray executor: one actor a worker, on a Ray that this process starts or on that of an allocation."""

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from orchestrator.folder import ResultsFolder, Sweep
from orchestrator.sources import Sources
from orchestrator.spec import Spec
from orchestrator.stage import Stage
from orchestrator.stages.execute import FailureClass, Outcome, StageWorker, Status

SECONDS_TO_DIE = 10.0
"""How long to wait for killed workers to be gone, before their claims are left to become stale."""

_LOST = {
    FailureClass.WORKER: "the worker process died",
    FailureClass.NODE: "the node of the worker was lost",
    FailureClass.MEMORY: "the worker took too much memory",
}


class RayConnection(Protocol):
    """How this process comes to a Ray; use it as a context manager, which connects and disconnects."""

    def __enter__(self) -> int:
        """Connect, and return how many workers there shall be."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def ran_out_of_memory(self, host: str) -> bool:
        """Tell whether what ran on a node was ended for the memory that it took."""


class RayExecutor:
    """Keeps workers busy; one that dies is replaced, where Ray has room for it, and its stage reported as lost."""

    def __init__(self, sweep: Sweep, folder: ResultsFolder, connection: RayConnection) -> None:
        self._sweep = sweep
        self._folder = folder
        self._connection = connection
        self._starting: dict[Any, Any] = {}
        self._idle: list[_Ready] = []
        self._in_flight: dict[Any, tuple[_Ready, Stage]] = {}

    @property
    def capacity(self) -> int:
        """Workers that are up."""
        return len(self._idle) + len(self._in_flight)

    def __enter__(self) -> "RayExecutor":
        for _ in range(self._connection.__enter__()):
            self._start_worker()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._end_stages_in_flight()
        finally:
            self._idle, self._in_flight, self._starting = [], {}, {}
            self._connection.__exit__(kind, error, trace)

    def submit(self, stage: Stage, attempt: int, halvings: int) -> None:
        """Give a stage to an idle worker."""
        worker = self._idle.pop()
        self._in_flight[worker.actor.execute.remote(stage, attempt, halvings)] = (worker, stage)

    def next_outcome(self, timeout: float | None) -> tuple[Stage, Outcome] | None:
        """Wait for the first worker that is done, or lost; return None after `timeout` seconds, or if one is up."""
        import ray

        if not self._in_flight and not self._starting:
            time.sleep(timeout or 0.0)
            return None
        ended, _ = ray.wait([*self._in_flight, *self._starting], num_returns=1, timeout=timeout)
        if not ended:
            return None
        (done,) = ended
        if done in self._starting:
            self._started(done)
            return None
        worker, stage = self._in_flight.pop(done)
        try:
            outcome: Outcome = ray.get(done)
        except ray.exceptions.OutOfMemoryError as error:
            return stage, self._lost(worker, FailureClass.MEMORY, str(error))
        except (ray.exceptions.RayActorError, ray.exceptions.RayChannelError) as error:
            return stage, self._lost(worker, self._why(worker), str(error))
        except ray.exceptions.RayTaskError as error:
            outcome = Outcome(Status.FAILED, FailureClass.CODE, str(error))
        self._idle.append(worker)
        return stage, outcome

    def _start_worker(self) -> None:
        import ray

        actor_class = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_Worker)
        spec, sources = self._sweep.spec.model_dump(mode="json"), self._sweep.sources.to_json()
        actor = actor_class.remote(spec, sources, str(self._folder.root))
        self._starting[actor.introduce.remote()] = actor

    def _started(self, introduction: Any) -> None:
        import ray

        actor = self._starting.pop(introduction)
        try:
            self._idle.append(_Ready(actor, *ray.get(introduction)))
        except ray.exceptions.RayActorError:
            self._start_worker()

    def _why(self, worker: "_Ready") -> FailureClass:
        """Return what the death of a worker is to be put down to."""
        if self._connection.ran_out_of_memory(worker.process["host"]):
            return FailureClass.MEMORY
        return FailureClass.WORKER if _is_alive(worker.node) else FailureClass.NODE

    def _lost(self, worker: "_Ready", failure: FailureClass, why: str) -> Outcome:
        import ray

        # Where Ray has only lost sight of it, it must not go on beside its successor.
        ray.kill(worker.actor)
        if failure is not FailureClass.NODE:
            # Its node saw the process end. Of one on a lost node nobody knows: its claim has to become stale.
            self._folder.claims().release_all(worker.process)
        self._start_worker()
        return Outcome(Status.FAILED, failure, f"{_LOST[failure]}: {why}")

    def _end_stages_in_flight(self) -> None:
        """Kill the workers that still compute, and give their claims back once they are dead."""
        import ray

        if not self._in_flight:
            return
        for worker, _ in self._in_flight.values():
            ray.kill(worker.actor)
        ended, _ = ray.wait(list(self._in_flight), num_returns=len(self._in_flight), timeout=SECONDS_TO_DIE)
        for done in ended:
            worker = self._in_flight[done][0]
            if _is_alive(worker.node):
                self._folder.claims().release_all(worker.process)


@dataclass(frozen=True)
class _Ready:
    """A worker that is up.

    Attributes:
        actor: Ray's handle.
        process: what names its process in claims.
        node: Ray's identity of its node.
    """

    actor: Any
    process: Mapping[str, Any]
    node: str


class _Worker:
    """The side of the executor that lives in a Ray worker process."""

    def __init__(self, spec: dict[str, Any], sources: dict[str, Any], folder: str) -> None:
        with contextlib.suppress(OSError):
            os.chdir(Path(folder).parent)
        sweep = Sweep(Spec.model_validate(spec), Sources.from_json(sources))
        self._worker = StageWorker(sweep, ResultsFolder(Path(folder)))

    def introduce(self) -> tuple[Mapping[str, Any], str]:
        """Return what names this process in claims, and its node in Ray."""
        import ray

        return self._worker.process, ray.get_runtime_context().get_node_id()

    def execute(self, stage: Stage, attempt: int, halvings: int) -> Outcome:
        return self._worker.execute(stage, attempt, halvings)


def _is_alive(node: str) -> bool:
    import ray

    return any(each["NodeID"] == node and each["Alive"] for each in ray.nodes())
