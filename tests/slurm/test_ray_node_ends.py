"""Whichever of a node's processes is killed, the others end, and with them everything that Ray started."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from tests.root import ROOT

T = TypeVar("T")

RAY = '''
import subprocess, sys, time
from pathlib import Path

folder = next(Path(word.partition("=")[2]) for word in sys.argv if word.startswith("--temp-dir="))
(folder.parent / "loaded").touch()

def main():
    """Start what is deaf to SIGTERM, as a worker at work can be; then be up, in the middle of a line."""
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(1000)"
    start = [sys.executable, "-c", deaf]
    child = f"import subprocess; subprocess.Popen({start!r}, start_new_session=True, stdout=-1).stdout.readline()"
    subprocess.run([sys.executable, "-c", child], check=True)
    print("half a line", end="", flush=True)
    folder.mkdir()
    (folder / "ray_current_cluster").touch()
    time.sleep(1000)
'''


class Node:
    """`slurm.ray.node` with something in place of Ray that behaves as badly as Ray can."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.scratch = scratch
        package = folder / "ray" / "scripts"
        package.mkdir(parents=True)
        (folder / "ray" / "_private").mkdir()
        for file, text in {
            "../__init__.py": "", "__init__.py": "", "scripts.py": RAY,
            "../_private/__init__.py": "", "../_private/node.py": "class Node: pass",
        }.items():  # fmt: skip
            (package / file).write_text(text)
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "slurm.ray.node", "--address=127.0.0.1", "--job=77", "--rank=0"),
                *("--workers=1", "--object-store=1", f"--scratch={scratch}"),
            ],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.outer = psutil.Process(self.process.pid)

    def say(self, words: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(words)
        self.process.stdin.flush()

    def heard(self, words: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line == f"ntksweep ray node: {words}\n":
                return
        raise AssertionError(f"it never said {words!r}")

    def ready(self) -> list[psutil.Process]:
        """Wait until it is ready; return its processes: outer watcher, inner watcher, Ray, and the deaf one."""
        self.say("begin\n")
        self.heard("ready")
        (inner,) = self.outer.children()
        below = inner.children()
        (ray,) = [each for each in below if "slurm.ray.start" in each.cmdline()]
        (deaf,) = [each for each in below if each != ray]
        return [self.outer, inner, ray, deaf]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with tempfile.TemporaryDirectory(prefix="nt-", dir="/tmp") as scratch:
        node = Node(tmp_path, Path(scratch))
        with node.process:
            yield node
            for process in [*node.outer.children(recursive=True), node.outer] if node.outer.is_running() else []:
                process.kill()


@pytest.mark.parametrize(
    "end",
    [
        lambda outer, inner, ray: outer.kill(),
        lambda outer, inner, ray: inner.kill(),
        lambda outer, inner, ray: ray.kill(),
        lambda outer, inner, ray: outer.terminate(),
        lambda outer, inner, ray: inner.terminate(),
    ],
    ids=["outer killed", "inner killed", "ray killed", "outer told", "inner told"],
)
def test_nothing_runs_and_no_folder_stays_when_a_process_is_ended(
    node: Node, end: Callable[[psutil.Process, psutil.Process, psutil.Process], None]
) -> None:
    processes = node.ready()
    end(*processes[:3])
    _gone(processes)
    assert list(node.scratch.iterdir()) == []


def test_it_ends_well_with_the_process_that_started_it(node: Node) -> None:
    processes = node.ready()
    assert node.process.stdin is not None
    node.process.stdin.close()
    node.heard("ended")
    assert node.process.wait(30) == 0
    _gone(processes)
    assert list(node.scratch.iterdir()) == []


def test_a_ray_that_ends_by_itself_is_a_failure(node: Node) -> None:
    processes = node.ready()
    processes[2].kill()
    node.heard("ended")
    assert node.process.wait(30) == 1


def test_it_does_not_begin_before_it_is_told_and_ends_then_too(node: Node) -> None:
    node.say("\n")
    (inner,) = _waited(node.outer.children)
    (ray,) = _waited(inner.children)
    _waited(lambda: list(node.scratch.glob("*/loaded")))
    time.sleep(0.5)  # in which it would begin
    assert not list(node.scratch.glob("*/ray"))
    node.process.send_signal(signal.SIGTERM)
    _gone([node.outer, inner, ray])
    assert list(node.scratch.iterdir()) == []


def _gone(processes: list[psutil.Process]) -> None:
    def ended(process: psutil.Process) -> bool:
        try:
            return process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    _waited(lambda: all(map(ended, processes)))


def _waited(condition: Callable[[], T]) -> T:
    end = time.monotonic() + 20  # less than the silence after which it would end anyhow
    while not (answer := condition()):
        assert time.monotonic() < end, "not within 20 s"
        time.sleep(0.02)
    return answer
