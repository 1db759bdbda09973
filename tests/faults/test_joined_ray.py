"""The driver of an allocation whose Ray does not answer: it is told to stop while it connects, or is never let in."""

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from orchestrator.errors import ExitCode
from slurm.ray.node import BEGIN, MARK
from slurm.submit.allocation import MOST_STARTS, NODE_LOGS, UNFINISHED
from tests.cluster.ray_jobs import short_folder
from tests.faults.driving import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.xdist_group("faults")]

DRIVER = """
import sys
from pathlib import Path
from orchestrator.cluster.driver import main
from orchestrator.engine.executors import joined_ray
from orchestrator.engine.executors.ray_thread import leave
joined_ray.CONNECT_SECONDS = float(sys.argv[2])
leave(main([sys.argv[1]]))
"""


@dataclass(frozen=True)
class Head:
    """The first node of an allocation: Ray's server, its port, all processes there, and a driver's environment."""

    server: psutil.Process
    port: int
    processes: list[str]
    environment: dict[str, str]

    def driver(self, results: Path, seconds: float) -> "subprocess.Popen[str]":
        """Start a driver that gives up after some seconds."""
        return subprocess.Popen(
            [sys.executable, "-c", DRIVER, results, str(seconds)],
            env=os.environ | self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Have the server accept connections and answer nothing."""
        self.server.suspend()
        try:
            yield
        finally:
            self.server.resume()

    def is_asked_by(self, driver: "subprocess.Popen[str]") -> bool:
        """Return whether a driver has connected."""
        assert driver.poll() is None, driver.communicate()
        peers = (each.raddr for each in psutil.Process(driver.pid).net_connections("tcp"))
        return any(peer and peer.port == self.port for peer in peers)


@pytest.fixture
def head() -> Iterator[Head]:
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    over = threading.Event()
    with short_folder() as scratch:
        for start in range(MOST_STARTS):  # Ray gives up on a busy machine, and an allocation starts it again
            log = scratch / f"ray-n1-{start}.log"
            node, looking_after = started(scratch, log, token, over)
            wait_until(lambda: node.poll() is not None or f"{MARK}ready" in log.read_text(), pause=0.1)  # noqa: B023
            if node.poll() is None:
                break
        try:
            assert node.poll() is None, log.read_text()
            children = psutil.Process(node.pid).children(recursive=True)
            server = next(each for each in children if each.name() == "gcs_server")
            port = int(re.findall(rf"{MARK}.*port=(\d+)", log.read_text())[0])
            address = next(word for word in server.cmdline() if word.startswith("--node-ip-address=")).partition("=")[2]
            environment = token | {"RAY_ADDRESS": f"{address}:{port}", NODE_LOGS: str(scratch)}
            yield Head(server, port, [" ".join(each.cmdline()) for each in children], environment)
        finally:
            over.set()
            looking_after.join()
            node.wait(60)


def started(
    scratch: Path, log: Path, token: dict[str, str], over: threading.Event
) -> "tuple[subprocess.Popen[bytes], threading.Thread]":
    """Start Ray as an allocation does on its first node, which is looked after until `over`."""
    words = ["--address=127.0.0.1", "--job=1", "--rank=0", "--workers=1", "--object-store=80000000"]
    with log.open("wb") as output:
        node = subprocess.Popen(
            [sys.executable, "-m", "slurm.ray.node", *words, f"--scratch={scratch}"],
            stdin=subprocess.PIPE, stdout=output, stderr=output, env=os.environ | token,
        )  # fmt: skip
    looking_after = threading.Thread(target=look_after, args=(node, over))
    looking_after.start()
    return node, looking_after


def look_after(node: "subprocess.Popen[bytes]", over: threading.Event) -> None:
    """Let a node begin, and tell it again and again that it is looked after, as its allocation does."""
    assert node.stdin is not None
    words = BEGIN + b"\n"
    with suppress(BrokenPipeError):
        while not over.wait(0.5):
            node.stdin.write(words)
            node.stdin.flush()
            words = b"\n"
    with suppress(BrokenPipeError):
        node.stdin.close()


@pytest.fixture
def results(undisturbed: Path, tmp_path: Path) -> Path:
    """A results folder that an allocation works on."""
    return Path(shutil.copytree(undisturbed, tmp_path / "results"))


def test_ray_starts_nothing_that_nobody_uses(head: Head) -> None:
    assert [each for each in head.processes if "raylet/raylet" in each]
    for program in ("dashboard/dashboard.py", "ray.util.client.server", "monitor.py"):
        assert not [each for each in head.processes if program in each]


def test_a_driver_that_is_told_to_stop_while_it_connects_leaves_at_once(head: Head, results: Path) -> None:
    with head.silent():
        driver = head.driver(results, 600.0)
        wait_until(lambda: head.is_asked_by(driver), pause=0.05)
        driver.send_signal(signal.SIGTERM)
        told = time.monotonic()
        said, _ = driver.communicate(timeout=120)
        assert time.monotonic() - told < 20, "Ray itself waits for 30 to 60 seconds"
    assert driver.returncode == UNFINISHED, said
    assert said.count("stopped before a stage was begun") == 1
    assert "Traceback" not in said
    assert "terminate" not in said
    # The next driver of this allocation is let in, and finds nothing to do.
    driver = head.driver(results, 600.0)
    said, _ = driver.communicate(timeout=240)
    assert driver.returncode == ExitCode.OK, said


def test_a_driver_that_is_never_let_in_is_one_message(head: Head, results: Path) -> None:
    with head.silent():
        driver = head.driver(results, 6.0)
        said, _ = driver.communicate(timeout=240)
    assert driver.returncode == ExitCode.NO_RAY, said
    (error,) = re.findall("^error: (.*)", said, re.MULTILINE)
    assert "could not connect to the Ray of this allocation within 6 s" in error
    assert str(head.environment[NODE_LOGS]) in error
    assert "`ntksweep resume`" in error
    assert "Traceback" not in said
