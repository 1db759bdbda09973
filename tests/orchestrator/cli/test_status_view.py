"""Output of `ntksweep status`: unfinished rows first, few rows unless all are asked for."""

import io
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from orchestrator.cli.status_view import FEW, status_view
from orchestrator.cluster.allocations import Seen
from orchestrator.results.status import Computing, Count, Status
from orchestrator.store.training_progress import TrainingProgress


def count(name: str | float, planned: int, finished: int = 0, running: int = 0, failed: int = 0) -> Count:
    return Count(name, planned, finished, running, failed, planned - finished - running - failed)


STATUS = Status(
    kinds=(count("dataset", 1, 1), count("solve", 40, 20, 3, 2)),
    layer_sets=tuple(count(f"layers:{i}", 4, 4 if i % 2 else 0) for i in range(40)),
    lambdas=tuple(count(strength, 40, 20, 3, 2) for strength in (0.01, 0.1, 1.0, 10.0)),
    variants=(),
    cells=160, cells_finished=80, cells_in_tables=40, computing=(), workers=0, worker_seconds=None,
    unmeasured=("solve",), failures=(), damaged=(), damaged_before=(), foreign=(), tables_complete=False,
)  # fmt: skip


def printed(found: Status, **options: Any) -> list[list[str]]:
    """Return the words of every line."""
    stream = io.StringIO()
    console = Console(file=stream, width=120)
    for part in status_view(found, **options):
        console.print(part)
    return [line.split() for line in stream.getvalue().splitlines()]


def line_of(lines: list[list[str]], *words: str) -> list[str]:
    (found,) = [line for line in lines if line[: len(words)] == list(words)]
    return found


def joined(lines: list[list[str]]) -> list[str]:
    return [" ".join(line) for line in lines]


def test_stages_are_counted_by_kind():
    lines = printed(STATUS)
    assert lines[0] == ["stage", "planned", "finished", "running", "failed", "missing"]
    assert line_of(lines, "solve") == ["solve", "40", "20", "3", "2", "15"]
    assert " ".join(line_of(lines, "80")) == "80 of 160 cells finished, 40 in the tables"


def test_the_first_unfinished_layer_sets_are_shown():
    lines = printed(STATUS)
    shown = [line[0] for line in lines if line and line[0].startswith("layers:")]
    assert shown == [f"layers:{i}" for i in range(0, 2 * FEW, 2)]
    assert "10 more are unfinished and 20 are finished: --all shows every one" in joined(lines)


def test_few_unfinished_layer_sets_are_all_shown():
    few = replace(STATUS, layer_sets=STATUS.layer_sets[:4])
    lines = printed(few)
    assert [line[0] for line in lines if line and line[0].startswith("layers:")] == ["layers:0", "layers:2"]
    assert "2 are finished: --all shows every one" in joined(lines)
    lines = printed(replace(STATUS, layer_sets=STATUS.layer_sets[:1]))
    assert not any("--all" in line for line in lines)


def test_all_shows_every_row_the_unfinished_first():
    lines = printed(STATUS, every_row=True)
    shown = [line[0] for line in lines if line and line[0].startswith("layers:")]
    assert shown == [f"layers:{i}" for i in (*range(0, 40, 2), *range(1, 40, 2))]
    for strength in ("0.01", "0.1", "1", "10"):
        assert line_of(lines, strength) == [strength, "40", "20", "3", "2", "15"]
    assert not any("--all" in line for line in lines)


def test_lambdas_that_stand_alike_share_a_row():
    lines = printed(STATUS)
    assert "each of 4, 0.01 to 10 40 20 3 2 15" in joined(lines)
    first_is_done = replace(STATUS, lambdas=(count(0.01, 40, 40), *STATUS.lambdas[1:]))
    lines = printed(first_is_done)
    assert "each of 3, 0.1 to 10 40 20 3 2 15" in joined(lines)
    assert not any(line[:1] == ["0.01"] for line in lines)
    assert line_of(printed(first_is_done, every_row=True), "0.01")[1:3] == ["40", "40"]


def test_a_finished_sweep_takes_a_few_lines():
    done = replace(
        STATUS, kinds=(count("solve", 40, 40),), layer_sets=(count("layers:0", 160, 160),),
        lambdas=(count(1.0, 160, 160),), cells_finished=160, cells_in_tables=160, worker_seconds=0.0, unmeasured=(),
    )  # fmt: skip
    assert joined(printed(done)) == [
        "stage planned finished running failed missing",
        "solve 40 40 0 0 0",
        "",
        "160 of 160 cells finished, 160 in the tables",
    ]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "time left: unknown until a stage is finished of: solve"),
        ({"worker_seconds": 7200.0, "workers": 2}, "about 60 min remaining on 2 workers"),
        ({"worker_seconds": 50.0, "workers": 1}, "about 50 s remaining on 1 worker"),
        ({"worker_seconds": 50.0, "workers": 0}, "no worker is running; about 50 s of work are left for one worker"),
    ],
)
def test_the_time_left_is_told_as_far_as_it_is_known(changes: Mapping[str, Any], text: str):
    lines = printed(replace(STATUS, **{"unmeasured": () if changes else ("solve",), **changes}))
    assert text in joined(lines)


def test_elapsed_and_remaining_are_told_apart():
    since = time.time() - 3725
    (told,) = [
        line
        for line in joined(printed(replace(STATUS, worker_seconds=50.0, workers=1, began=since)))
        if "elapsed" in line
    ]
    assert told in {
        f"1:02:{second:02d} elapsed since the last run began, about 50 s remaining on 1 worker" for second in (5, 6)
    }


def test_trainings_that_run_show_epochs_and_losses():
    progress = TrainingProgress("fine-tuned, layer 0", 40, 4, 10, {0: 0.5, 1: 0.25}, 8, {}, {0: 0.75})
    computing = (
        Computing("finetune", "a", "box", 1, None, 0.0, progress),
        Computing(
            "finetune",
            "b",
            "box",
            2,
            None,
            0.0,
            replace(progress, label="linearized, layer 1", losses={}, eval_losses={}),
        ),
        Computing("solve", "c", "box", 3, None, 0.0),
    )
    lines = joined(printed(replace(STATUS, computing=computing)))
    place = lines.index("training now epoch batch loss eval loss")
    assert lines[place + 1 : place + 3] == [
        "fine-tuned, layer 0 1.0/4 0.25-0.5 0.75", "linearized, layer 1 1.0/4 - -",
    ]  # fmt: skip
    many = printed(replace(STATUS, computing=computing[:1] * 30))
    assert "and 22 more" in joined(many)


def test_those_who_compute_stand_by_job_and_host():
    n1, n2 = ("12_0", "n1"), ("12_0", "n2")
    places = [(*n1, 7), (*n2, 7), (*n1, 8), (None, "box", 9), (None, None, None), (*n1, 8)]
    computing = tuple(
        Computing("solve" if number % 2 else "gram", str(number), host, process, job, 0.0)
        for number, (job, host, process) in enumerate(places)
    )
    lines = printed(replace(STATUS, computing=computing))
    assert line_of(lines, "n1") == ["n1", "12_0", "2", "2", "gram,", "1", "solve"]
    assert line_of(lines, "n2") == ["n2", "12_0", "1", "1", "solve"]
    assert line_of(lines, "box") == ["box", "-", "1", "1", "solve"]
    assert line_of(lines, "unknown") == ["unknown", "-", "1", "1", "gram"]


def test_failures_are_told_by_class_with_the_last_message_of_each():
    failures = (
        {"failure": "code", "kind": "solve", "stage": "aa", "message": "first", "layer_sets": ["layers:0"], "seed": 0,
         "n_train": 8},
        {"failure": "worker lost", "kind": "capture", "stage": "bb", "message": "[bold]killed[/bold]"},
        {"failure": "code", "kind": "solve", "stage": "cc", "message": "second\n", "layer_sets": ["a", "b", "c", "d"],
         "seed": 3, "n_train": 8},
    )  # fmt: skip
    lines = joined(printed(replace(STATUS, failures=failures)))
    place = lines.index("failed (code): 2 stages, the last one solve cc (a, b, c and others; seed 3, 8 examples)")
    assert lines[place + 1] == "second"
    place = lines.index("failed (worker lost): capture bb")
    assert lines[place + 1] == "[bold]killed[/bold]"
    assert "first" not in lines


def test_what_a_cluster_says_has_its_place():
    lines = joined(printed(STATUS, seen=Seen(fault="no answer")))
    assert lines.index("the scheduler could not be asked: no answer") < lines.index(
        "80 of 160 cells finished, 40 in the tables"
    )


def test_damage_is_named():
    assert line_of(printed(replace(STATUS, damaged=("gram/abc: short",))), "damaged:")[1] == "gram/abc:"
