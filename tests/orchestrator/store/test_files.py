"""Files that appear whole or not at all, and errors that say what to do about a disk."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import ExitCode, StorageError
from orchestrator.store import files
from orchestrator.store.files import explained, link_new, publish_new, remove_leftovers, replace, temporary_beside
from tests.orchestrator.store.processes import at_once, in_child


def test_the_first_writer_wins_and_later_ones_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert publish_new(path, b"first")
    assert not publish_new(path, b"second")
    assert path.read_bytes() == b"first"


def publish_twenty(number: int, meet: Callable[[], None], folder: Path) -> list[bool]:
    won = []
    for attempt in range(20):
        meet()
        won.append(publish_new(folder / str(attempt), str(number).encode() * 10_000))
    return won


def test_of_many_processes_that_publish_at_once_one_wins(tmp_path: Path) -> None:
    for attempt, won in enumerate(zip(*at_once(8, publish_twenty, tmp_path), strict=True)):
        assert sorted(won) == [False] * 7 + [True]
        assert (tmp_path / str(attempt)).read_bytes() == str(won.index(True)).encode() * 10_000
    assert len(list(tmp_path.iterdir())) == 20, "no temporary file stays behind"


def write_or_read(number: int, meet: Callable[[], None], path: Path) -> set[bytes]:
    meet()
    if number < 4:
        for _ in range(50):
            replace(path, b"abcd"[number : number + 1] * 50_000)
        return set()
    return {path.read_bytes() for _ in range(200)}


def test_a_reader_sees_the_old_content_or_the_new_never_a_mixture(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = {bytes([letter]) * 50_000 for letter in b"abcd"}
    replace(path, b"a" * 50_000)
    seen = set().union(*at_once(6, write_or_read, path))
    assert seen and seen <= contents
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_linking_gives_a_second_name_unless_it_is_taken(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("1")
    second.write_text("2")
    assert link_new(first, tmp_path / "name")
    assert not link_new(second, tmp_path / "name")
    assert (tmp_path / "name").read_text() == "1"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "raise the quota"),
        (errno.EFBIG, "the disk is full"),
        (errno.EROFS, "make the folder writable"),
        (errno.EACCES, "make the folder writable"),
        (errno.EPERM, "make the folder writable"),
    ],
)
def test_a_disk_that_takes_nothing_is_one_error_that_says_what_to_do(number: int, words: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=words) as raised, explained(tmp_path):
        raise OSError(number, os.strerror(number))
    assert str(tmp_path) in str(raised.value)
    assert "run the same command again" in str(raised.value)
    assert raised.value.exit_code == ExitCode.STORAGE == 4


@pytest.mark.parametrize("write", [publish_new, replace])
def test_a_folder_that_was_removed_in_the_middle_is_told(
    write: Callable[[Path, bytes], object], tmp_path: Path
) -> None:
    with pytest.raises(StorageError, match=r"gone/x cannot be written: it or its folder was removed meanwhile"):
        write(tmp_path / "gone" / "x", b"content")


def test_other_errors_of_the_system_are_left_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), explained(tmp_path):
        (tmp_path / "nothing").read_bytes()


@pytest.mark.parametrize("write", [publish_new, replace])
def test_a_write_that_fails_leaves_nothing_behind(write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError):
        write(tmp_path / "file", b"content")
    assert list(tmp_path.iterdir()) == []


def leave(folder: Path, node: str | None = None, job: str = "", restarts: str = "") -> Path:
    if node is not None:
        files.host_name.cache_clear()
        os.environ["SLURMD_NODENAME"] = node
    if job:
        os.environ["SLURM_JOB_ID"] = job
    if restarts:
        os.environ["SLURM_RESTART_COUNT"] = restarts
    left = temporary_beside(folder / "deep" / "x.safetensors")
    left.parent.mkdir(exist_ok=True)
    left.touch()
    return left


def test_leftovers_of_killed_processes_go_those_of_living_ones_stay(tmp_path: Path) -> None:
    dead, living = in_child(leave, tmp_path), leave(tmp_path)
    kept = tmp_path / ".hidden.tmpl"
    kept.touch()
    assert dead.exists()
    remove_leftovers(tmp_path)
    assert not dead.exists()
    assert living.exists()
    assert kept.exists()


def test_leftovers_of_other_machines_stay(tmp_path: Path) -> None:
    left = in_child(leave, tmp_path, "elsewhere")
    remove_leftovers(tmp_path)
    assert left.exists()


def test_leftovers_of_this_job_go_from_nodes_where_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = in_child(leave, tmp_path, "n2", "12")
    others = [in_child(leave, tmp_path, *whose) for whose in (("n2-0", "12"), ("n2", "12", "1"), ("n2", "1"), ("n2",))]
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    remove_leftovers(tmp_path, ended_nodes=["n1", "n2"])
    assert not left.exists()
    assert all(path.exists() for path in others)
