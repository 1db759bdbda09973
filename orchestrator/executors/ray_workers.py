"""The Ray executor: one actor a worker, on a Ray that this process starts or on that of an allocation."""

import contextlib
import os
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from orchestrator.errors import WorkerStartError
from orchestrator.folder import ResultsFolder, Sweep
from orchestrator.sources import Sources
from orchestrator.spec import Spec
from orchestrator.stage import Stage
from orchestrator.stages.execute import FailureClass, Outcome, StageWorker, Status

SECONDS_TO_DIE = 10.0
"""How long to wait for killed workers to be gone, before their claims are left to become stale."""

MOST_FAILED_STARTS = 4
"""Workers that may end one after the other before they are up, until the run gives up."""

SHORT_SECONDS = 0.02
"""Stages that take less are handed out several at once: a call to a worker takes a good part of that itself."""

LONG_SECONDS = 1.0
"""A call that took longer is followed by calls with one stage."""

MOST_TASKS_A_CALL = 16
"""Most stages that a worker is given at once; if it dies, all of them are begun again."""

_Task = tuple[Stage, int, int]
"""A stage, which attempt it is, and how often its batches are halved."""

_LOST = {
    FailureClass.WORKER: "the worker process died",
    FailureClass.NODE: "the node of the worker was lost",
    FailureClass.MEMORY: "the worker took too much memory",
}


class RayConnection(Protocol):
    """How this process comes to a Ray; use it as a context manager, which connects and disconnects.

    Attributes:
        gpus_per_worker: GPUs that each worker has for itself; known once connected.
    """

    gpus_per_worker: float

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
        self._waiting: deque[_Task] = deque()
        self._in_flight: dict[Any, tuple[_Ready, list[_Task]]] = {}
        self._ended: deque[tuple[Stage, Outcome]] = deque()
        self._tasks_a_call: dict[str, int] = {}
        self._kind = ""
        self._failed_starts = 0

    @property
    def capacity(self) -> int:
        """Stages that the workers which are up can have in hand: several each of a kind that takes no time."""
        return (len(self._idle) + len(self._in_flight)) * self._tasks_a_call.get(self._kind, 1)

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
            self._waiting.clear()
            self._ended.clear()
            self._connection.__exit__(kind, error, trace)

    def submit(self, stage: Stage, attempt: int, halvings: int) -> None:
        """Take a stage, which the next idle worker gets."""
        self._kind = stage.kind
        self._waiting.append((stage, attempt, halvings))

    def next_outcome(self, timeout: float | None) -> tuple[Stage, Outcome] | None:
        """Wait for the first worker that is done, or lost; return None after `timeout` seconds, or if one is up."""
        import ray

        self._give_out()
        if self._ended:
            return self._ended.popleft()
        if not (self._in_flight or self._starting):
            time.sleep(timeout or 0.0)
            return None
        ended, _ = ray.wait([*self._in_flight, *self._starting], num_returns=1, timeout=timeout)
        for done in ended:
            if done in self._starting:
                self._started(done)
            else:
                self._take_back(done)
        return self._ended.popleft() if self._ended else None

    def _give_out(self) -> None:
        """Share the waiting stages among idle workers, once the schedule knows of all that have ended."""
        while self._waiting and self._idle and not self._ended:
            kind = self._waiting[0][0].kind
            most = min(self._tasks_a_call.get(kind, 1), -(-len(self._waiting) // len(self._idle)))
            alike = takewhile(lambda task: task[0].kind == kind, islice(self._waiting, most))  # noqa: B023 - used up now
            tasks = [self._waiting.popleft() for _ in list(alike)]
            worker = self._idle.pop()
            self._in_flight[worker.actor.execute.remote(tasks)] = (worker, tasks)

    def _take_back(self, done: Any) -> None:
        import ray

        worker, tasks = self._in_flight.pop(done)
        stages = [stage for stage, _, _ in tasks]
        try:
            outcomes: list[Outcome] = ray.get(done)
        except ray.exceptions.OutOfMemoryError as error:
            outcomes = self._lost(worker, FailureClass.MEMORY, str(error), len(stages))
        except ray.exceptions.RayActorError as error:
            outcomes = self._lost(worker, self._why(worker), str(error), len(stages))
        except ray.exceptions.RayTaskError as error:
            outcomes = [Outcome(Status.FAILED, FailureClass.CODE, str(error))] * len(stages)
            self._idle.append(worker)
        else:
            self._idle.append(worker)
            self._adapt(stages[0].kind, outcomes)
        self._ended.extend(zip(stages, outcomes, strict=True))

    def _adapt(self, kind: str, outcomes: list[Outcome]) -> None:
        """Hand out more stages of a kind at once while they take no longer than a call, one at a time where they do."""
        before = self._tasks_a_call.get(kind, 1)
        seconds = sum(outcome.seconds for outcome in outcomes)
        factor = 2.0 if seconds < SHORT_SECONDS * len(outcomes) else 0.5
        # However many there are, whoever is told to stop must not wait for long.
        most = 1 if seconds > LONG_SECONDS else MOST_TASKS_A_CALL
        self._tasks_a_call[kind] = max(1, min(int(factor * before), most))

    def _start_worker(self) -> None:
        import ray

        gpus = self._connection.gpus_per_worker
        actor_class = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=0, max_task_retries=0)(_Worker)
        spec, sources = self._sweep.spec.model_dump(mode="json"), self._sweep.sources.to_json()
        actor = actor_class.remote(spec, sources, str(self._folder.root))
        self._starting[actor.introduce.remote()] = actor

    def _started(self, introduction: Any) -> None:
        import ray

        actor = self._starting.pop(introduction)
        try:
            self._idle.append(_Ready(actor, *ray.get(introduction)))
            self._failed_starts = 0
        except ray.exceptions.RayActorError as error:
            self._failed_starts += 1
            if self._failed_starts > MOST_FAILED_STARTS:
                raise WorkerStartError(f"no worker process can be started: {error}") from None
            self._start_worker()

    def _why(self, worker: "_Ready") -> FailureClass:
        """Return what the death of a worker is to be put down to."""
        if self._connection.ran_out_of_memory(worker.process["host"]):
            return FailureClass.MEMORY
        return FailureClass.WORKER if _is_alive(worker.node) else FailureClass.NODE

    def _lost(self, worker: "_Ready", failure: FailureClass, why: str, count: int) -> list[Outcome]:
        import ray

        self._tasks_a_call.clear()  # so that the stage that ends workers is told from those beside it
        # Where Ray has only lost sight of it, it must not go on beside its successor.
        ray.kill(worker.actor)
        if failure is not FailureClass.NODE:
            # Its node saw the process end. Of one on a lost node nobody knows: its claim has to become stale.
            self._folder.claims().release_all(worker.process)
        self._start_worker()
        return [Outcome(Status.FAILED, failure, f"{_LOST[failure]}: {why}")] * count

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

    def execute(self, tasks: list[_Task]) -> list[Outcome]:
        return [self._worker.execute(*task) for task in tasks]


def _is_alive(node: str) -> bool:
    import ray

    return any(each["NodeID"] == node and each["Alive"] for each in ray.nodes())
