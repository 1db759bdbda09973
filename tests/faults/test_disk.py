"""A full disk and a read-only folder: one clear error, and a sweep that goes on once the cause is gone."""

import resource
import shutil
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from orchestrator.errors import ExitCode
from tests.faults.conftest import NewSweep
from tests.faults.disks import Ballast, disk, read_only, writable
from tests.faults.driving import Command, ntksweep, pause_at_event
from tests.faults.journal_proof import prove_nothing_was_computed_twice
from tests.faults.tables import assert_same_tables

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("faults")]


def is_one_clear_error(output: str, *words: str) -> None:
    assert output.count("error:") == 1
    assert "Traceback" not in output
    for word in (*words, "Nothing finished is lost", "run the same command again"):
        assert word in output


def goes_on(spec: Path, expected: dict[str, pa.Table]) -> None:
    answer = ntksweep("run", spec, folder=spec.parent)
    assert answer.status == 0, answer.output
    assert_same_tables(spec.parent / "results", expected)
    prove_nothing_was_computed_twice(spec.parent / "results")
    assert not list((spec.parent / "results").rglob(".*.tmp"))


@pytest.mark.parametrize("event", [2, 9, 23, 47, 80])
def test_a_disk_that_fills_up_during_a_run(event: int, new_sweep: NewSweep, expected: dict[str, pa.Table]) -> None:
    spec = new_sweep()
    with disk(spec.parent / "results", megabytes=16):
        run = Command("run", spec, folder=spec.parent, prepare=partial(pause_at_event, event))
        run.wait_until_paused()
        ballast = Ballast(run.results)
        ballast.grow()
        run.resume()
        while run.running:
            ballast.grow()
        answer = run.wait()
        assert answer.status == ExitCode.STORAGE == 4
        is_one_clear_error(answer.output, "the disk is full", "free some space")
        status = ntksweep("status", run.results, folder=spec.parent)
        assert status.status in (ExitCode.UNFINISHED, ExitCode.FAILED_STAGES), status.output
        ballast.drop()
        goes_on(spec, expected)


@pytest.mark.ray
def test_a_disk_that_fills_up_under_workers_of_ray(new_sweep: NewSweep, expected: dict[str, pa.Table]) -> None:
    spec = new_sweep()
    with disk(spec.parent / "results", megabytes=16):
        run = Command("run", spec, "--executor", "ray", "--workers", "2", folder=spec.parent)
        assert run.wait_for_events(20)
        ballast = Ballast(run.results)
        while run.running:
            ballast.grow()
        answer = run.wait()
        assert answer.status == ExitCode.STORAGE
        is_one_clear_error(answer.output, "the disk is full")
        ballast.drop()
        goes_on(spec, expected)


def test_a_disk_without_room_is_refused_before_anything_is_computed(
    new_sweep: NewSweep, expected: dict[str, pa.Table]
) -> None:
    spec = new_sweep()
    with disk(spec.parent / "results", megabytes=1):
        ballast = Ballast(spec.parent / "results")
        ballast.grow()
        answer = ntksweep("run", spec, folder=spec.parent)
        assert answer.status == ExitCode.WRONG_INPUT
        assert "the sweep leaves" in answer.output and "0 B free; free some" in answer.output
        ballast.drop()
    goes_on(spec, expected)


def allow_files_of(n_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))


@pytest.mark.parametrize("n_bytes", [2_500, 6_000, 10_000])
def test_a_limit_on_the_size_of_files_counts_as_a_full_disk(
    n_bytes: int, new_sweep: NewSweep, expected: dict[str, pa.Table]
) -> None:
    spec = new_sweep()
    answer = ntksweep("run", spec, folder=spec.parent, prepare=partial(allow_files_of, n_bytes))
    assert answer.status == ExitCode.STORAGE
    is_one_clear_error(answer.output, "the disk is full")
    goes_on(spec, expected)


def test_a_folder_that_may_not_be_written(new_sweep: NewSweep, expected: dict[str, pa.Table]) -> None:
    spec = new_sweep()
    results = spec.parent / "results"
    with writable(results):
        with read_only(results):
            answer = ntksweep("run", spec, folder=spec.parent)
            assert answer.status == ExitCode.STORAGE
            is_one_clear_error(answer.output, "cannot be written", "make the folder writable")
        goes_on(spec, expected)


def test_a_half_finished_sweep_in_a_folder_that_became_read_only(
    new_sweep: NewSweep, expected: dict[str, pa.Table]
) -> None:
    spec = new_sweep()
    results = spec.parent / "results"
    with writable(results):
        run = Command("run", spec, folder=spec.parent)
        assert run.wait_for_events(40)
        run.kill()
        run.wait()
        with read_only(results):
            answer = ntksweep("run", spec, folder=spec.parent)
            assert answer.status == ExitCode.STORAGE
            is_one_clear_error(answer.output, "cannot be written", "make the folder writable")
            assert ntksweep("status", results, "--verify", folder=spec.parent).status == ExitCode.UNFINISHED
        goes_on(spec, expected)


def test_a_finished_sweep_in_a_read_only_folder_can_be_looked_at(
    new_sweep: NewSweep, undisturbed: Path, expected: dict[str, pa.Table]
) -> None:
    spec = new_sweep()
    results = spec.parent / "results"
    with writable(results):
        shutil.copytree(undisturbed, results, dirs_exist_ok=True)
        with read_only(results):
            answer = ntksweep("run", spec, folder=spec.parent)
            assert answer.status == 0, answer.output
            assert "the sweep was finished already; nothing to do" in answer.output
            assert ntksweep("status", results, "--verify", folder=spec.parent).status == 0
            assert ntksweep("show", results, folder=spec.parent).status == 0
            assert_same_tables(results, expected)
