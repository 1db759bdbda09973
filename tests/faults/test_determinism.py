"""The same bits in every artifact and table, whatever computes them and whichever worker is first."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.store.journal import read_journals
from tests.faults.driving import Command
from tests.faults.tables import assert_same_tables, checksums, numbers
from tests.orchestrator.sweeps import write_data, write_spec
from tests.tiny_models import save_tiny

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("determinism")]

# Large enough for the linear algebra to take its paths for large matrices; dual kernels and primal ones.
SWEEP = {
    "model.dtype": "float32",
    "model.path": "../model",
    "task.data": "../data.parquet",
    "task.n_eval": 20,
    "adapter.target_modules": ["query", "value", "intermediate.dense"],
    "head.in_kernel": False,
    "grid.layer_sets": ["each_layer", "suffixes", {"groups": [["0.query"]]}],
    "grid.n_train": [24, 96],
    "grid.seeds": [0, 1],
    "compute.shard_examples": 16,
    "results.predictions": True,
}

RunWith = Callable[..., Path]


@pytest.fixture(scope="module")
def run_with(tmp_path_factory: pytest.TempPathFactory) -> RunWith:
    """Run the sweep with an executor in a folder of its own; return the results folder."""
    shared = tmp_path_factory.mktemp("determinism")
    save_tiny("bert", shared / "model", layers=3, hidden=64)
    write_data(shared / "data.parquet", n=160)

    def run(name: str, *options: str) -> Path:
        folder = shared / name
        folder.mkdir()
        command = Command("run", write_spec(folder, SWEEP), *options, folder=folder)
        answer = command.wait()
        assert answer.status == 0, answer.output
        computing = {event["journal"] for event in read_journals(command.results / "journal") if "stage" in event}
        assert any(f"-{command.pid}-" in journal for journal in computing) == ("inline" in options)
        return command.results

    return run


@pytest.fixture(scope="module")
def inline(run_with: RunWith) -> Path:
    results = run_with("inline", "--executor", "inline")
    solved = (json.loads(path.read_bytes()) for path in (results / "artifacts" / "solve").glob("[!.]*.json"))
    assert {each["stage"]["parameters"]["method"] for each in solved} == {"dual", "primal"}
    return results


def test_a_second_run_in_the_same_way_gives_the_same_bits(run_with: RunWith, inline: Path) -> None:
    again = run_with("again", "--executor", "inline")
    assert checksums(again) == checksums(inline)
    assert_same_tables(again, numbers(inline))


@pytest.mark.ray
@pytest.mark.parametrize("workers", [1, 4])
def test_any_number_of_workers_gives_the_same_bits(workers: int, run_with: RunWith, inline: Path) -> None:
    results = run_with(f"{workers} workers", "--executor", "ray", "--workers", str(workers))
    assert checksums(results) == checksums(inline)
    assert_same_tables(results, numbers(inline))
