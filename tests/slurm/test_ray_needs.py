"""What Ray needs of a machine is looked at before it starts there, in a run and in an allocation."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from slurm.ray import needs
from slurm.ray.needs import RayNeedsError
from tests.root import ROOT


def test_a_folder_that_ray_cannot_use_is_passed_over_for_a_shorter_or_emptier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("deep" * 30)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    assert needs.usable_root() == Path("/tmp")


def test_where_every_folder_is_full_the_message_names_them_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "NEEDED_BYTES", 1 << 60)
    with pytest.raises(RayNeedsError) as raised:
        needs.usable_root()
    assert "/tmp is full (" in str(raised.value)
    assert "make room in one of them, or name another in TMPDIR of at most 26 bytes" in str(raised.value)


def test_too_few_threads_are_told_before_ray_aborts_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "_is_exempt", lambda: False)
    monkeypatch.setattr("resource.getrlimit", lambda _: (1_000, 1_000))
    monkeypatch.setattr(needs, "_threads_of_user", lambda: 848)
    needs.refuse_too_few_threads(2)
    with pytest.raises(RayNeedsError, match=r"with 3 workers it starts 178 threads or more, .* 1,000 .* 848 .*-u`"):
        needs.refuse_too_few_threads(3)


def test_the_threads_of_this_user_are_counted() -> None:
    before = needs._threads_of_user()
    over = threading.Event()
    started = [threading.Thread(target=over.wait) for _ in range(200)]
    for each in started:
        each.start()
    try:
        assert needs._threads_of_user() - before > 100, "others may have ended meanwhile"
    finally:
        over.set()


def test_a_node_without_room_is_told_before_ray_starts_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs.refuse_full(tmp_path)
    monkeypatch.setattr(needs, "NEEDED_BYTES", 1 << 60)
    with pytest.raises(RayNeedsError, match=r"is full .* make room there, or name another folder .* `local_scratch`"):
        needs.refuse_full(tmp_path)


def test_a_node_that_cannot_be_reached_at_its_address_is_told_before_ray_waits_for_minutes() -> None:
    command = [
        *(sys.executable, "-m", "slurm.ray.node", "--address=192.0.2.1", "--job=77", "--rank=0"),
        *("--workers=1", "--object-store=1", "--scratch=/tmp"),
    ]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 1
    assert said.stderr.startswith("Ray does not start: this machine cannot connect to itself at 192.0.2.1 (")
    assert "which connections its firewall lets through" in said.stderr
    assert "port=" not in said.stdout, "it holds no ports, and starts nothing"
