"""Claims: at any moment at most one living process computes a stage."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import StorageError
from orchestrator.store import claims
from orchestrator.store.claims import STALE_AFTER, ClaimBook
from tests.orchestrator.store.processes import at_once, in_child

LONG_AGO = STALE_AFTER + 5


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def take(folder: Path, stage: str = "s") -> bool:
    """Take a claim and die with it."""
    return ClaimBook(folder).take(stage) is not None


def elsewhere(folder: Path, stage: str = "s", **facts: Any) -> ClaimBook:
    """Return the claims of a process on another machine, which holds the stage."""
    book = ClaimBook(folder)
    book.process |= {"host": "elsewhere"} | facts
    assert book.take(stage) is not None
    return book


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_claim_is_taken_held_released_and_gone(tmp_path: Path) -> None:
    book = ClaimBook(tmp_path / "claims")
    claim = book.take("s")
    assert claim is not None
    assert ClaimBook(tmp_path / "claims").take("s") is None
    assert ClaimBook(tmp_path / "claims").take("t") is not None
    assert book.held()["s"]["process"] == os.getpid()
    book.release(claim)
    assert names(tmp_path / "claims") == ["t.1"]
    assert ClaimBook(tmp_path / "claims").take("s") is not None


def take_fifty(number: int, meet: Callable[[], None], folder: Path) -> list[bool]:
    book = ClaimBook(folder)
    won = []
    for stage in range(50):
        meet()
        won.append(book.take(f"s{stage}") is not None)
    meet()  # nobody dies before all have tried
    return won


def test_of_many_processes_one_wins_each_stage(tmp_path: Path) -> None:
    won = at_once(8, take_fifty, tmp_path)
    assert [sum(column) for column in zip(*won, strict=True)] == [1] * 50


def test_of_many_processes_that_find_a_dead_holder_one_takes_over(tmp_path: Path) -> None:
    for stage in range(50):
        assert in_child(take, tmp_path, f"s{stage}") if stage < 5 else True
    for stage in range(5, 50):  # the same dead holder, without a process each
        (tmp_path / f"s{stage}.1").write_bytes((tmp_path / "s0.1").read_bytes())
    won = at_once(8, take_fifty, tmp_path)
    assert [sum(column) for column in zip(*won, strict=True)] == [1] * 50


def count_up(_number: int, meet: Callable[[], None], folder: Path) -> int:
    """Add 1 to a file, 25 times, reading and writing it only while its claim is held."""
    book, counter = ClaimBook(folder / "claims"), folder / "counter"
    waited = 0
    meet()
    for _ in range(25):
        while (claim := book.take("counter")) is None:
            waited += 1
            time.sleep(0.001)
        counter.write_text(str(int(counter.read_text()) + 1))
        book.release(claim)
    return waited


def test_what_a_claim_guards_is_done_by_one_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "counter").write_text("0")
    waited = at_once(6, count_up, tmp_path)
    assert all(isinstance(times, int) for times in waited), waited
    assert (tmp_path / "counter").read_text() == "150"
    assert names(tmp_path / "claims") == []


@pytest.mark.parametrize("taken_again", [True, False])
def test_a_claim_given_back_by_a_holder_that_then_died_is_not_taken_for_an_abandoned_one(
    taken_again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert in_child(take, tmp_path)
    abandoned = ClaimBook._abandoned

    def given_back_before_this_look(book: ClaimBook, path: Path, holder: dict[str, Any]) -> bool:
        monkeypatch.setattr(ClaimBook, "_abandoned", abandoned)
        path.unlink()
        if taken_again:
            assert ClaimBook(tmp_path).take("s") is not None
        return abandoned(book, path, holder)

    monkeypatch.setattr(ClaimBook, "_abandoned", given_back_before_this_look)
    claim = ClaimBook(tmp_path).take("s")
    assert names(tmp_path) == ["s.1"]
    assert (claim is None) == taken_again, "of two processes, one holds the stage"


def test_a_dead_holder_on_this_machine_is_taken_over_at_once(tmp_path: Path) -> None:
    assert in_child(take, tmp_path)
    book = ClaimBook(tmp_path)
    assert book.held() == {}
    claim = book.take("s")
    assert claim is not None
    assert names(tmp_path) == ["s.1", "s.2"]
    assert ClaimBook(tmp_path).take("s") is None, "the next generation is held as the first was"
    assert book.held().keys() == {"s"}
    book.release(claim)
    assert names(tmp_path) == []


def test_every_dead_generation_is_passed_over_and_cleared_away(tmp_path: Path) -> None:
    for generation in (1, 2, 3):
        assert in_child(take, tmp_path)
        assert names(tmp_path) == [f"s.{n}" for n in range(1, generation + 1)]
    book = ClaimBook(tmp_path)
    claim = book.take("s")
    assert claim is not None
    assert claim.path.name == "s.4"
    book.release(claim)
    assert names(tmp_path) == []


def test_a_living_holder_on_this_machine_is_respected_however_old_its_claim(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from orchestrator.store.claims import ClaimBook\n"
        "ClaimBook(Path(sys.argv[1])).take('s'); print('taken', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    with holder:
        try:
            assert holder.stdout.readline() == "taken\n"
            age(tmp_path / "s.1", LONG_AGO)
            assert ClaimBook(tmp_path).take("s") is None
            holder.send_signal(signal.SIGSTOP)  # suspended is not dead
            assert ClaimBook(tmp_path).take("s") is None
        finally:
            holder.kill()
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # dead, though nobody has fetched its status
        assert ClaimBook(tmp_path).take("s") is not None


def test_a_process_that_got_a_dead_holders_number_is_not_taken_for_it(tmp_path: Path) -> None:
    dead = ClaimBook(tmp_path)
    dead.process |= {"process_started": dead.process["process_started"] - 1}
    assert dead.take("s") is not None
    assert ClaimBook(tmp_path).take("s") is not None


def test_a_holder_from_before_the_machine_was_started_anew_is_dead(tmp_path: Path) -> None:
    before = ClaimBook(tmp_path)
    before.process |= {"boot": "another"}
    assert before.take("s") is not None
    assert ClaimBook(tmp_path).take("s") is not None


def test_setting_the_clock_does_not_make_a_living_holder_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ClaimBook(tmp_path).take("s") is not None
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 86_400)
    assert ClaimBook(tmp_path).take("s") is None


@pytest.mark.parametrize("facts", [{"host": "elsewhere"}, {"host": None, "process_namespace": "another container"}])
def test_a_holder_on_another_machine_counts_as_gone_by_time_alone(facts: dict[str, Any], tmp_path: Path) -> None:
    mine = ClaimBook(tmp_path)
    elsewhere(tmp_path, **(facts | {"host": facts["host"] or mine.process["host"]}), process=2**22 - 1)
    age(tmp_path / "s.1", STALE_AFTER - 30)
    assert mine.take("s") is None
    assert mine.held().keys() == {"s"}
    age(tmp_path / "s.1", LONG_AGO)
    assert mine.held() == {}
    assert mine.take("s") is not None
    assert names(tmp_path) == ["s.1", "s.2"]


@pytest.mark.parametrize("ahead", [30.0, 86_400.0, 3e8], ids=["seconds", "a day", "years"])
def test_a_claim_from_the_future_is_taken_over_once_it_has_stood_still(
    ahead: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(tmp_path)
    age(tmp_path / "s.1", -ahead)
    book, here = ClaimBook(tmp_path), time.monotonic()
    assert book.take("s") is None
    assert ("s" in book.held()) == (ahead < STALE_AFTER), "a look cannot wait"
    monkeypatch.setattr(claims.time, "monotonic", lambda: here + LONG_AGO / 2)
    age(tmp_path / "s.1", 1 - ahead)  # its holder lives, with a clock of its own
    assert book.take("s") is None
    monkeypatch.setattr(claims.time, "monotonic", lambda: here + LONG_AGO + 1)
    assert book.take("s") is None
    monkeypatch.setattr(claims.time, "monotonic", lambda: here + 2 * LONG_AGO)
    assert book.take("s") is not None
    assert names(tmp_path) == ["s.1", "s.2"]


def test_a_claim_that_is_held_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "RENEWED_EVERY", 0.02)
    book = elsewhere(tmp_path)
    age(tmp_path / "s.1", LONG_AGO)
    deadline = time.monotonic() + 60
    while ClaimBook(tmp_path).held() == {}:
        assert time.monotonic() < deadline, "nobody renewed the claim"
        time.sleep(0.01)
    assert ClaimBook(tmp_path).take("s") is None
    assert book.held().keys() == {"s"}


def test_age_is_measured_by_the_file_servers_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(tmp_path)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 86_400)
    assert ClaimBook(tmp_path).take("s") is None


def test_a_holder_that_was_taken_for_dead_does_not_clear_away_the_claims_of_others(tmp_path: Path) -> None:
    slow = elsewhere(tmp_path)
    held_by_slow = claims.Claim("s", tmp_path / "s.1", json.loads((tmp_path / "s.1").read_bytes()))
    age(tmp_path / "s.1", LONG_AGO)
    quick = ClaimBook(tmp_path)
    taken_over = quick.take("s")
    assert taken_over is not None
    quick.release(taken_over)
    again = quick.take("s")
    assert again is not None
    assert again.path == held_by_slow.path
    slow.release(held_by_slow)
    assert names(tmp_path) == ["s.1"], "this claim is the other process's"
    assert ClaimBook(tmp_path).take("s") is None


@pytest.mark.parametrize("content", [b"", b'{"host": "he'])
def test_a_claim_that_a_power_cut_emptied_is_passed_over_once_it_is_old(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "s.1").write_bytes(content)
    assert ClaimBook(tmp_path).take("s") is None
    age(tmp_path / "s.1", LONG_AGO)
    assert ClaimBook(tmp_path).take("s") is not None


def test_the_claim_names_host_process_slurm_job_and_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    before = time.time()
    book = ClaimBook(tmp_path)
    book.take("s")
    holder = book.held()["s"]
    assert holder["process"] == os.getpid()
    assert holder["slurm_job"] == "4711"
    assert before <= holder["taken"] <= time.time()
    assert holder["host"]


@pytest.mark.parametrize("call", ["link", "unlink"])
def test_a_folder_that_cannot_be_written_is_one_clear_error(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    book = ClaimBook(tmp_path)
    claim = book.take("s")
    assert claim is not None
    monkeypatch.setattr(os, call, read_only)
    with pytest.raises(StorageError, match="make the folder writable"):
        book.take("t") if call == "link" else book.release(claim)


def test_nothing_but_claims_lies_in_the_folder(tmp_path: Path) -> None:
    elsewhere(tmp_path)
    book = ClaimBook(tmp_path)
    assert book.take("s") is None
    claim = book.take("t")
    assert claim is not None
    book.release(claim)
    assert names(tmp_path) == ["s.1"]


def test_an_interrupted_process_gives_back_all_that_it_holds_and_nothing_else(tmp_path: Path) -> None:
    book = ClaimBook(tmp_path)
    assert book.take("mine") is not None
    other = tmp_path / "other.1"
    other.write_text((tmp_path / "mine.1").read_text().replace('"host": "', '"host": "not-'))
    book.release_all()
    assert [path.name for path in tmp_path.iterdir()] == ["other.1"]


def test_claims_that_nobody_would_ask_for_again_are_cleared_and_those_of_the_living_kept(tmp_path: Path) -> None:
    assert in_child(take, tmp_path, "finished-by-the-dead")
    assert in_child(take, tmp_path, "left-by-the-dead")
    elsewhere(tmp_path, "finished-elsewhere")
    elsewhere(tmp_path, "computed-elsewhere")
    book = ClaimBook(tmp_path)
    assert book.take("computed-here") is not None
    assert book.take("left-by-the-dead") is not None
    assert book.take("finished-here") is not None
    assert in_child(take, tmp_path, "abandoned")
    book.clear(lambda stage_id: stage_id.startswith("finished"))
    assert names(tmp_path) == ["computed-elsewhere.1", "computed-here.1", "left-by-the-dead.1", "left-by-the-dead.2"]
    assert ClaimBook(tmp_path).take("computed-here") is None


def test_a_claim_that_changes_hands_while_it_is_cleared_is_kept(tmp_path: Path) -> None:
    elsewhere(tmp_path)
    book = ClaimBook(tmp_path)

    def finished(_: str) -> bool:
        (tmp_path / "s.1").unlink()  # its holder gave it back; the artifact was found damaged, and is computed again
        elsewhere(tmp_path, host="a third machine")
        return True

    book.clear(finished)
    assert names(tmp_path) == ["s.1"]
