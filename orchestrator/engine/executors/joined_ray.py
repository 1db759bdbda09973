"""The Ray of an allocation, which was started over its nodes for this process."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from orchestrator.engine.executors.ray_watch import Watchdog, own_answer_to_sigterm
from slurm.ray.gpus import gpus_of_a_worker
from slurm.ray.step import killed_for_memory

CONNECT_SECONDS = 180.0
"""Seconds within which to connect to a Ray that is up on all nodes; most of them go into loading libraries."""


class JoinedRay:
    """The Ray whose address and token are in the environment; it has one CPU for every worker."""

    def __init__(self, node_logs: Path) -> None:
        self.gpus_per_worker = 0.0
        self._node_logs = node_logs
        self._watchdog = Watchdog(self.lost)

    def __enter__(self) -> int:
        import ray

        self._watchdog.start()
        with self._watchdog.limit("let the driver in", CONNECT_SECONDS):
            with own_answer_to_sigterm():
                # The output of workers goes to the logs of the nodes.
                ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level=logging.ERROR)
            resources = ray.cluster_resources()
        workers = int(resources.get("CPU", 0))
        self.gpus_per_worker = gpus_of_a_worker(max(1, workers), int(resources.get("GPU", 0)))
        return workers

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import ray

        ray.shutdown()
        self._watchdog.stop()

    def lost(self) -> None:
        """Return None: the allocation watches its Ray, and ends this process if Ray is lost."""

    def start_again(self) -> None:
        """Do nothing; the allocation does."""

    def end_workers(self, workers: Sequence[int]) -> None:
        """Do nothing; the allocation does."""

    def ran_out_of_memory(self, host: str) -> bool:
        """Tell whether Slurm ended the processes on a node because they took more memory than the allocation has."""
        return killed_for_memory(self._node_logs / f"ray-{host}.log")
