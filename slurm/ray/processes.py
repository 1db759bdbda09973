"""Processes that end together: a process started here does not outlive its parent, even if that is killed."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

import psutil

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, so that all of them can be found and ended."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """Have this process sent SIGTERM when its parent ends; call it in the child, with the parent's number."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before this was asked for
        os.kill(os.getpid(), signal.SIGTERM)


def start_child(command: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start a command with a pipe to its standard input; it is sent SIGTERM when this process ends."""
    this = os.getpid()
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,
        preexec_fn=lambda: die_with_parent(this),  # noqa: PLW1509  # this process has one thread
    )


def kill_descendants() -> None:
    """Kill every descendant of this process, and wait until all are gone.

    Call it in a process that has adopted orphans; otherwise those are missed.
    """
    while remaining := _living_descendants():
        for process in remaining:  # again and again: they may have started others meanwhile
            with suppress(psutil.Error):
                process.kill()
        time.sleep(0.01)


def _living_descendants() -> list[psutil.Process]:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    return psutil.Process().children(recursive=True)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl failed")
