"""Ray's server stops answering while Ray starts: a signal is answered at once, and a start that stands still ends."""

import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from orchestrator.cli.stopping import STOPPING
from orchestrator.engine.executors import local_ray
from orchestrator.engine.executors.ray_thread import NeverReturnedError, RayThread, is_stuck
from orchestrator.errors import ExitCode
from tests.faults.conftest import NewSweep
from tests.faults.driving import Command, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.xdist_group("faults")]

STOPPED_WHEN = ("gcs_server", "raylet")
"""The program at whose appearance the server is stopped: nothing is connected to it yet, or Ray's programs are."""


def with_little_patience() -> None:
    local_ray.START_SECONDS = 6.0


@contextmanager
def stopped_servers(run: Command, when: str) -> Iterator[list[psutil.Process]]:
    """Stop each server of a run's Ray once a program of that Ray appears; yield Ray's processes, as they are found."""
    found: list[psutil.Process] = []
    over = threading.Event()

    def stop() -> None:
        while not over.wait(0.002):
            if all(each in found for each in programs(run, when)):
                continue
            for server in programs(run, "gcs_server"):
                with suppress(psutil.Error):
                    server.suspend()
            found.extend(each for name in STOPPED_WHEN for each in programs(run, name) if each not in found)

    stopping = threading.Thread(target=stop)
    stopping.start()
    try:
        wait_until(lambda: bool(found))
        yield found
    finally:
        over.set()
        stopping.join()


def programs(run: Command, name: str) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return [each for each in psutil.Process(run.pid).children() if each.name() == name]
    return []


def alive(started: list[psutil.Process]) -> list[psutil.Process]:
    """Return the processes that have not ended; one that has may wait for its parent's look at it."""
    found = []
    for each in started:
        with suppress(psutil.Error):
            if each.status() != psutil.STATUS_ZOMBIE:
                found.append(each)
    return found


def folder_of(server: psutil.Process) -> Path:
    """Return the temporary folder of a run's Ray."""
    wait_until(lambda: bool(server.cmdline()))  # it may just begin
    log = next(word for word in server.cmdline() if word.startswith("--log_dir=")).partition("=")[2]
    return next(parent for parent in Path(log).parents if parent.name.startswith("ntk-"))


@pytest.mark.parametrize("when", STOPPED_WHEN)
@pytest.mark.parametrize(
    ("tell", "status"), [(Command.interrupt, 130), (Command.terminate, 143), (Command.terminate_all, 143)]
)
def test_a_run_that_is_told_to_stop_while_ray_starts_says_so_at_once_and_leaves_nothing(
    when: str, tell: Callable[[Command], None], status: int, new_sweep: NewSweep
) -> None:
    spec = new_sweep()
    run = Command("run", spec, "--executor", "ray", "--workers", "2", folder=spec.parent)
    with stopped_servers(run, when) as started:
        folder = folder_of(started[0])
        assert folder.is_dir()
        tell(run)
        told = time.monotonic()
        wait_until(lambda: STOPPING in run.output())
        assert time.monotonic() - told < 2
        theirs = [child for each in alive(started) for child in each.children(recursive=True)]
        answer = run.wait()
    assert time.monotonic() - told < 20, "Ray itself waits for 30 to 60 seconds"
    assert answer.status == status
    assert answer.output.count("stopping:") == 1
    assert answer.output.rstrip().endswith("finished stages are kept. Run the same command again to go on.")
    assert "Traceback" not in answer.output
    assert "terminate" not in answer.output
    assert not alive([*started, *theirs])
    assert not folder.exists()


@pytest.mark.parametrize("when", STOPPED_WHEN)
def test_a_server_that_never_answers_is_one_message(when: str, new_sweep: NewSweep) -> None:
    spec = new_sweep()
    run = Command("run", spec, "--executor", "ray", "--workers", "2", folder=spec.parent, prepare=with_little_patience)
    with stopped_servers(run, when) as started:
        folder = folder_of(started[0])
        answer = run.wait()
    assert answer.status == ExitCode.NO_RAY
    assert re.findall("^error: .{20}", answer.output, re.MULTILINE) == ["error: Ray does not start: "]
    assert "run the same command again, or run without Ray with `--executor inline`" in answer.output
    assert "Traceback" not in answer.output
    assert not alive(started)
    assert not folder.exists()


def test_a_call_that_never_returns_is_given_up_and_known() -> None:
    thread, hold = RayThread(), threading.Event()
    with pytest.raises(NeverReturnedError):
        thread.call(hold.wait, 0.1)
    assert is_stuck()
    hold.set()
    thread.wait(1.0)
    assert not is_stuck()
    with pytest.raises(ZeroDivisionError):
        thread.call(lambda: 1 // 0, 1.0)
    thread.end()
    thread.join(1.0)
    assert not thread.is_alive()


def test_a_signal_is_answered_while_a_call_lasts() -> None:
    thread, hold = RayThread(), threading.Event()
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            thread.call(hold.wait, 60.0)
        assert time.monotonic() - began < 5
    finally:
        signal.signal(signal.SIGALRM, before)
        hold.set()
        thread.end()
