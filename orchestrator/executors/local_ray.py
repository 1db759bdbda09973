"""The Ray executor: one actor a worker, on the Ray cluster of this machine or on one that is there already."""

import atexit
import contextlib
import logging
import os
import secrets
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from orchestrator.folder import ResultsFolder, Sweep
from orchestrator.sources import Sources
from orchestrator.spec import Spec
from orchestrator.stage import Stage
from orchestrator.stages.execute import FailureClass, Outcome, StageWorker, Status

OBJECT_STORE_BYTES = 80 << 20
"""Ray's smallest object store; Jacobians and kernels go through files, only stages and outcomes through Ray."""


LONGEST_ROOT = 16
"""Bytes that a path may have above Ray's own: sockets end at 107, and Ray adds a session folder with a time to it."""


class RayExecutor:
    """Keeps `workers` actors busy; an actor that dies is replaced, and its stage reported as lost."""

    def __init__(self, sweep: Sweep, folder: ResultsFolder, workers: int) -> None:
        self.capacity = workers
        self._sweep = sweep
        self._folder = folder
        self._in_flight: dict[Any, tuple[Any, Stage]] = {}
        self._idle: list[Any] = []
        self._temporary: Path | None = None
        self._environment: dict[str, str] = {}

    def __enter__(self) -> "RayExecutor":
        self._set_environment()
        import ray

        if not ray.is_initialized():
            # A folder of our own: the shared default belongs to whoever started Ray first on this machine.
            self._temporary = Path(tempfile.mkdtemp(prefix="ntksweep-ray-", dir=_short_root()))
            ray.init(
                address="local",
                num_cpus=self.capacity,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=str(self._temporary),
            )
        self._idle = [self._new_worker() for _ in range(self.capacity)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import ray

        self._idle, self._in_flight = [], {}
        if self._temporary is not None:
            ray.shutdown()
            shutil.rmtree(self._temporary, ignore_errors=True)
        for name in self._environment:
            # The token goes with this process; whatever it starts later must not look for it.
            os.environ.pop(name, None)

    def _set_environment(self) -> None:
        wanted = {"RAY_USAGE_STATS_ENABLED": "0"}
        if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
            wanted["RAY_AUTH_TOKEN_PATH"] = str(_private_token())
        if "ray" not in sys.modules:
            # Ray reads this when it is loaded; set later, only the processes that it starts would ask for a token.
            wanted["RAY_AUTH_MODE"] = "token"
        self._environment = {name: value for name, value in wanted.items() if name not in os.environ}
        os.environ.update(self._environment)

    def submit(self, stage: Stage, attempt: int) -> None:
        """Give a stage to an idle worker."""
        worker = self._idle.pop()
        self._in_flight[worker.execute.remote(stage, attempt)] = (worker, stage)

    def next_outcome(self, timeout: float | None) -> tuple[Stage, Outcome] | None:
        """Wait for the first worker that is done, or lost; return None after `timeout` seconds."""
        import ray

        ended, _ = ray.wait(list(self._in_flight), num_returns=1, timeout=timeout)
        if not ended:
            return None
        (done,) = ended
        worker, stage = self._in_flight.pop(done)
        try:
            outcome: Outcome = ray.get(done)
        except ray.exceptions.RayActorError as error:
            self._idle.append(self._new_worker())
            return stage, Outcome(Status.FAILED, FailureClass.WORKER, f"the worker process died: {error}")
        except ray.exceptions.OutOfMemoryError as error:
            self._idle.append(self._new_worker())
            return stage, Outcome(Status.FAILED, FailureClass.MEMORY, str(error))
        except ray.exceptions.RayTaskError as error:
            outcome = Outcome(Status.FAILED, FailureClass.CODE, str(error))
        self._idle.append(worker)
        return stage, outcome

    def _new_worker(self) -> Any:
        import ray

        actor = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_Worker)
        spec, sources = self._sweep.spec.model_dump(mode="json"), self._sweep.sources.to_json()
        return actor.remote(spec, sources, str(self._folder.root))


def _short_root() -> str:
    """Return the folder for temporary files, or /tmp where that is too deep for the paths of Ray's sockets."""
    root = tempfile.gettempdir()
    return root if len(os.fsencode(root)) <= LONGEST_ROOT else "/tmp"


@cache
def _private_token() -> Path:
    """Write a token that only this user can read; without it anyone who reaches Ray's port can run code as the user.

    Ray keeps the token that it read first, so that one serves every Ray of this process.
    """
    folder = Path(tempfile.mkdtemp(prefix="ntksweep-token-"))  # readable by its owner alone
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "auth_token"
    path.write_text(secrets.token_hex(32))
    return path


class _Worker:
    """The side of the executor that lives in a Ray worker process."""

    def __init__(self, spec: dict[str, Any], sources: dict[str, Any], folder: str) -> None:
        with contextlib.suppress(OSError):
            os.chdir(Path(folder).parent)
        sweep = Sweep(Spec.model_validate(spec), Sources.from_json(sources))
        self._worker = StageWorker(sweep, ResultsFolder(Path(folder)))

    def execute(self, stage: Stage, attempt: int) -> Outcome:
        return self._worker.execute(stage, attempt)
