"""The view of a run that goes on: bars, times, trainings; lines where there is no terminal."""

import io
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.cli import progress, running
from orchestrator.cli.progress import Bars
from orchestrator.cli.terminal import Terminal
from orchestrator.errors import StorageError
from orchestrator.results.status import Computing, Status
from orchestrator.store.training_progress import TrainingProgress
from tests.orchestrator.cli.test_status_view import STATUS
from tests.orchestrator.sweeps import ntksweep, write_spec

TRAINING = Computing("finetune", "a", "box", 1, None, 0.0, TrainingProgress("fine-tuned, layer 0", 40, 4, 10, {0: 0.5}))


def terminal(width: int = 80, *, real: bool = True) -> tuple[Terminal, io.StringIO]:
    console, stream = Terminal(), io.StringIO()
    console.file, console.width = stream, width
    console._force_terminal = real
    return console, stream


def shown(bars: Bars, console: Terminal) -> str:
    with console.capture() as captured:
        console.print(bars._view())
    return captured.get()


def until(condition: Callable[[], object]) -> None:
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("options", "environment", "said"),
    [
        ([], {}, "sweep tiny of sweep.yaml: looking at the model and the data\n"),
        (["--json"], {}, ""),
        ([], {"TORCHELASTIC_RUN_ID": "a", "RANK": "1"}, ""),
    ],
    ids=["for people", "for scripts", "in the second process of a group"],
)
def test_run_says_what_it_begins_with_before_it_loads_anything(
    options: list[str],
    environment: dict[str, str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    write_spec(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(running, "_run", lambda *_, **__: None)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    answer = ntksweep("run", "sweep.yaml", *options)
    assert (answer.status, answer.errors) == (0, said)


def test_a_run_shows_times_and_trainings_while_it_goes_on():
    console, _ = terminal()
    found = replace(STATUS, worker_seconds=120.0, workers=2, computing=(TRAINING,), unmeasured=())
    with Bars(console, lambda: found) as bars:
        bars.begin({"dataset": 1, "finetune": 4, "gram": 0}, {"dataset": 1, "finetune": 0, "gram": 0})
        until(lambda: bars._found)
        bars.advance("finetune")
        lines = shown(bars, console).splitlines()
    assert "gram" not in "".join(lines)
    assert any(line.startswith("finetune") and line.endswith("1/4") for line in map(str.rstrip, lines))
    assert "0:00:00 elapsed, about 60 s remaining on 2 workers, 80 of 160 cells complete" in map(str.rstrip, lines)
    assert any(line.split() == ["fine-tuned,", "layer", "0", "1.0/4", "0.5", "-"] for line in lines)
    assert max(map(len, map(str.rstrip, lines))) <= 80


@pytest.mark.parametrize(("left", "said"), [(1, ", workers are loading libraries, 80 of"), (0, "elapsed, 80 of")])
def test_while_workers_load_libraries_the_run_says_so(left: int, said: str):
    console, _ = terminal()
    found = replace(STATUS, starting=True, unmeasured=())
    with Bars(console, lambda: found) as bars:
        bars.begin({"dataset": 2}, {"dataset": 2 - left})
        until(lambda: bars._found)
        assert said in shown(bars, console)
        found = replace(found, starting=False)
        until(lambda: bars._found is found)
        assert progress.LOADING not in shown(bars, console)


def test_workers_that_pause_between_stages_do_not_lengthen_the_rest():
    console, _ = terminal()
    looks = [replace(STATUS, worker_seconds=100.0, workers=workers, unmeasured=()) for workers in (2, 1)]
    bars = Bars(console)
    for found in looks:
        bars._found, bars._workers = found, max(bars._workers, found.workers)
    assert "about 50 s remaining on 2 workers" in shown(bars, console)


def test_a_look_that_fails_leaves_the_run_alone():
    def look() -> Status:
        raise StorageError("the folder is gone")

    console, _ = terminal()
    with Bars(console, look) as bars:
        bars.begin({"dataset": 1}, {"dataset": 0})
        assert "0:00:00 elapsed" in shown(bars, console)


def test_what_is_no_terminal_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(progress, "SAID_EVERY", 0.0)
    console, stream = terminal(10_000, real=False)
    found = replace(STATUS, worker_seconds=120.0, workers=2, unmeasured=())
    with Bars(console, lambda: found) as bars:
        bars.begin({"dataset": 1}, {"dataset": 0})
        until(lambda: "remaining" in stream.getvalue())
    before, first, *_, last = stream.getvalue().splitlines()
    assert before.startswith("1 stage to compute, once workers have loaded libraries; a line a minute")
    assert first == "0:00:00 elapsed, about 60 s remaining on 2 workers, 80 of 160 cells complete"
    assert last == "0:00:00 elapsed"
    assert stream.getvalue().endswith("\n")
