"""Every command of the documentation runs, on data and a model of a few kilobytes, or is declared with its reason."""

import csv
import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer

from orchestrator.cli.app import app
from orchestrator.results.loading import load
from tests.docs.pages import PAGES, Command, commands_of
from tests.orchestrator.sweeps import make_sweep, ntksweep, run_spec
from tests.root import ROOT
from tests.tiny_models import WORDS, save_tiny

NOT_RUN = {
    "ntksweep submit": "needs Slurm: tests/cluster",
    "ntksweep resume": "needs Slurm: tests/cluster",
    "ntksweep wait": "needs Slurm: tests/cluster",
    "ntksweep cancel": "needs Slurm: tests/cluster",
    "ntksweep devcluster": "needs root and the packages of Slurm: tests/cluster",
    "python -m": "takes minutes",
    "python3 -m": "makes an environment",
}
"""Beginnings of commands that do not run here, and why; their options are read all the same."""

REDUCED = {
    "FacebookAI/roberta-base": "model", "models/my-encoder": "model", "minilm": "model",
    "examples/data/minilm": "model",
    "ID": "CELL", "3": "1",
}  # fmt: skip
"""Words in whose place tiny ones stand: models, the number of a cell, layers of a model that has two."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the pages suppose it: examples, data of one's own, and sweeps that are finished."""
    folder = tmp_path_factory.mktemp("reader")
    save_tiny("bert", folder / "model")
    with (folder / "reviews.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [(f"{a} {b} {c}", ("bad", "good")[(i + j) % 2])
                for i, a in enumerate(WORDS[:6]) for j, b in enumerate(WORDS[6:12]) for c in WORDS[12:15]]  # fmt: skip
        csv.writer(file).writerows([("review", "verdict"), *rows])
    small = {"grid.layer_sets": ["each_layer"], "model.path": str(folder / "model"), "results.folder": None}
    training = {
        "finetune": {"epochs": 1, "learning_rate": 0.01},
        "task": {"kind": "classification", "n_eval": 6, "max_length": 16},
        "grid.tasks": {"movies": {"data": "data.parquet"}},
        "grid.layer_sets": ["each_layer", "all_layers"],
    }
    for name, changes in (("quickstart", {}), ("paper-minilm", training), ("my-sweep", {})):
        path = make_sweep(folder / "examples", {"name": name} | small | changes, model=folder / "model")
        path = path.rename(path.with_name(f"{name}.yaml"))
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            run_spec(path)
    shutil.copyfile(folder / "examples/my-sweep.yaml", folder / "my-sweep.yaml")
    shutil.copytree(ROOT / "results/reference/paper-minilm", folder / "results/reference/paper-minilm")
    shutil.copytree(ROOT / "examples/profiles", folder / "examples/profiles")
    return folder


def reduced(command: Command) -> list[str]:
    """Return the words of a command on tiny data, in one process; a spec that it writes is new."""
    words = [REDUCED.get(word, word) for word in command.words[1:]]
    if words[0] == "run":
        words += ["--executor", "inline"]
    if words[0] == "init":
        Path(words[1]).unlink(missing_ok=True)
        shutil.rmtree(Path("results", Path(words[1]).stem), ignore_errors=True)
    return words


def check_options(words: Sequence[str]) -> None:
    """Read a command without running it; raise click's message if it has no such option."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    while hasattr(commands[words[0]], "commands"):
        commands, words = commands[words[0]].commands, words[1:]
    commands[words[0]].make_context(words[0], list(words[1:]))


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(commands_of(page))], ids=lambda page: page.stem
)  # fmt: skip
def test_the_commands_of_a_page_run(page: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(shutil.copytree(folder, tmp_path / "reader"))
    for command in commands_of(page):
        where = f"{page.name}:{command.line}: {command}"
        if " ".join(command.words[:2]) in NOT_RUN:
            if command.words[0] == "ntksweep":
                check_options(command.words[1:])
            elif command.words[2] != "venv":
                assert importlib.util.find_spec(command.words[2]) is not None, where
            continue
        assert command.words[0] == "ntksweep", f"{where}: declare in NOT_RUN why it does not run here"
        words = reduced(command)
        if "CELL" in words:
            words[words.index("CELL")] = load(words[1]).cells.to_pandas()["cell_id"][0]
        answer = ntksweep(*words)
        assert answer.status == 0, f"{where}\n{answer.output}\n{answer.errors}"


def test_declared_commands_are_those_that_stand_in_pages():
    found = {" ".join(command.words[:2]) for page in PAGES for command in commands_of(page)}
    assert NOT_RUN.keys() - found == set()
