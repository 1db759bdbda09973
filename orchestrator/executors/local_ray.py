"""A Ray on this machine, started for one run and closed to everybody else."""

import atexit
import logging
import os
import secrets
import sys
import tempfile
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from types import TracebackType

from slurm.private_folder import private_folder

OBJECT_STORE_BYTES = 80 << 20
"""Ray's smallest object store; Jacobians and kernels go through files, only stages and outcomes through Ray."""


class LocalRay:
    """A Ray of this process and its children, or the one that it is connected to already.

    Args:
        workers: how many workers it has room for.
        on_gpus: whether they share the GPUs of this machine.
    """

    def __init__(self, workers: int, *, on_gpus: bool = False) -> None:
        self.gpus_per_worker = 0.0
        self._workers = workers
        self._on_gpus = on_gpus
        self._folder = ExitStack()
        self._started = False
        self._environment: dict[str, str] = {}

    def __enter__(self) -> int:
        self._set_environment()
        import ray

        if not ray.is_initialized():
            # A folder of our own: the shared default belongs to whoever started Ray first on this machine.
            temporary = self._folder.enter_context(private_folder(Path(tempfile.gettempdir())))
            self._started = True
            ray.init(
                address="local",
                num_cpus=self._workers,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=str(temporary / "ray"),  # Ray opens its folder to everybody, but not the one above
            )
        if self._on_gpus:
            self.gpus_per_worker = ray.cluster_resources().get("GPU", 0.0) / self._workers
        return self._workers

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import ray

        if self._started:
            ray.shutdown()
        self._folder.close()
        for name in self._environment:
            # The token goes with this process; whatever it starts later must not look for it.
            os.environ.pop(name, None)

    def ran_out_of_memory(self, host: str) -> bool:
        """Return False: nothing ends this machine's Ray for its memory but Ray itself, which says so."""
        return False

    def _set_environment(self) -> None:
        wanted = {"RAY_USAGE_STATS_ENABLED": "0"}
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

    Ray keeps the token that it read first, so that one serves every Ray of this process.
    """
    folder = ExitStack()
    atexit.register(folder.close)
    path = folder.enter_context(private_folder(Path(tempfile.gettempdir()))) / "auth_token"
    path.write_text(secrets.token_hex(32))
    return path
