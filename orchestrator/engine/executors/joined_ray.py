"""The Ray of an allocation, which was started over its nodes for this process."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from orchestrator.engine.executors.ray_thread import NeverReturnedError, RayThread, keep_handlers_of_signals
from orchestrator.errors import RayFailedError
from slurm.ray.gpus import gpus_of_a_worker
from slurm.ray.step import killed_for_memory

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 180.0
"""Seconds within which to connect to a Ray that is up on all nodes; most of them go into loading libraries."""

LEAVE_SECONDS = 40.0
"""Seconds within which to disconnect from it."""


class JoinedRay:
    """The Ray whose address and token are in the environment; it has one CPU for every worker.

    Signals are answered while this process connects, by what their handlers raise.
    """

    def __init__(self, node_logs: Path) -> None:
        self.gpus_per_worker = 0.0
        self._node_logs = node_logs
        self._thread: RayThread | None = None
        self._resources: Mapping[str, float] = {}

    def __enter__(self) -> int:
        self._thread = RayThread()
        try:
            self._thread.call(self._connect, CONNECT_SECONDS)
        except BaseException as error:
            self._disconnect()
            if isinstance(error, NeverReturnedError):
                raise RayFailedError(
                    f"the driver could not connect to the Ray of this allocation within {CONNECT_SECONDS:.0f} s; see "
                    f"what its nodes say in {self._node_logs}, then go on with `ntksweep resume`"
                ) from None
            raise
        workers = int(self._resources.get("CPU", 0))
        self.gpus_per_worker = gpus_of_a_worker(max(1, workers), int(self._resources.get("GPU", 0)))
        return workers

    def _connect(self) -> None:
        import ray

        keep_handlers_of_signals()
        # The output of workers goes to the logs of the nodes.
        ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level=logging.ERROR)
        self._resources = ray.cluster_resources()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._disconnect()

    def _disconnect(self) -> None:
        assert self._thread is not None
        try:
            self._thread.shut_ray_down(LEAVE_SECONDS)
        except NeverReturnedError:
            logger.warning("the driver could not disconnect from Ray in time")
        finally:
            self._thread.end()

    def lost(self) -> None:
        """Return None: the allocation watches its Ray, and ends this process if Ray is lost."""

    def start_again(self) -> None:
        """Do nothing; the allocation does."""

    def end_workers(self, workers: Sequence[int]) -> bool:
        """Return False: they are on other nodes, and the allocation ends those of a lost Ray."""
        return False

    def ran_out_of_memory(self, host: str) -> bool:
        """Tell whether Slurm ended the processes on a node because they took more memory than the allocation has."""
        return killed_for_memory(self._node_logs / f"ray-{host}.log")
