"""Models by hub id. No hub can be reached by the tests: a cache as a download leaves it stands in for one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import orchestrator
from tests.orchestrator.sweeps import make_sweep, run_spec, write_spec

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def cache_with(model: Path, cache: Path, name: str) -> None:
    """Lay a model out as the hub's cache does: a snapshot a commit, and a reference to it."""
    repository = cache / f"models--{name.replace('/', '--')}"
    shutil.copytree(model, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)


OFFLINE = {"HF_HUB_OFFLINE": "1"}
UNREACHABLE = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
"""A place where nobody listens: what the hub's client raises then is not what it raises when told to stay offline."""

IMPATIENT = "import time; time.sleep = lambda _: None; from orchestrator.cli import main; main()"
"""The command, which tries what fails as often as ever, but without the 23 s between the client's six attempts."""


def ntksweep(cache: Path, *arguments: str | Path, hub: dict[str, str] = OFFLINE) -> subprocess.CompletedProcess[str]:
    # A process of its own: the cache's place is read when the hub's library is loaded.
    environment = os.environ | {"HF_HUB_CACHE": str(cache)} | hub
    started = ["-c", IMPATIENT] if hub is UNREACHABLE else ["-m", "orchestrator"]
    command = [sys.executable, *started, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_cached_model_runs_by_its_id_and_its_commit_is_recorded(tmp_path, tiny_model):
    cache_with(tiny_model, tmp_path / "cache", "someone/tiny-bert")
    path = make_sweep(tmp_path, {"model.path": "someone/tiny-bert"}, model=tiny_model)
    ended = ntksweep(tmp_path / "cache", "run", path)
    assert ended.returncode == 0, ended.stderr
    assert COMMIT in (tmp_path / "results" / "spec.yaml").read_text()
    by_id = orchestrator.load(tmp_path / "results").cells.to_pandas(["model", "eval_loss"])
    assert set(by_id["model"]) == {"someone/tiny-bert"}

    local = write_spec(tmp_path, {"model.path": str(tiny_model), "results.folder": str(tmp_path / "local")})
    assert not run_spec(local).report.failures
    assert list(orchestrator.load(tmp_path / "local").cells.to_pandas()["eval_loss"]) == list(by_id["eval_loss"])


def test_a_cached_model_is_planned_where_the_hub_cannot_be_reached(tmp_path, tiny_model):
    cache_with(tiny_model, tmp_path / "cache", "someone/tiny-bert")
    path = make_sweep(tmp_path, {"model.path": "someone/tiny-bert"}, model=tiny_model)
    planned = ntksweep(tmp_path / "cache", "plan", path, hub=UNREACHABLE)
    assert planned.returncode == 0, planned.stderr


@pytest.mark.parametrize("hub", [OFFLINE, UNREACHABLE], ids=["offline", "unreachable"])
def test_an_id_that_is_nowhere_says_what_to_do(tmp_path, tiny_model, hub):
    path = make_sweep(tmp_path, {"model.path": "someone/nothing"}, model=tiny_model)
    ended = ntksweep(tmp_path / "cache", "run", path, hub=hub)
    assert ended.returncode == 2
    message = " ".join(ended.stderr.split())
    assert "no local path `someone/nothing`" in message
    assert "give a folder, or run where the hub can be reached" in message
    assert ("(127.0.0.1:9 cannot be reached)" if hub is UNREACHABLE else "(HF_HUB_OFFLINE is set)") in message
    assert not (tmp_path / "results").exists()


def test_init_asks_the_hub_for_a_model_once_and_says_what_to_do(tmp_path):
    (tmp_path / "data.csv").write_text("text,label\n" + "a film,0\na plot,1\n" * 12)
    options = ["--data", tmp_path / "data.csv", "--model", "someone/nothing"]
    ended = ntksweep(tmp_path / "cache", "init", tmp_path / "mine.yaml", *options, hub=UNREACHABLE)
    assert ended.returncode == 2
    assert ended.stderr == (  # the client says so before each further attempt
        "error: there is no local path `someone/nothing`, the hub could not be asked for a model with that id "
        "(127.0.0.1:9 cannot be reached), and the hub's cache here has none; give a folder, or run where the hub can "
        "be reached\n"
    )


def test_init_takes_a_cached_model_where_the_hub_cannot_be_reached(tmp_path, tiny_model):
    cache_with(tiny_model, tmp_path / "cache", "someone/tiny-bert")
    (tmp_path / "data.csv").write_text("text,label\n" + "a film,0\na plot,1\n" * 12)
    options = ["--data", tmp_path / "data.csv", "--model", "someone/tiny-bert"]
    ended = ntksweep(tmp_path / "cache", "init", tmp_path / "mine.yaml", *options, hub=UNREACHABLE)
    assert ended.returncode == 0, ended.stderr
    assert "model: {path: someone/tiny-bert} # bert, 2 layers" in (tmp_path / "mine.yaml").read_text()
