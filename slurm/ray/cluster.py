"""Ray over the nodes of an allocation, for as long as a context lasts."""

import os
import secrets
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from slurm.errors import SlurmError
from slurm.ray.addresses import is_down, node_addresses
from slurm.ray.step import RayStep

MOST_RESTARTS = 3
"""Most restarts of Ray on one node."""

START_SECONDS = 180
"""Longest time until Ray is alive on every node; a shared file system can make Python slow to load."""

END_SECONDS = 10
"""Longest time for the nodes to end Ray before Slurm is told to kill it."""

LOOK_SECONDS = 0.05


class RayStartError(SlurmError):
    """Ray did not start on a node.

    Attributes:
        passes: whether Ray gave up by itself, as it does on a busy machine, so that another start may succeed.
    """

    def __init__(self, message: str, *, passes: bool = False) -> None:
        super().__init__(message)
        self.passes = passes


class NotWantedError(SlurmError):
    """Ray is no longer needed, before it has started."""


class HeadLostError(SlurmError):
    """Ray's head ended, and with it the whole Ray of this allocation."""


@dataclass(frozen=True)
class RaySettings:
    """Settings with which Ray is started on every node.

    Attributes:
        workers_per_node: worker processes, for each of which Ray counts one CPU.
        cpus_per_node: CPUs of the allocation on a node, which all its workers share.
        gpus_per_node: GPUs of the allocation on a node.
        memory_bytes: memory of the allocation on a node; 0 if unknown.
        object_store_bytes: size of Ray's object store on a node.
        local_scratch: folder on every node for temporary files.
        dashboard: whether Ray's dashboard runs, on the loopback address of the first node.
        python: command that starts Python on a node.
    """

    workers_per_node: int
    cpus_per_node: int
    gpus_per_node: int
    memory_bytes: int
    object_store_bytes: int
    local_scratch: Path
    dashboard: bool
    python: tuple[str, ...]


@dataclass(frozen=True)
class NodeEvent:
    """Something that happened to Ray on one node.

    Attributes:
        node: Slurm's name of the node.
        kind: "lost", then "restarted" once Ray is alive there again, or "given up".
        message: what is known about it, for people.
        out_of_memory: whether it was lost because of the memory limit of the allocation.
    """

    node: str
    kind: Literal["lost", "restarted", "given up"]
    message: str
    out_of_memory: bool = False


class RayCluster:
    """Starts and ends Ray on every node of the allocation whose batch process this is.

    Args:
        settings: what Ray is started with.
        logs: folder for what each node writes.
        start_seconds: longest time until Ray is alive on every node.
        wanted: asked while Ray starts; once it returns False, the start ends with NotWantedError.

    Attributes:
        environment: what a driver needs in its environment, before it imports ray, to connect. It holds the token
            without which no process is let in; it belongs on no command line and into no file.
        logs: folder with what each node wrote, `ray-<node>.log`.
        ended_nodes: nodes on which every process of an ended Ray is certainly gone.
        out_of_memory: nodes on which Ray ended because it took more memory than the allocation has.
    """

    def __init__(
        self,
        settings: RaySettings,
        logs: Path,
        *,
        start_seconds: float = START_SECONDS,
        wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        self.logs = logs
        self.environment: dict[str, str] = {}
        self.out_of_memory: set[str] = set()
        self._settings = settings
        self._start_seconds = start_seconds
        self._wanted = wanted
        self._addresses: dict[str, str] = {}
        self._head = ""
        self._steps: dict[str, RayStep] = {}
        self._restarts: dict[str, int] = {}
        self._ended: set[str] = set()
        self._restarting: set[str] = set()

    @property
    def address(self) -> str:
        """Address of the head, "host:port"."""
        return self.environment["RAY_ADDRESS"]

    @property
    def ended_nodes(self) -> tuple[str, ...]:
        """Nodes on which Ray was started and on which none of its processes runs any more."""
        return tuple(sorted(self._ended))

    def __enter__(self) -> "RayCluster":
        self.logs.mkdir(parents=True, exist_ok=True)
        self._addresses = node_addresses(os.environ["SLURM_JOB_NODELIST"])
        self._head = os.environ.get("SLURMD_NODENAME", next(iter(self._addresses)))
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        try:
            self._start_all(time.monotonic() + self._start_seconds)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def poll(self) -> list[NodeEvent]:
        """Look after the nodes; call it every second or so. A node where Ray ended is started again.

        The nodes end by themselves if they hear nothing for long (`slurm.ray.node.SILENT_SECONDS`).

        Raises:
            HeadLostError: Ray ended on the first node.
        """
        events = []
        for node, step in list(self._steps.items()):
            if node in self._restarting and step.is_ready():
                self._restarting.discard(node)
                events.append(NodeEvent(node, "restarted", "Ray is alive there again"))
            if step.has_ended():
                events += self._lost(node, step)
            self._beat()
        return events

    def _beat(self) -> None:
        for step in self._steps.values():
            step.beat()

    def _start_all(self, deadline: float) -> None:
        head = self._start(self._head)
        head.begin()
        while head.port is None:
            self._wait_for(head, deadline)
        self.environment["RAY_ADDRESS"] = f"{self._addresses[self._head]}:{head.port}"
        joining = [self._start(node) for node in self._addresses if node != self._head]
        self._wait_until_ready(head, deadline)
        for step in joining:
            step.begin()
        for step in joining:
            self._wait_until_ready(step, deadline)

    def _wait_until_ready(self, step: RayStep, deadline: float) -> None:
        while not step.is_ready():
            self._wait_for(step, deadline)

    def _wait_for(self, step: RayStep, deadline: float) -> None:
        if not self._wanted():
            raise NotWantedError(f"Ray is no longer needed on node {step.node}")
        if ended := next((each for each in self._steps.values() if each.has_ended()), None):
            raise RayStartError(
                f"Ray did not start on node {ended.node}; it says:\n{ended.tail()}", passes=ended.ray_gave_up()
            )
        if time.monotonic() > deadline:
            raise RayStartError(
                f"Ray was not alive on node {step.node} after {self._start_seconds:.0f} s; it says:\n{step.tail()}"
            )
        self._beat()
        time.sleep(LOOK_SECONDS)

    def _start(self, node: str) -> RayStep:
        settings = self._settings
        arguments = [
            *(f"--address={self._addresses[node]}", f"--job={os.environ['SLURM_JOB_ID']}"),
            *(f"--rank={self._rank(node)}", f"--workers={settings.workers_per_node}"),
            *(f"--gpus={settings.gpus_per_node}", f"--memory={settings.memory_bytes}"),
            *(f"--object-store={settings.object_store_bytes}", f"--scratch={settings.local_scratch}"),
            *(["--dashboard"] if settings.dashboard else []),
            *([] if node == self._head else [f"--join={self.address}"]),
        ]
        command = [*settings.python, "-m", "slurm.ray.node", *arguments]
        self._ended.discard(node)
        step = RayStep(node, command, settings.cpus_per_node, settings.gpus_per_node, self.logs / f"ray-{node}.log")
        step.start({**os.environ, **self._node_environment()})
        self._steps[node] = step
        return step

    def _rank(self, node: str) -> int:
        """Return a number that no other start of Ray in this allocation has, from which follow its ports.

        When the head finds a node dead, it shuts down whatever answers at the node's address. A restarted Ray with the
        same ports would be ended by that.
        """
        return list(self._addresses).index(node) + len(self._addresses) * self._restarts.get(node, 0)

    def _node_environment(self) -> Mapping[str, str]:
        threads = max(1, self._settings.cpus_per_node // self._settings.workers_per_node)
        own = {name: value for name, value in self.environment.items() if name != "RAY_ADDRESS"}
        # Ray would set one thread for each worker, because a worker counts as one CPU.
        return {"OMP_NUM_THREADS": str(threads), **own} if "OMP_NUM_THREADS" not in os.environ else own

    def _lost(self, node: str, step: RayStep) -> list[NodeEvent]:
        del self._steps[node]
        self._restarting.discard(node)
        if step.is_gone():
            self._ended.add(node)
        else:
            # The step may still run after srun has ended, and two Rays cannot run on one node.
            step.cancel(signal.SIGTERM)
        out_of_memory = step.ran_out_of_memory()
        if out_of_memory:
            self.out_of_memory.add(node)
        reason = "it took more memory than the allocation has; " if out_of_memory else ""
        why = f"{reason}it says:\n{step.tail()}"
        if node == self._head:
            raise HeadLostError(f"Ray ended on {node}, the first node of the allocation; {why}")
        lost = NodeEvent(node, "lost", f"Ray ended there; {why}", out_of_memory)
        return [lost, *self._restart(node)]

    def _restart(self, node: str) -> list[NodeEvent]:
        if self._restarts.get(node, 0) >= MOST_RESTARTS:
            return [NodeEvent(node, "given up", f"Ray ended there {MOST_RESTARTS + 1} times")]
        if is_down(node):
            return [NodeEvent(node, "given up", "Slurm says that the node is down")]
        self._restarts[node] = self._restarts.get(node, 0) + 1
        self._restarting.add(node)
        self._start(node).begin()
        return []

    def _end(self) -> None:
        for step in self._steps.values():
            step.end()
        deadline = time.monotonic() + END_SECONDS
        for node, step in self._steps.items():
            step.wait(deadline - time.monotonic())
            if step.is_gone():
                self._ended.add(node)
        self._steps = {}
