"""The command that looks how a sweep stands: at once, on and on, and without what takes long to load."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.errors import ExitCode
from orchestrator.store.journal import Journal
from orchestrator.sweep.folder import ResultsFolder
from tests.orchestrator.sweeps import make_sweep, ntksweep, run_spec
from tests.root import ROOT

HEAVY = ["torch", "transformers", "peft", "datasets", "sklearn", "scipy", "pandas", "pyarrow", "ray", "submitit"]

STATUS_WITHOUT = """
import json, sys

sys.modules.update(dict.fromkeys(json.loads(sys.argv.pop(1))))
from orchestrator.cli import main
main()
"""


@pytest.fixture
def unfinished(finished: Path, tmp_path: Path) -> ResultsFolder:
    """The results of a sweep before its last solve stage was finished and its tables were written."""
    shutil.copytree(finished.parent / "results", tmp_path / "results")
    folder = ResultsFolder(tmp_path / "results")
    last = max((folder.root / "artifacts" / "solve").glob("*.json"))
    (tmp_path / "aside").mkdir()
    last.rename(tmp_path / "aside" / last.name)
    (folder.tables / "manifest.json").rename(tmp_path / "aside" / "manifest.json")
    return folder


def give_back(folder: ResultsFolder, pattern: str, place: Path) -> None:
    for path in (folder.root.parent / "aside").glob(pattern):
        path.rename(place / path.name)


def each_pause(monkeypatch: pytest.MonkeyPatch, *steps: Callable[[], None]) -> list[float]:
    """Do the next of `steps` in each pause between two looks; return how long the pauses would have been."""
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        steps[len(pauses)]()
        pauses.append(seconds)

    monkeypatch.setattr("orchestrator.cli.watching.time", SimpleNamespace(sleep=pause))
    return pauses


def interrupt() -> None:
    raise KeyboardInterrupt


def test_status_needs_no_library_that_takes_long_to_load(finished: Path):
    ran = subprocess.run(
        [sys.executable, "-c", STATUS_WITHOUT, json.dumps(HEAVY), "status", str(finished.parent / "results")],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.stderr == ""
    assert ran.returncode == 0
    assert "12 of 12 cells finished, 12 in the tables" in ran.stdout


def test_the_json_of_status_has_layer_sets_lambdas_and_time(unfinished: ResultsFolder):
    answer = ntksweep("status", unfinished.root, "--json")
    facts = json.loads(answer.output)
    assert answer.status == ExitCode.UNFINISHED
    assert sum(count["missing"] for count in facts["layer_sets"]) == 2
    assert [(count["lambda"], count["planned"], count["finished"]) for count in facts["lambdas"]] == [
        (0.01, 6, 5), (1.0, 6, 5),
    ]  # fmt: skip
    assert facts["worker_seconds"] > 0
    assert facts["folder"] == str(unfinished.root)


def test_all_lists_what_is_finished_too(finished: Path):
    assert "layers:0-1" not in ntksweep("status", finished).output
    assert "layers:0-1" in ntksweep("status", finished, "--all").output


def test_watching_ends_when_every_cell_is_in_the_tables(unfinished: ResultsFolder, monkeypatch: pytest.MonkeyPatch):
    pauses = each_pause(
        monkeypatch,
        lambda: None,
        lambda: give_back(unfinished, "[!m]*.json", unfinished.root / "artifacts" / "solve"),
        lambda: give_back(unfinished, "manifest.json", unfinished.tables),
    )
    answer = ntksweep("status", unfinished.root, "--watch")
    assert answer.status == 0
    assert pauses == [2.0, 2.0, 2.0]
    assert "12 of 12 cells finished, 12 in the tables" in answer.output
    assert answer.errors == ""


def test_ctrl_c_leaves_a_watch_quietly_with_the_status_of_the_sweep(
    unfinished: ResultsFolder, monkeypatch: pytest.MonkeyPatch
):
    each_pause(monkeypatch, interrupt)
    answer = ntksweep("status", unfinished.root, "--watch")
    assert answer.status == ExitCode.UNFINISHED
    assert answer.errors == ""
    assert "10 of 12 cells finished, 0 in the tables" in answer.output


def test_a_watch_follows_the_journals_and_another_grid(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    spec = make_sweep(tmp_path, model=tiny_model)
    run_spec(spec)
    folder = ResultsFolder(tmp_path / "results")
    folder.tables.joinpath("manifest.json").unlink()
    record = next((folder.root / "artifacts" / "solve").glob("*.json"))

    def fail() -> None:
        record.unlink()
        facts: dict[str, Any] = {"kind": "solve", "stage": record.stem}
        Journal(folder.journals).write("failed", **facts, failure="code", message="a solver with a bug")

    def grow() -> None:
        make_sweep(tmp_path, {"grid.seeds": [0, 1]}, model=tiny_model)
        run_spec(spec)

    each_pause(monkeypatch, fail, interrupt)
    answer = ntksweep("status", folder.root, "--watch")
    assert answer.status == ExitCode.FAILED_STAGES
    assert "a solver with a bug" in answer.output
    each_pause(monkeypatch, grow)
    answer = ntksweep("status", folder.root, "--watch")
    assert answer.status == 0
    assert "12 of 12 cells finished, 12 in the tables" in answer.output


@pytest.mark.parametrize("option", ["--json", "--verify"])
def test_what_looks_once_cannot_be_watched(finished: Path, option: str):
    answer = ntksweep("status", finished, "--watch", option)
    assert answer.status == ExitCode.WRONG_INPUT
    assert "--watch goes with neither --json nor --verify" in " ".join(answer.errors.split())
