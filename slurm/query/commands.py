"""Slurm's client programs: run with a plain environment, and again after failures that pass by themselves."""

import logging
import os
import random
import re
import shlex
import subprocess
import time

from slurm.errors import CommandError, NoSlurmError
from slurm.pauses import Pauses

logger = logging.getLogger(__name__)

_PASSES = re.compile(
    "unable to contact slurm controller|socket timed out|timed out after|connection (refused|reset|timed out)"
    "|zero bytes were transmitted|transport endpoint is not connected|resource temporarily unavailable|standby mode"
    "|temporarily unable|talking to the database|failed to open persistent connection|rate.?limit|rpc.?limit"
    "|unexpected message received",
    re.IGNORECASE,
)
"""Messages of clients while the controller or the database restarts, hands over to its backup, or is overloaded."""

_NO_CLUSTER = re.compile("could not establish a configuration source|cannot stat file|unable to process configuration")

_FILTERS = ("SQUEUE_", "SACCT_", "SINFO_")
"""Prefixes of variables in which people keep formats and filters of their own."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 8.0


def run_command(*argv: str, timeout: float = 60, patience: float = 30, input: str | None = None) -> str:  # noqa: A002
    """Run a program of Slurm that may safely run twice; return what it wrote to its output.

    Args:
        argv: the program and its arguments.
        timeout: seconds after which one attempt is given up.
        patience: seconds within which it is tried again, with growing pauses, while the controller or the database
            does not answer; 0 tries once.
        input: text for its standard input.

    Raises:
        NoSlurmError: the program is not installed here, or knows no cluster.
        CommandError: it failed; `passes` says whether a later attempt may succeed.
    """
    return _run(argv, timeout, patience, input).stdout


def run_command_for_messages(*argv: str, input: str | None = None) -> str:  # noqa: A002
    """Run a program as `run_command` does; return what it wrote to its error output, where some put their answer."""
    return _run(argv, 60, 30, input).stderr


def _run(argv: tuple[str, ...], timeout: float, patience: float, text: str | None) -> subprocess.CompletedProcess[str]:
    end, pauses = time.monotonic() + patience, Pauses(_FIRST_PAUSE, _LONGEST_PAUSE)
    while True:
        try:
            return _attempt(argv, timeout, text)
        except CommandError as error:
            # Many pilots and users meet the same outage: they must not all retry at the same moment.
            pause = pauses.take() * random.uniform(0.5, 1.5)
            if not error.passes or time.monotonic() + pause > end:
                raise
            logger.info("%s; again in %.1f s", error, pause)
        time.sleep(pause)


def _attempt(argv: tuple[str, ...], timeout: float, text: str | None) -> subprocess.CompletedProcess[str]:
    command = shlex.join(argv)[:200]
    logger.debug("running %s", command)
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, errors="replace", timeout=timeout, input=text, check=False,
            env=_environment(), stdin=subprocess.DEVNULL if text is None else None,
        )  # fmt: skip
    except FileNotFoundError:
        raise NoSlurmError(f"`{argv[0]}` was not found") from None
    except OSError as error:
        raise CommandError(command, str(error), "see whether Slurm is installed as it should be") from None
    except subprocess.TimeoutExpired as expired:
        # Despite text=True this is bytes.
        said = expired.stderr.decode(errors="replace") if isinstance(expired.stderr, bytes) else expired.stderr or ""
        raise _failure(argv, command, f"timed out after {timeout:.0f} s {said}") from None
    if done.returncode != 0:
        raise _failure(argv, command, done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}")
    return done


def _failure(argv: tuple[str, ...], command: str, said: str) -> CommandError | NoSlurmError:
    said = "; ".join(line.strip() for line in said.splitlines() if line.strip())
    if _NO_CLUSTER.search(said.lower()):
        return NoSlurmError(f"`{argv[0]}` is installed but finds no cluster ({said.partition(';')[0]})")
    if _PASSES.search(said):
        advice = "Slurm does not answer at the moment; try again in a minute, `scontrol ping` says whether it is up"
        return CommandError(command, said, advice, passes=True)
    return CommandError(command, said, "run it by hand to see more")


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FILTERS)}
    # Task lists of arrays in full, times as ISO 8601 writes them, messages in English.
    return kept | {"SLURM_BITSTR_LEN": "0", "SLURM_TIME_FORMAT": "standard", "LC_ALL": "C"}
