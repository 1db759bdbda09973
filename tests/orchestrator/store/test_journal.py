"""Journals: what happened, one line an event, whatever kills the process that writes."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.errors import StorageError
from orchestrator.store.journal import Journal, read_journals
from tests.orchestrator.store.processes import at_once


def events_of(folder: Path) -> list[str]:
    return [event["event"] for event in read_journals(folder)]


def test_events_come_back_with_their_facts_and_the_journal_they_stand_in(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write("started", stage="a", attempt=1)
    journal.write("finished", stage="a", message='line one\nline "two"')
    first, second = read_journals(tmp_path)
    assert (first["event"], first["stage"], first["attempt"]) == ("started", "a", 1)
    assert second["message"] == 'line one\nline "two"'
    assert first["journal"] == second["journal"] == journal.path.stem
    assert first["time"] <= second["time"]


def test_nothing_is_written_before_the_first_event(tmp_path: Path) -> None:
    Journal(tmp_path / "journal")
    assert not (tmp_path / "journal").exists()
    assert list(read_journals(tmp_path / "journal")) == []


def test_what_is_written_is_never_changed(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    before = b""
    for number in range(20):
        journal.write("started", stage=str(number))
        if number == 10:
            journal.close()
        content = journal.path.read_bytes()
        assert content.startswith(before)
        assert len(content.splitlines()) == number + 1
        before = content


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_last_line_cut_short_by_a_kill_is_left_out_and_no_other(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "host-1-a.jsonl"
    lines = [json.dumps({"time": i, "event": f"é{i}", "stage": "s"}, ensure_ascii=False).encode() for i in range(3)]
    whole = b"".join(line + b"\n" for line in lines)
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    complete = sum(cut >= sum(len(line) + 1 for line in lines[: i + 1]) - 1 for i in range(3))
    assert events_of(tmp_path) == [f"é{i}" for i in range(complete)]


def test_zeros_that_a_power_cut_leaves_are_left_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write("started")
    with journal.path.open("ab") as stream:
        stream.write(bytes(100))
    assert events_of(tmp_path) == ["started"]


def write_fifty(number: int, meet: Callable[[], None], folder: Path) -> str:
    journal = Journal(folder)
    meet()
    for event in range(50):
        journal.write("started", stage=f"{number}.{event}")
    return str(journal.path)


def test_the_journals_of_many_processes_read_as_one_oldest_first(tmp_path: Path) -> None:
    paths = at_once(4, write_fifty, tmp_path)
    assert len(set(paths)) == 4
    events = list(read_journals(tmp_path))
    assert {event["stage"] for event in events} == {f"{n}.{e}" for n in range(4) for e in range(50)}
    assert [event["time"] for event in events] == sorted(event["time"] for event in events)


def test_an_event_after_a_line_that_a_full_disk_cut_short_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    journal.write("started", stage="a")
    write, room = os.write, [10, 0]

    def filling(file: int, content: bytes) -> int:
        space = room.pop(0)
        if not space:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, content[:space])

    monkeypatch.setattr(os, "write", filling)
    with pytest.raises(StorageError, match="the disk is full"):
        journal.write("failed", stage="a")
    monkeypatch.undo()
    journal.write("finished", stage="a")
    assert events_of(tmp_path) == ["started", "finished"]


def test_an_event_that_the_system_takes_in_pieces_is_written_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, content: write(file, content[:7]))
    Journal(tmp_path).write("started", stage="a")
    monkeypatch.undo()
    assert events_of(tmp_path) == ["started"]
