"""The Ray that a run starts is closed to whoever does not hold its token."""

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from orchestrator.engine.executors.local_ray import LocalRay
from orchestrator.errors import RayFailedError
from slurm.ray import needs

pytestmark = pytest.mark.ray

INTRUDE = """
import ray, sys
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
print(ray.get(ray.remote(lambda: "code ran").options(num_cpus=0).remote(), timeout=20))
"""


def intrude(address: str, environments: list[dict[str, str]]) -> list[str]:
    """Return what processes print that try to run code on a Ray at the same time, each with an environment."""
    command = [sys.executable, "-c", INTRUDE, address]
    intruders = [
        subprocess.Popen(command, env=each, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for each in environments
    ]
    return [intruder.communicate(timeout=120)[0] for intruder in intruders]


def test_nobody_runs_code_without_the_token(monkeypatch):
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    with LocalRay(workers=1):
        import ray

        address = ray.get_runtime_context().gcs_address
        strange = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        guessed = strange | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
        without, guessing, holder = intrude(address, [strange, guessed, dict(os.environ)])
        assert "code ran" not in without
        assert "code ran" not in guessing
        assert "code ran" in holder, "who holds the token is let in: the refusals mean it"

        token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
        assert stat.S_IMODE(token.parent.stat().st_mode) == 0o700


def test_a_deep_temporary_folder_is_no_hindrance_and_nothing_is_left_behind(tmp_path, monkeypatch):
    deep = tmp_path / ("deep" * 20)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    killed = Path(tempfile.mkdtemp(prefix="ntk-", dir="/tmp"))  # as a run leaves it that was killed: nobody locks it
    (killed / "lock").touch()
    with LocalRay(workers=1) as workers:
        import ray

        session = Path(ray._private.worker.global_worker.node.get_session_dir_path())
        assert session.is_dir()
        assert workers == 1
        assert not killed.exists()
        started = [" ".join(each.cmdline()) for each in psutil.Process().children(recursive=True)]
        assert [words for words in started if "gcs_server" in words]
        spare = [words for words in started if "monitor.py" in words or "dashboard.py" in words]
        assert not spare, "nobody asks for an autoscaler, for logs or for a dashboard"
    assert not session.parent.exists()
    assert "RAY_AUTH_TOKEN_PATH" not in os.environ, "a process started later would look for a token that is gone"


def test_ray_starts_where_shared_memory_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(needs, "SHARED_MEMORY", tmp_path / "missing")
    with LocalRay(workers=1):
        started = [" ".join(each.cmdline()) for each in psutil.Process().children()]
    (words,) = (words for words in started if "raylet/raylet" in words)
    assert "--plasma_directory=/tmp/ntk-" in words


def test_what_ray_needs_and_does_not_find_here_is_told_with_a_way_around_it(monkeypatch):
    monkeypatch.setattr(needs, "NEEDED_BYTES", 1 << 60)
    with pytest.raises(RayFailedError, match=r"Ray does not start: .* is full .*, or run without Ray with") as raised:
        LocalRay(workers=1).__enter__()
    assert raised.value.exit_code == 5


WITHOUT_LOOPBACK = """
import ctypes, os
from orchestrator.engine.executors.local_ray import LocalRay
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET | (CLONE_NEWUSER if os.getuid() else 0)):
    raise SystemExit(77)
with LocalRay(workers=1):
    pass
"""


def test_a_machine_that_cannot_reach_itself_is_refused_before_ray_waits_for_minutes():
    command = [sys.executable, "-c", WITHOUT_LOOPBACK]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if said.returncode == 77:
        pytest.skip("no network namespace can be made here")
    assert "RayFailedError: Ray does not start: this machine cannot connect to itself at 127.0.0.1 (" in said.stderr
    assert "bring its loopback interface up (`ip link set lo up`), or run without Ray" in said.stderr


THROWN = """Failed to start GCS.  Last 6 lines of error files:
[2026-01-01 00:00:00,000 E 7 8] (gcs_server) logging.cc:118: Unhandled exception: N5boost10wrapexceptE. what(): {} \
/somewhere/ray/core/src/ray/gcs/gcs_server(+0x14c3daa) [0x559149765daa] ray::operator<<()
[2026-01-01 00:00:00,000 E 7 8] (gcs_server) logging.cc:125: Stack trace:

.Please check /tmp/somewhere for details. Last connection error: None"""


@pytest.mark.parametrize(
    ("thrown", "said"),
    [
        ("thread: Resource temporarily unavailable [system:11]", "no further process or thread can be started: .*-u`"),
        ("pipe: No such device", r"Failed to start GCS \(pipe: No such device\); see whether the machine has memory"),
    ],
)
def test_what_ended_a_program_of_ray_is_told(thrown: str, said: str, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError(THROWN.format(thrown))

    monkeypatch.setattr(LocalRay, "_initialize", fail)
    with pytest.raises(RayFailedError, match=f"^Ray does not start: {said}.*inline`$"), LocalRay(workers=1):
        pass


def test_a_ray_that_does_not_come_up_is_one_message_and_nothing_of_it_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("ray._private.services.GCS_SERVER_EXECUTABLE", "/bin/false")
    monkeypatch.setenv("RAY_gcs_server_port_wait_time_s", "1")
    before = psutil.Process().children(recursive=True)
    with pytest.raises(RayFailedError, match=r"Ray does not start: .*the same command again"), LocalRay(workers=1):
        pass
    assert [each for each in psutil.Process().children(recursive=True) if each not in before] == []
