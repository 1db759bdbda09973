"""The log of this process: a file of its own in the results folder, beside the journal.

The modules log through `logging.getLogger(__name__)` and configure nothing. A process that is ntksweep's own (the
command, the driver of an allocation, a worker) says so with `own_process`, and then logs everything. In a program that
only imports the packages, the levels are those of that program.
"""

import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

from orchestrator.literal import printable
from orchestrator.store.files import host_name, slurm_job

PACKAGES = ("orchestrator", "slurm", "finetune", "ntk_dist", "ntksweep")
"""Packages whose loggers are ntksweep's own."""

APART = ("transformers", "datasets", "huggingface_hub", "DeepSpeed")
"""Loggers of libraries that pass nothing on to the root logger."""

SUFFIX = ".log"
"""Suffix of the names of log files."""

_OF_A_JOB = re.compile(r"(\d+(?:_\d+)?)_")
"""Beginning of the names of the log files of processes in a Slurm job: its number, that of an array with its task."""

LARGEST_BYTES = 16 << 20
"""Bytes of a log file, after which a process begins a new one; it keeps the one before that as `<name>.1`."""


@dataclass
class _State:
    """Facts about this process that its handlers need."""

    owned: bool = False
    stage: str = "-"
    shown: list[tuple[logging.Logger | logging.Handler, int]] = field(default_factory=list)


_state = _State()


def is_worth_telling(record: logging.LogRecord) -> bool:
    """Tell whether a record belongs into a log: everything of ntksweep's packages, warnings of all others."""
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] in PACKAGES


class LiteralFormatter(logging.Formatter):
    """Writes records with their control characters escaped; other libraries color what they say."""

    default_msec_format = "%s.%03d"

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record."""
        return printable(super().format(record))


class ProcessLog(RotatingFileHandler):
    """Writes records to a file that no other process writes to, not even a fork of this one.

    The file is made with the first record. One that cannot be written is given up without a word: a run ends by its
    artifacts and tables, never by its log.

    Args:
        folder: the folder of logs; the folder above it must exist.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(_new_name(folder), maxBytes=LARGEST_BYTES, backupCount=1, encoding="utf-8", delay=True)
        self._folder = folder
        self._process = os.getpid()
        self._given_up = False
        host = host_name().replace("%", "%%")
        where = f"{host}:%(process)d %(stage)s"
        self.setFormatter(LiteralFormatter(f"%(asctime)s %(levelname)s {where} %(name)s: %(message)s"))
        self.addFilter(is_worth_telling)

    def emit(self, record: logging.LogRecord) -> None:
        """Append a record, once: a logger and the root logger may both pass it on."""
        if self._given_up or vars(record).get("log") is self:
            return
        record.log = self
        if os.getpid() != self._process:
            self._process = os.getpid()
            self.close()
            self.baseFilename = str(_new_name(self._folder))
        record.stage = _state.stage
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        """Give the file up if it cannot be written; other errors are mistakes of who logs."""
        if isinstance(sys.exc_info()[1], OSError):
            self._given_up = True
            self.close()
        else:
            super().handleError(record)

    def close(self) -> None:
        """Close the file; what a full disk did not take is lost."""
        with suppress(OSError):
            super().close()

    def _open(self) -> TextIOWrapper:
        # Without the folders above: a results folder that was removed must not come back.
        self._folder.mkdir(exist_ok=True)
        return Path(self.baseFilename).open("x", encoding="utf-8", errors="backslashreplace")


def _new_name(folder: Path) -> Path:
    job = slurm_job()
    of_job = f"{job}_" if job else ""
    return folder.absolute() / f"{of_job}{host_name()}-{os.getpid()}-{time.time_ns():x}{SUFFIX}"


def job_of(name: str) -> str | None:
    """Return the Slurm job of the process that a log file is of, by the file's name; None if it ran in none."""
    found = _OF_A_JOB.match(name)
    return found[1] if found else None


@contextmanager
def own_process() -> Iterator[None]:
    """Log everything that ntksweep's packages say, and in log files also what other libraries warn of."""
    before = [(each, each.level) for each in map(logging.getLogger, PACKAGES)]
    owned = _state.owned
    for logger, _ in before:
        logger.setLevel(logging.DEBUG)
    _state.owned = True
    try:
        yield
    finally:
        _state.owned = owned
        for logger, level in before:
            logger.setLevel(level)


@contextmanager
def process_log(folder: Path) -> Iterator[None]:
    """Write what this process logs to a new file in a folder of logs.

    Args:
        folder: the folder, such as `logs` in a results folder.
    """
    handler = ProcessLog(folder)
    loggers = [logging.getLogger(), *map(logging.getLogger, APART)]
    show = warnings.showwarning
    if _state.owned:
        logging.captureWarnings(True)
    captures = warnings.showwarning is not show  # else they were captured before
    for logger in loggers:
        logger.addHandler(handler)
    _take_warnings()
    try:
        yield
    finally:
        while _state.shown:
            each, level = _state.shown.pop()
            each.setLevel(level)
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()
        if captures:
            logging.captureWarnings(False)


@contextmanager
def at_stage(stage: str) -> Iterator[None]:
    """Name a stage in every line that this process logs meanwhile."""
    before, _state.stage = _state.stage, stage
    _take_warnings()
    try:
        yield
    finally:
        _state.stage = before


def _take_warnings() -> None:
    """Let warnings of libraries that were loaded by now into the log, without showing more of them on the terminal."""
    if not _state.owned:
        return
    for logger in map(logging.getLogger, APART):
        shown = logger.getEffectiveLevel()
        if logger.propagate or shown <= logging.WARNING:  # it is not loaded yet, or says everything
            continue
        terminals = [each for each in logger.handlers if not isinstance(each, ProcessLog)]
        _state.shown.append((logger, logger.level))
        for each in terminals:
            _state.shown.append((each, each.level))
            each.setLevel(max(each.level, shown))
        logger.setLevel(logging.WARNING)
