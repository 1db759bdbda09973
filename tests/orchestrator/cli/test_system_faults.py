"""What the system refuses a command is one message, and an output that is lost is told from a mistake."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from orchestrator.cli.system_faults import system_fault
from orchestrator.cli.terminal import Terminal
from orchestrator.errors import ExitCode, StorageError
from orchestrator.stages.context.failures import FailureClass, failed
from orchestrator.stages.gram import GRAM
from orchestrator.store.artifacts import ArtifactStore, layout_of
from orchestrator.store.files import visible
from orchestrator.store.stage import Stage
from tests.orchestrator.sweeps import make_sweep, ntksweep, run_spec
from tests.root import ROOT


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    made = make_sweep(tmp_path_factory.mktemp("sweep"), {"grid.layer_sets": ["all_layers"]}, model=tiny_model)
    run_spec(made)
    return made


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "ntksweep", *map(str, arguments)]


PRINTING = [["status", "results"], ["status", "results", "--json"], ["show", "results"], ["schema"], ["--help"]]


@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_an_output_that_takes_nothing_is_told(arguments: list[str], spec: Path) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            command(*arguments), cwd=spec.parent, env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert ended.stderr == (
        "error: what this command prints cannot be written to where its output goes (No space left on device); make "
        "room there, or let it go elsewhere\n"
    )
    assert ended.returncode == ExitCode.STORAGE


@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_a_reader_that_is_gone_ends_a_command_as_it_ends_others(arguments: list[str], spec: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        command(*arguments), cwd=spec.parent, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=writing, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (ExitCode.READER_GONE, "")


def test_bars_and_messages_that_nobody_reads_end_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w", buffering=1) as full:
        monkeypatch.setattr(sys, "stderr", full)
        Terminal(stderr=True).print("a note")
        with pytest.raises(OSError, match="No space"):
            full.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())


def test_what_libraries_print_goes_into_no_file_where_a_stream_was_closed() -> None:
    opens = (
        "import os, sys\n"
        "from orchestrator.cli.system_faults import hold_standard_streams\n"
        "hold_standard_streams()\n"
        "sys.exit(os.open(os.devnull, os.O_RDONLY))"
    )
    ended = subprocess.run(["sh", "-c", f"exec {sys.executable} -c '{opens}' <&- >&- 2>&-"], cwd=ROOT, check=False)
    assert ended.returncode > 2


@pytest.mark.parametrize("command_line", [["status", "results"], ["doctor"], ["report", "results"], ["plan", "x.yaml"]])
def test_a_current_folder_that_is_gone_is_told(
    command_line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    shutil.rmtree(tmp_path / "here")
    answer = ntksweep(*command_line)
    assert answer.status == ExitCode.WRONG_INPUT
    assert answer.errors.startswith("error: ")
    assert "the current folder is no longer there" in answer.errors
    assert "(`cd`)" in answer.errors


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "too little memory"),
        (OSError(12, "Cannot allocate memory"), "too little memory"),
        (ImportError("x.so: failed to map segment from shared object"), "raise that (`ulimit -v`)"),
        (RuntimeError("can't start new thread"), "raise that (`ulimit -u`)"),
        (BlockingIOError(11, "Resource temporarily unavailable"), "raise that (`ulimit -u`)"),
        (OSError(24, "Too many open files", "/a/b"), "/a/b cannot be opened, for too many files are open"),
    ],
)
def test_limits_of_a_process_are_told_with_what_raises_them(error: Exception, said: str) -> None:
    fault = system_fault(error)
    assert fault is not None
    assert said in fault[0]


def test_a_mistake_is_no_fault_of_the_system() -> None:
    assert system_fault(KeyError("x")) is None
    assert system_fault(FileNotFoundError(2, "No such file", "x")) is None


# --- too many open files


@contextmanager
def no_further_file() -> Iterator[None]:
    """Let this process open no file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_too_many_open_files_are_no_damage(tmp_path: Path) -> None:
    store, stage = ArtifactStore(tmp_path), Stage(GRAM, {"groups": ["0.query"]}, {})
    arrays = {"a": np.arange(12.0), "b": np.arange(3.0)}
    with store.new_arrays(stage, layout_of(arrays)) as file:
        file.write(arrays)
        store.publish(stage, {}, {}, file)
    artifact = store.read(stage.kind, stage.stage_id)
    artifact.array("a")
    looks = [
        lambda: store.read(stage.kind, stage.stage_id),
        lambda: store.is_intact(stage.kind, stage.stage_id),
        lambda: artifact.array("b"),
        lambda: artifact.verify("b"),
        lambda: visible(tmp_path),
    ]
    for look in looks:
        with no_further_file(), pytest.raises(StorageError, match=r"too many files are open.*ulimit -n"):
            look()
    assert store.is_intact(stage.kind, stage.stage_id)


def test_an_array_that_cannot_be_mapped_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, stage = ArtifactStore(tmp_path), Stage(GRAM, {"groups": ["0.query"]}, {})
    arrays = {"a": np.arange(12.0)}
    with store.new_arrays(stage, layout_of(arrays)) as file:
        file.write(arrays)
        store.publish(stage, {}, {}, file)
    artifact = store.read(stage.kind, stage.stage_id)
    artifact.verify()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")  # mapping a file opens it once more

    monkeypatch.setattr(np, "memmap", refuse)
    with pytest.raises(StorageError, match="too many files are open"):
        artifact.array("a")


def test_a_stage_that_may_open_no_file_is_tried_again_by_the_next_run() -> None:
    outcome = failed(OSError(24, "Too many open files", "/a/b"))
    assert outcome.failure is FailureClass.STORAGE
    assert "ulimit -n" in outcome.message


def test_a_stage_that_may_start_no_thread_is_no_mistake_of_the_code() -> None:
    outcome = failed(RuntimeError("can't start new thread"))
    assert outcome.failure is FailureClass.WORKER
    assert "ulimit -u" in outcome.message
