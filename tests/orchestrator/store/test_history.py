"""Reading of the journals: every event once, whoever writes meanwhile."""

from pathlib import Path
from typing import Any

from orchestrator.store.history import History
from orchestrator.store.journal import Journal


def means(history: History) -> dict[str, float]:
    return {kind: seconds for kind, (seconds, _) in history.times().items()}


def looked(history: History) -> History:
    history.update()
    return history


def write(journal: Journal, event: str, stage: str, **facts: Any) -> None:
    journal.write(event, kind="solve", stage=stage, **facts)


def test_before_anything_ran_nothing_is_known(tmp_path: Path):
    history = looked(History(tmp_path / "journal"))
    assert means(history) == {}
    assert history.failures() == {}


def test_times_are_means_over_all_processes_and_each_event_counts_once(tmp_path: Path):
    history, journal = History(tmp_path), Journal(tmp_path)
    for seconds in (1.0, 2.0):
        write(journal, "finished", "a", seconds=seconds)
    assert means(looked(history)) == {"solve": 1.5}
    write(journal, "finished", "b", seconds=3.0)
    write(Journal(tmp_path), "finished", "c", seconds=4.0)
    assert means(looked(history)) == {"solve": 2.5}
    assert means(looked(history)) == {"solve": 2.5}
    assert means(looked(History(tmp_path))) == {"solve": 2.5}


def test_a_stage_has_failed_until_it_is_begun_again(tmp_path: Path):
    history, first, second = History(tmp_path), Journal(tmp_path), Journal(tmp_path)
    write(first, "started", "a")
    write(first, "failed", "a", failure="code", message="one")
    write(first, "failed", "b", failure="code", message="two")
    assert {stage: event["message"] for stage, event in looked(history).failures().items()} == {"a": "one", "b": "two"}
    write(second, "started", "a")
    assert list(looked(history).failures()) == ["b"]
    write(second, "failed", "a", failure="input", message="three")
    assert [event["message"] for event in looked(history).failures().values()] == ["two", "three"]  # oldest first
    write(second, "finished", "b", seconds=1.0)
    assert list(looked(history).failures()) == ["a"]


def test_the_later_event_wins_whichever_journal_is_read_first(tmp_path: Path):
    line = '{{"time":{time},"event":"{event}","kind":"solve","stage":"{stage}","failure":"code","message":""}}\n'
    early = line.format(time=1, event="failed", stage="a") + line.format(time=2, event="started", stage="b")
    late = line.format(time=2, event="started", stage="a") + line.format(time=1, event="failed", stage="b")
    (tmp_path / "one.jsonl").write_text(early)
    (tmp_path / "two.jsonl").write_text(late)
    assert looked(History(tmp_path)).failures() == {}


def test_a_line_that_is_being_written_is_read_when_it_is_whole(tmp_path: Path):
    history, path = History(tmp_path), tmp_path / "host-1.jsonl"
    line = '{"time":1.0,"event":"finished","kind":"solve","stage":"a","seconds":2.0}\n'
    path.write_text(line + line[:30])
    assert means(looked(history)) == {"solve": 2.0}
    path.write_text(line + line.replace("2.0", "4.0"))
    assert means(looked(history)) == {"solve": 3.0}


def test_a_line_cut_short_and_events_of_the_run_do_no_harm(tmp_path: Path):
    line = '{"time":1.0,"event":"finished","kind":"solve","stage":"a","seconds":2.0}\n'
    run = '{"time":1.0,"event":"run","phase":"began"}\n{"time":1.0,"event":"damaged","kind":"gram","stage":"b"}\n'
    (tmp_path / "host-1.jsonl").write_text(line[:30] + "\n" + run + line)
    assert means(looked(History(tmp_path))) == {"solve": 2.0}


def _run(time: float, executor: str) -> str:
    return f'{{"time":{time},"event":"run","phase":"began","executor":"{executor}"}}\n'


def _loaded(time: float, seconds: float) -> str:
    """A stage of half a second before which a worker has loaded libraries until some time."""
    return f'{{"time":{time + 0.5},"event":"finished","kind":"a","stage":"a","seconds":0.5,"loading":{seconds}}}\n'


def test_a_start_is_that_of_the_last_run_by_the_same_executor(tmp_path: Path):
    (tmp_path / "driver.jsonl").write_text(_run(100, "ray") + _run(200, "ray") + _run(300, "inline") + _run(400, "ray"))
    (tmp_path / "early.jsonl").write_text(_loaded(130, 2))
    # Two workers, up after 7 and 8 s; the first loads in two pieces, and the mean is that of workers.
    (tmp_path / "one.jsonl").write_text(_loaded(211, 4) + _loaded(213, 1))
    (tmp_path / "two.jsonl").write_text(_loaded(211, 3))
    (tmp_path / "inline.jsonl").write_text(_loaded(306, 5.5))
    history = looked(History(tmp_path))
    assert history.starting("ray") == (7.0, 4.0)  # none of the last one's workers has loaded anything
    assert history.starting("inline") == (0.5, 5.5)


def test_a_start_of_which_no_worker_says_anything_is_unknown(tmp_path: Path):
    (tmp_path / "driver.jsonl").write_text(_run(100, "ray") + '{"time":200,"event":"run","phase":"began"}\n')
    (tmp_path / "worker.jsonl").write_text(_loaded(203, 1))
    assert looked(History(tmp_path)).starting("ray") is None
    assert looked(History(tmp_path)).starting("inline") is None


def test_a_run_is_starting_until_one_of_its_processes_has_loaded_libraries(tmp_path: Path):
    begun = '{{"time":{},"event":"started","kind":"a","stage":"a"{}}}\n'
    assert not looked(History(tmp_path)).is_starting()
    (tmp_path / "driver.jsonl").write_text(_loaded(90, 1) + _run(100, "ray"))
    worker = tmp_path / "worker.jsonl"
    worker.write_text(begun.format(107, ',"loads":true'))
    assert looked(History(tmp_path)).is_starting()
    for computes in ('{"time":113,"event":"loaded"}\n', begun.format(113, ""), _loaded(113, 1)):
        worker.write_text(begun.format(107, ',"loads":true') + computes)
        assert not looked(History(tmp_path)).is_starting()
