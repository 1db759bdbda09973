"""Claims: records of the processes that are computing stages, on a file system that machines share.

A claim is a file `<stage_id>.<generation>` that names its holder. It is created by linking, which fails if it exists,
so one process wins. A claim whose holder is gone is taken over by creating the next generation, which again one process
wins; nothing is ever renamed or rewritten, so there is no moment at which two hold the same generation. A generation
counts only while those below it are the abandoned ones that it took over: they are looked at again once it is created.

Files in the folder that are not claims are ignored, and never removed.

Written here, for libraries of locks rest on flock or on leases, which file systems of clusters have in part or not at
all; a link that fails where the name exists is on all of them.
"""

import json
import logging
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from orchestrator.store.files import (
    NotAFileError,
    boot_id,
    explained,
    host_name,
    make_folder,
    open_plain,
    process_namespace,
    process_started,
    publish_new,
    slurm_job,
    visible,
)

logger = logging.getLogger(__name__)

RENEWED_EVERY = 10.0
"""Seconds between renewals of the claims that a process holds."""

STALE_AFTER = 90.0
"""Seconds without renewal after which a claim on another machine counts as abandoned."""

CLOCK_KEPT = 1.0
"""Seconds for which one reading of the file server's clock is used."""


_NAME = re.compile(r"(?P<stage>[^.].*)\.(?P<generation>[1-9][0-9]{0,5})")
_MOST_BYTES = 1 << 16
_BEGINNING = b'{"host": '
_FOREIGN: Mapping[str, Any] = {"foreign": True}
"""Stands for the holder if a file with a claim's name is not a claim; a power cut can only empty a real claim."""

_FIELDS: Mapping[str, tuple[type, ...]] = {
    "host": (str,), "process_namespace": (str,), "boot": (str,), "process": (int,),
    "process_started": (int, type(None)), "slurm_job": (str, type(None)), "taken": (int, float),
}  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """A claim that this process holds."""

    stage_id: str
    path: Path
    holder: Mapping[str, Any]


class ClaimBook:
    """The claims of one results folder, as one process takes, renews and releases them.

    Attributes:
        process: identification of this process among those of all machines, written in each of its claims.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._held: set[Path] = set()
        self._lock = threading.Lock()
        self._renewer: threading.Thread | None = None
        self._clock = (-math.inf, 0.0)
        self._ahead: dict[Path, tuple[float, float]] = {}
        self.process: dict[str, Any] = {
            "host": host_name(),
            "process_namespace": process_namespace(),
            "boot": boot_id(),
            "process": os.getpid(),
            "process_started": process_started(os.getpid()),
            "slurm_job": slurm_job(),
            "slurm_restart": os.environ.get("SLURM_RESTART_COUNT"),
        }

    def take(self, stage_id: str) -> Claim | None:
        """Claim a stage; return None if a living process holds it.

        Raises:
            StorageError: the folder cannot be written.
        """
        make_folder(self.root)
        holder = {**self.process, "taken": time.time()}
        content = json.dumps(holder).encode()
        passed_over: dict[Path, Mapping[str, Any]] = {}
        while True:
            path = self.root / f"{stage_id}.{len(passed_over) + 1}"
            if publish_new(path, content, durable=False):
                if all(_read(older) == dead for older, dead in passed_over.items()):
                    for dead in passed_over.values():
                        logger.info("claim on %s taken over from %s", stage_id, dict(dead) or "an unknown process")
                    self._hold(path)
                    return Claim(stage_id, path, holder)
                # One that seemed abandoned had been given back, by a holder that died after that or by whoever took it
                # over: the generations begin anew, and another process may hold the first.
                self._withdraw(path, holder)
                passed_over = {}
                continue
            other = _read(path)
            if other is None:
                passed_over = {}  # released between two looks: begin again
            elif self._abandoned(path, other):
                passed_over[path] = other
            else:
                return None

    def release(self, claim: Claim) -> None:
        """Give a claim back, and remove the abandoned claims that it took over.

        Raises:
            StorageError: the folder cannot be written.
        """
        with self._lock:
            self._held.discard(claim.path)
        if _read(claim.path) != claim.holder:
            return  # another process took this one for dead and took over: the present claim is not ours
        self._remove(claim.stage_id, _generation(claim.path))

    def release_all(self, process: Mapping[str, Any] | None = None) -> list[str]:
        """Give back all claims of a process, by default of this one; return their stages.

        An interrupt may have come while a claim was taken or given back; of another process it must be certain that it
        is dead, and then no other process has to wait until its claims are stale.

        Args:
            process: the `process` of the other one's own book; a part of it stands for all processes that share it.

        Raises:
            StorageError: the folder cannot be written.
        """
        dead = self.process if process is None else process
        released = []
        with explained(self.root):
            for path in self._named():
                holder = _read(path)
                if holder and all(holder.get(key) == value for key, value in dead.items()):
                    path.unlink(missing_ok=True)
                    released.append(path.stem)
        return released

    def clear(self, finished: Callable[[str], bool]) -> None:
        """Remove the claims that nothing would use again: those on finished stages, and those of dead processes.

        A process that is killed between publishing a stage and giving its claim back leaves such a claim.

        Args:
            finished: tells, of a stage's identity, whether it is finished.

        Raises:
            StorageError: the folder cannot be written.
        """
        for stage_id, path, holder in self._newest():
            if self._abandoned(path, holder):
                # Take it over in the usual way, because another process may be doing so at this moment.
                claim = self.take(stage_id)
                if claim is not None:
                    self.release(claim)
            elif finished(stage_id) and _read(path) == holder:
                # Even if the holder lives and is about to do the same: the next to claim the stage finds it finished.
                self._remove(stage_id, _generation(path))

    def held(self) -> dict[str, Mapping[str, Any]]:
        """Return the holders of all stages that living processes are computing, by stage.

        One that was last renewed in a future farther away than it takes to be stale is not counted: the clock was set
        back since, and a living process would have renewed it.
        """
        return {
            stage_id: holder
            for stage_id, path, holder in self._newest()
            if not self._abandoned(path, holder) and self._ahead.get(path, (0.0, 0.0))[0] - self._now() <= STALE_AFTER
        }

    def foreign(self) -> list[str]:
        """Return the names of visible entries of the folder that are not claims, or may not be read."""
        return sorted(entry.name for entry in visible(self.root) if _is_foreign(Path(entry.path)))

    def _named(self) -> list[Path]:
        return [Path(entry.path) for entry in visible(self.root) if _NAME.fullmatch(entry.name)]

    def _newest(self) -> Iterator[tuple[str, Path, Mapping[str, Any]]]:
        """Yield the newest claim on each stage, with its holder."""
        found: dict[str, list[Path]] = {}
        for path in self._named():
            found.setdefault(path.stem, []).append(path)
        for stage_id, paths in found.items():
            for path in sorted(paths, key=_generation, reverse=True):
                holder = _read(path)
                if holder is not None and holder is not _FOREIGN:
                    yield stage_id, path, holder
                    break

    def _withdraw(self, path: Path, holder: Mapping[str, Any]) -> None:
        with explained(self.root):
            if _read(path) == holder:
                path.unlink(missing_ok=True)

    def _remove(self, stage_id: str, last: int) -> None:
        with explained(self.root):
            # The oldest first: while one below the newest were missing, two could hold the stage.
            for generation in range(1, last):
                path = self.root / f"{stage_id}.{generation}"
                if _read(path) is not _FOREIGN:
                    with suppress(PermissionError):  # another user's, in a folder where each removes his own
                        path.unlink(missing_ok=True)
            self.root.joinpath(f"{stage_id}.{last}").unlink(missing_ok=True)

    def _hold(self, path: Path) -> None:
        with self._lock:
            self._held.add(path)
            if self._renewer is None:
                self._renewer = threading.Thread(target=self._renew, name="renew-claims", daemon=True)
                self._renewer.start()

    def _renew(self) -> None:
        while True:
            time.sleep(RENEWED_EVERY)
            with self._lock:
                held = list(self._held)
            for path in held:
                try:
                    os.utime(path)
                except OSError:
                    continue  # released in the meantime, or the file system is away: the next round tries again

    def _abandoned(self, path: Path, holder: Mapping[str, Any]) -> bool:
        if holder is _FOREIGN:
            return True
        if all(holder.get(key) == self.process[key] for key in ("host", "process_namespace")):
            started = process_started(holder["process"]) if holder["boot"] == self.process["boot"] else None
            return started is None or holder["process_started"] != started
        try:
            renewed = path.stat().st_mtime
        except FileNotFoundError:
            return True
        now = self._now()
        if renewed <= now:
            self._ahead.pop(path, None)
            return now - renewed > STALE_AFTER
        return self._stands_still(path, renewed)

    def _stands_still(self, path: Path, renewed: float) -> bool:
        """Tell whether a claim from the future has not been renewed while this process has known it.

        A clock that was set back leaves such claims, whose age says nothing; a living holder goes on renewing its own.
        """
        now = time.monotonic()
        before, since = self._ahead.get(path, (renewed, now))
        self._ahead[path] = (renewed, since if renewed == before else now)
        return now - self._ahead[path][1] > STALE_AFTER

    def _now(self) -> float:
        # The file server's clock, not this machine's: times of change are compared with it. One look serves the claims
        # of hundreds of workers.
        looked, then = self._clock
        if time.monotonic() - looked > CLOCK_KEPT:
            looked, then = self._clock = time.monotonic(), self._server_time()
        return then + time.monotonic() - looked

    def _server_time(self) -> float:
        probe = self.root / f".now.{uuid4().hex}"
        try:
            probe.touch()
        except OSError:
            return time.time()  # this process may only read
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)


def _read(path: Path) -> Mapping[str, Any] | None:
    """Return the holder that a claim names; None if there is no claim, an empty mapping if the holder is unknown."""
    try:
        with open_plain(path) as stream:
            content = stream.read(_MOST_BYTES)
    except FileNotFoundError:
        return None
    except NotAFileError:
        return _FOREIGN
    except OSError:
        return {}  # not readable for this user: the age of the claim decides
    if not content.strip(b"\0"):
        return {}  # a power cut can leave an empty file, zeros, or a part
    try:
        holder = json.loads(content)
    except (ValueError, RecursionError):
        return {} if content.startswith(_BEGINNING) else _FOREIGN
    return holder if _is_holder(holder) else _FOREIGN


def _is_holder(found: Any) -> bool:
    return isinstance(found, dict) and all(
        field in found and isinstance(found[field], types) for field, types in _FIELDS.items()
    )


def _is_foreign(path: Path) -> bool:
    if not _NAME.fullmatch(path.name):
        return True
    return _read(path) is _FOREIGN or (os.path.lexists(path) and not os.access(path, os.R_OK))


def _generation(path: Path) -> int:
    return int(path.suffix[1:])
