"""A Ray on this machine, started for one run and closed to everybody else."""

import atexit
import logging
import os
import re
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any

from ntk_dist.device.faults import is_out_of_threads
from orchestrator.engine.executors.ray_thread import NeverReturnedError, RayThread, is_stuck, keep_handlers_of_signals
from orchestrator.engine.executors.ray_watch import ADVICE, RayProcesses, Watchdog, end_processes
from orchestrator.errors import RayFailedError
from orchestrator.process_limits import no_more_threads
from slurm.ray.gpus import allocator_settings, gpus_of_a_worker
from slurm.ray.needs import (
    RayNeedsError,
    object_store_folder,
    refuse_too_few_threads,
    refuse_unreachable,
    usable_root,
)
from slurm.ray.private_folder import private_folder

logger = logging.getLogger(__name__)

OBJECT_STORE_BYTES = 80 << 20
"""Ray's smallest object store; Jacobians and kernels go through files, only stages and outcomes through Ray."""


MOST_RESTARTS = 3
"""Most restarts of Ray in a run after one of its processes was killed; each node of an allocation has as many."""

MOST_STARTS = 2
"""Attempts at one start of Ray, which itself gives up after 30 seconds on a busy machine."""

START_SECONDS = 240.0
"""Seconds for each attempt at a start."""

END_SECONDS = 40.0
"""Seconds within which Ray has to end; if one of its processes is already gone, it takes about 10."""

STOP_SECONDS = 3.0
"""Seconds within which Ray has to be up if the run is told to stop while it starts, so that it ends in order."""

PATIENCE = "3600"
"""Seconds after which Ray ends a process that cannot reach Ray's server; long, because we are to say why it ends."""

_QUOTES = re.compile(r"\s*Last \d+ lines of error files:")

_THROWN = re.compile(r"Unhandled exception:.* what\(\): (.*?)(?: /|$)", re.MULTILINE)
"""The words of an error that ended one of Ray's programs, in what Ray quotes of its log."""

PORT_PAUSE_MS = 10
"""Milliseconds between two looks for a file of Ray."""


class LocalRay:
    """A Ray of this process and its children, or the one that it is connected to already.

    Args:
        workers: how many workers it has room for.
        gpus: GPUs of this machine, which the workers share.
        workers_per_gpu: how many workers may share one.
    """

    def __init__(self, workers: int, *, gpus: int = 0, workers_per_gpu: int = 1) -> None:
        self.gpus_per_worker = gpus_of_a_worker(workers, gpus)
        if gpus and workers_per_gpu > 1:
            self.gpus_per_worker = 1 / workers_per_gpu
        self._workers = workers
        self._gpus = gpus
        self._folder = ExitStack()
        self._started = False
        self._restarts = 0
        self._processes = RayProcesses()
        self._starting = False
        self._thread: RayThread | None = None
        self._watchdog = Watchdog(self.lost)
        self._environment: dict[str, str] = {}

    def __enter__(self) -> int:
        self._set_environment()
        import ray

        self._watchdog.start()
        try:
            if not ray.is_initialized():
                self._start()
        except BaseException:
            self._leave()
            raise
        return self._workers

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._started:
                self._end()
        finally:
            self._leave()

    def _leave(self) -> None:
        self._watchdog.stop()
        for name in self._environment:
            # The token is removed when this process ends; processes that it starts later must not look for it.
            os.environ.pop(name, None)

    def lost(self) -> str | None:
        """Return the name of a program of Ray that has ended by itself or was killed; None if all are running."""
        if self._starting:
            self._processes.find()
        return self._processes.ended()

    def end_workers(self, workers: Sequence[int]) -> bool:
        """Kill workers, which would go on until they finish their current stages; see `RayConnection`.

        Those of a Ray that was there already may be on other machines.
        """
        if self._started:
            end_processes(workers)
        return self._started

    def start_again(self) -> None:
        """Start Ray again after it was lost; nothing of the previous one remains.

        Raises:
            RayFailedError: it was lost too often, or does not start.
        """
        program = self.lost()
        self._end()
        if self._restarts == MOST_RESTARTS:
            raise RayFailedError(
                f"Ray's {program} was killed {MOST_RESTARTS + 1} times in this run, perhaps because this machine has "
                f"too little memory (`dmesg` tells); finished stages are kept; {ADVICE}"
            )
        logger.warning("Ray's %s was killed; Ray is started again", program)
        self._restarts += 1
        self._start()

    def _start(self) -> None:
        if is_stuck():
            raise RayFailedError(
                "an earlier start or end of Ray in this process has not returned; restart Python, or run without "
                "Ray with `--executor inline`"
            )
        with _needs_told():
            refuse_unreachable()
            refuse_too_few_threads(self._workers)
            root = usable_root()
        # A folder of our own: the shared default belongs to whoever started Ray first on this machine.
        temporary = self._folder.enter_context(private_folder(root))
        self._thread = RayThread()
        self._started = True
        try:
            for tries_left in reversed(range(MOST_STARTS)):
                if self._try_to_start(temporary / f"ray{tries_left}", again=tries_left > 0):
                    return
        except BaseException:
            self._give_up_start()
            raise

    def _try_to_start(self, folder: Path, *, again: bool) -> bool:
        """Start Ray, and return whether it is up; after the last attempt an error says why it is not."""
        assert self._thread is not None
        began = time.perf_counter()
        try:
            # Ray opens its folder to everybody, but not the one above.
            self._thread.call(partial(self._initialize, folder), START_SECONDS)
        except NeverReturnedError:
            raise RayFailedError(
                f"Ray does not start: its processes have not answered for {START_SECONDS:.0f} s; {ADVICE}"
            ) from None
        except Exception as error:  # of many classes, Exception itself among them
            self._end_processes()
            logger.info("Ray did not start", exc_info=error)
            if not again:
                raise RayFailedError(f"Ray does not start: {_cause(error)}") from error
            return False
        logger.info("Ray is up after %.1f s, its files in %s", time.perf_counter() - began, folder)
        return True

    def _give_up_start(self) -> None:
        """Leave nothing of a Ray that does not start, or that is not wanted any more."""
        assert self._thread is not None
        with suppress(NeverReturnedError):
            self._thread.wait(STOP_SECONDS)
        self._end()

    def _initialize(self, folder: Path) -> None:
        import ray

        # The last output of a raylet would go to standard output, which is for the answer of `--json`.
        ray._private.worker.listen_error_messages = lambda *_: None
        # They would add nodes, bring what workers print to this process, and count users: 240 MB and one and a half
        # seconds of a processor for nothing.
        node = ray._private.node.Node
        node.start_monitor = node.start_log_monitor = node.start_api_server = lambda *_, **__: None
        _wait_for_ports_in_python(ray._private.node)
        keep_handlers_of_signals()
        self._starting = True
        try:
            ray.init(
                address="local",
                num_cpus=self._workers,
                num_gpus=self._gpus,  # by itself Ray counts whole GPUs, and not their MIG instances
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=str(folder),
                _plasma_directory=str(stored) if (stored := object_store_folder(folder.parent)) else None,
            )
        finally:
            self._starting = False
            self._processes.find()

    def _end(self) -> None:
        try:
            self._end_processes()
        finally:
            if self._thread is not None:
                self._thread.end()
            self._folder.close()
            self._started = False

    def _end_processes(self) -> None:
        """End Ray in order; where it does not answer, kill its processes."""
        self._processes.find()
        self._processes.find_theirs()  # one that is still starting outlives Ray, and writes into its folder
        try:
            if self._thread is not None:
                self._thread.shut_ray_down(END_SECONDS)
        except NeverReturnedError:
            logger.warning("Ray did not end in time, and is killed")
        finally:
            self._processes.find()
            self._processes.end()

    def ran_out_of_memory(self, host: str) -> bool:
        """Return False: on this machine only Ray itself ends workers for their memory, and it reports that."""
        return False

    def _set_environment(self) -> None:
        wanted = {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_gcs_rpc_server_reconnect_timeout_s": PATIENCE,
            **allocator_settings(os.environ),
        }
        if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
            wanted["RAY_AUTH_TOKEN_PATH"] = str(_private_token())
        if "ray" not in sys.modules:
            # Ray reads this when it is loaded; set later, only the processes that it starts would ask for a token.
            wanted["RAY_AUTH_MODE"] = "token"
        self._environment = {name: value for name, value in wanted.items() if name not in os.environ}
        os.environ.update(self._environment)


@cache
def _private_token() -> Path:
    """Write a token that only this user can read; without it anyone who reaches Ray's port can run code as the user.

    Ray keeps the token that it read first, so that one token serves every Ray of this process.
    """
    folder = ExitStack()
    atexit.register(folder.close)
    with _needs_told():
        root = usable_root()
    path = folder.enter_context(private_folder(root)) / "auth_token"
    path.write_text(secrets.token_hex(32))
    return path


@contextmanager
def _needs_told() -> Iterator[None]:
    """Say of what Ray needs of this machine and does not find there that runs go without Ray too."""
    try:
        yield
    except RayNeedsError as error:
        raise RayFailedError(f"{error}, or run without Ray with `--executor inline`") from error


def _wait_for_ports_in_python(node: Any) -> None:
    """Let Ray wait in Python for the files in which its programs say their ports: its own way stops all of Python."""
    read_port = getattr(node, "wait_for_persisted_port", None)
    if read_port is None or not hasattr(node, "get_port_filename") or hasattr(read_port, "waits_in_python"):
        return

    def wait(folder: str, node_id: str, name: str, *, timeout_ms: int) -> int:
        file = Path(folder) / node.get_port_filename(node_id, name)
        for _ in range(timeout_ms // PORT_PAUSE_MS):
            if file.exists():
                break
            time.sleep(PORT_PAUSE_MS / 1000)
        return int(read_port(folder, node_id, name, timeout_ms=PORT_PAUSE_MS))

    wait.waits_in_python = True  # type: ignore[attr-defined]
    node.wait_for_persisted_port = wait


def _cause(error: Exception) -> str:
    """Return why Ray did not start, in one line, and what to do; Ray quotes the ends of its programs' logs below."""
    if is_out_of_threads(error):
        return f"{no_more_threads()}, or run without Ray with `--executor inline`"
    line, *quoted = str(error).strip().splitlines() or [type(error).__name__]
    said = _QUOTES.sub("", line).rstrip(". ")
    thrown = _THROWN.search("\n".join(quoted))
    return f"{said}{f' ({thrown[1]})' if thrown else ''}; {ADVICE}"
