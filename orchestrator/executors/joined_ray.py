"""The Ray of an allocation, which was started over its nodes for this process."""

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from slurm.ray_step import killed_for_memory


class JoinedRay:
    """The Ray whose address and token stand in the environment; it has one CPU for every worker."""

    def __init__(self, node_logs: Path) -> None:
        self.gpus_per_worker = 0.0
        self._node_logs = node_logs

    def __enter__(self) -> int:
        import ray

        with _own_answer_to_sigterm():
            # What workers print goes to the logs of the nodes.
            ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level=logging.ERROR)
        resources = ray.cluster_resources()
        workers = int(resources.get("CPU", 0))
        self.gpus_per_worker = resources.get("GPU", 0.0) / max(1, workers)
        return workers

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import ray

        ray.shutdown()

    def ran_out_of_memory(self, host: str) -> bool:
        """Tell whether Slurm ended what ran on a node because it took more memory than the allocation has."""
        return killed_for_memory(self._node_logs / f"ray-{host}.log")


@contextmanager
def _own_answer_to_sigterm() -> Iterator[None]:
    """Keep this process's handler of SIGTERM, which Ray replaces by one that ends the process."""
    handler = signal.getsignal(signal.SIGTERM)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
