"""What a Ray leaves running: processes that its own have started are ended with it, also once these have ended."""

import shutil
import subprocess
from pathlib import Path

import psutil
import pytest

from orchestrator.engine.executors.ray_watch import RayProcesses
from tests.faults.driving import wait_until


@pytest.fixture
def raylet(tmp_path: Path) -> subprocess.Popen[bytes]:
    """A process that has the name of a program of Ray, with a process of its own."""
    program = Path(shutil.copy2(shutil.which("bash") or "", tmp_path / "raylet"))
    process = subprocess.Popen([program, "-c", "sleep 600 & wait"])
    wait_until(lambda: bool(psutil.Process(process.pid).children()))
    return process


@pytest.mark.parametrize("ended_before", [False, True])
def test_what_a_program_of_ray_started_is_ended_with_it(raylet: subprocess.Popen[bytes], ended_before: bool) -> None:
    (theirs,) = psutil.Process(raylet.pid).children()
    processes = RayProcesses()
    processes.find()
    processes.find_theirs()
    assert processes.ended() is None
    if ended_before:
        raylet.kill()
        raylet.wait()
        assert processes.ended() == "raylet"
        assert theirs.is_running()
    processes.end()
    raylet.wait(10)
    assert not theirs.is_running() or theirs.status() == psutil.STATUS_ZOMBIE
    assert processes.ended() is None
