"""Sweeps whose model processes divide have the kernel blocks and tables of the whole model."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.capture import demo_model
from orchestrator.plan.plan import make_plan
from orchestrator.spec import read_spec
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.survey import surveys
from tests.faults.tables import numbers
from tests.forked_group import run_forked_group
from tests.orchestrator.engine.sharding import run_sweeps, run_sweeps_by_panels
from tests.orchestrator.sweeps import make_sweep, run_spec, write_data
from tests.tiny_models import ALL_TARGETS, save_tiny

LIMIT = 2e-5

FLOAT32: dict[str, Any] = {"model.dtype": "float32", "results.predictions": True, "adapter.initialization": "random"}
WORDS: dict[str, Any] = {"kind": "label_words", "words": ["bad", "good"], "in_kernel": False}
TWO_TASKS: dict[str, Any] = {"films": {"data": "films.parquet"}, "books": {"data": "data.parquet"}}
TRAINED: dict[str, Any] = {
    "learning_rate": 0.05, "epochs": 1, "batch_size": 4, "num_evaluations": 1, "stacked_cells": 4, "kernel_examples": 0,
    "stacked_across": ["seeds"], "combinations": {"coefficients": [0.5]},
}  # fmt: skip

SWEEPS: dict[str, dict[str, Any]] = {
    "minilm": {"adapter.target_modules": ["query", "value", "output.dense"], "adapter.initialization": "zero",
               "compute.rows": "resident"},
    "llama": {"adapter.target_modules": list(ALL_TARGETS["llama"]), "compute.checkpointing": True},
    "qwen2": {
        "adapter.target_modules": ["q_proj", "down_proj"], "compute.batch_tokens": "auto", "head": WORDS,
        "task.template": "{text} it was", "kernel.outputs": "margin", "compute.rows": "resident",
    },
    "roberta": {"head": WORDS, "task.template": "{text} it was {mask}"},
    "gpt2": {
        "adapter.target_modules": ["c_attn", "c_fc"], "kernel.decomposition": "iterative", "grid.n_train": [60],
        "grid.lambdas": {"values": [0.01, 1.0], "scale": "trace"}, "compute.shard_examples": 16,
        "grid.layer_sets": ["all_layers"],
    },
    "bert": {
        "task.data": None, "grid.tasks": TWO_TASKS, "grid.seeds": [0, 1],
        "grid.n_train": [6], "grid.layer_sets": [{"layers": [[1]]}], "grid.lambdas": {"values": [0.1]},
        "finetune": TRAINED,
    },
    "mistral": {
        "adapter.target_modules": ["q_proj", "down_proj"], "sharding.stage": 0, "compute.rows": "resident",
    },
}  # fmt: skip
"""One a model, its rows on the disk or in the memory of the processes: fitted from blocks, with checkpointing, read at
label words (at the end and at a mask), decomposed piece by piece, trained on two tasks and combined, and whole on every
process."""

# Four processes on what a group decides or divides beyond rows, which tests of rows compare in four: how large batches
# are, where texts end, and pieces of a kernel.
SIZES = {kind: (2, 4) if kind in ("qwen2", "gpt2") else (2,) for kind in SWEEPS}
SHARDED = [(kind, size) for kind, sizes in SIZES.items() for size in sizes]


def model_of(kind: str, folder: Path) -> Path:
    if kind == "minilm":
        return demo_model()
    return save_tiny(kind, folder / kind, masked=kind == "roberta")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    """By model and processes, one for the whole model: the specs of finished sweeps; nobody changes their results."""
    folder, specs = tmp_path_factory.mktemp("sweeps"), dict[tuple[str, int], Path]()
    for kind, changes in SWEEPS.items():
        model = model_of(kind, folder)
        whole = {key: value for key, value in changes.items() if not key.startswith("sharding.")}
        for size in (1, *SIZES[kind]):
            settings = whole if size == 1 else {"sharding": {"group_size": size}} | changes
            specs[kind, size] = make_sweep(folder / f"{kind} {size}", FLOAT32 | settings, model=model)
            write_data(specs[kind, size].parent / "data.parquet", n=90)
            write_data(specs[kind, size].parent / "films.parquet", n=90, seed=1)
    for size in (2, 4):
        of_size = [specs[kind, each] for kind, each in SHARDED if each == size]
        assert run_forked_group(size, run_sweeps, of_size) == [[]] * size
    for kind in SWEEPS:
        assert not run_spec(specs[kind, 1]).report.failures
    return specs


def blocks(spec: Path) -> dict[tuple[int, str], np.ndarray]:
    """Return the tiles of all kernel blocks by number of the stage in the plan and group."""
    folder = ResultsFolder(read_spec(spec).folder)
    sweep, store = folder.existing(), folder.artifacts()
    stages = [stage for stage in make_plan(sweep, surveys(sweep, store)).stages if stage.kind == "gram"]
    tiles = [store.open("gram", stage.stage_id) for stage in stages]
    return {(number, name): np.array(tile.array(name)) for number, tile in enumerate(tiles) for name in tile.names()}


def measured(table: pa.Table) -> dict[str, np.ndarray]:
    """Return the columns that are losses, distances and norms, without those that no cell of the sweep has."""
    found = {
        name: table[name].to_pandas().to_numpy(dtype=float)
        for name in table.column_names
        if name in ("trace", "sigma_max", "objective", "prediction") or name.endswith(("loss", "distance", "norm"))
    }
    return {name: values for name, values in found.items() if not np.isnan(values).all()}


@pytest.mark.parametrize(("kind", "size"), SHARDED)
def test_kernel_blocks_are_those_of_the_whole_model(sweeps: dict[tuple[str, int], Path], kind: str, size: int):
    found, expected = blocks(sweeps[kind, size]), blocks(sweeps[kind, 1])
    assert found.keys() == expected.keys()
    for group in {name for _, name in expected}:
        of_group = {key: tile for key, tile in expected.items() if key[1] == group}
        error = sum(np.linalg.norm(found[key] - tile) ** 2 for key, tile in of_group.items())
        assert error <= LIMIT**2 * sum(np.linalg.norm(tile) ** 2 for tile in of_group.values()), group


@pytest.mark.parametrize(("kind", "size"), SHARDED)
def test_predictions_losses_and_distances_are_those_of_the_whole_model(
    sweeps: dict[tuple[str, int], Path], kind: str, size: int
):
    sharded, whole = (numbers(read_spec(sweeps[kind, each]).folder) for each in (size, 1))
    assert sharded.keys() == whole.keys()
    assert len(whole["predictions"]) > 0
    for table in ("cells", "predictions", "trajectories", "updates", "combinations"):
        found, expected = (measured(each[table]) if table in each else {} for each in (sharded, whole))
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            assert np.linalg.norm(found[name] - values) <= LIMIT * np.linalg.norm(values), (table, name)


@pytest.mark.parametrize(("kind", "size"), SHARDED)
def test_rows_are_on_the_disk_only_where_the_spec_has_them_there(
    sweeps: dict[tuple[str, int], Path], kind: str, size: int
):
    captured = (read_spec(sweeps[kind, size]).folder / "artifacts/capture").exists()
    assert captured == (SWEEPS[kind].get("compute.rows") != "resident")


def test_processes_that_hold_few_rows_at_once_forget_the_same(sweeps: dict[tuple[str, int], Path], tmp_path: Path):
    changes = {**FLOAT32, **SWEEPS["llama"], "compute.rows": "resident", "sharding": {"group_size": 2}}
    spec = make_sweep(tmp_path, changes, model=read_spec(sweeps["llama", 1]).model.path)
    write_data(spec.parent / "data.parquet", n=90)
    assert run_forked_group(2, run_sweeps_by_panels, [spec]) == [[]] * 2
    found, expected = (measured(numbers(read_spec(each).folder)["cells"]) for each in (spec, sweeps["llama", 1]))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert np.linalg.norm(found[name] - values) <= LIMIT * np.linalg.norm(values), name


def test_what_is_trained_and_combined_is_in_the_tables(sweeps: dict[tuple[str, int], Path]):
    tables = numbers(read_spec(sweeps["bert", 2]).folder)
    assert "finetune_eval_loss" in measured(tables["cells"])
    assert len(tables["combinations"]) > 0
    assert len(tables["trajectories"]) > 0
