"""Rows that stay in memory: the bits of stored ones, whatever a worker holds, and no row on the disk."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.engine.run import Ending
from orchestrator.errors import SpecError
from orchestrator.spec import read_spec
from orchestrator.stages.capture import compute as capture
from orchestrator.stages.gram import shards
from orchestrator.stages.gram.shards import HeldShards
from orchestrator.store.batched import BatchedRows
from orchestrator.store.journal import read_journals
from orchestrator.sweep import passes
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.residency import RowsPlace
from orchestrator.sweep.variant import Variant
from tests.faults.tables import assert_same_tables, checksums, numbers
from tests.orchestrator.sweeps import groups_of, make_sweep, plan_of, run_spec, survey_of
from tests.tiny_models import save_tiny

SWEEP: dict[str, Any] = {
    "compute.rows": "auto",
    "grid.layer_sets": ["each_layer", "prefixes", "suffixes"],
    "grid.seeds": [0, 1],
    "grid.n_train": [6, 14],
    "adapter.rank": 4,
    "kernel.eigenvectors": True,
}
"""Four training shards and two of evaluation; sets of two training-set sizes."""

MANY = survey_of(groups=groups_of(2, ("query", "value"), n_parameters=10_000))
"""Facts of a model with more parameters than kernels have rows."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("bert", tmp_path_factory.mktemp("deep") / "model", layers=4, hidden=32)


def swept(folder: Path, model: Path, changes: dict[str, Any]) -> tuple[Ending, Path]:
    spec = make_sweep(folder, SWEEP | changes, model=model)
    return run_spec(spec), read_spec(spec).folder


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """Results of a sweep whose rows go to the disk."""
    return swept(tmp_path_factory.mktemp("stored"), model, {"compute.rows": "stored"})[1]


def counted(results: Path) -> Counter[str]:
    return Counter(event["kind"] for event in read_journals(results / "journal") if event["event"] == "finished")


@pytest.mark.parametrize("panel", [1, 2, 3, 100])
def test_bits_are_those_of_stored_rows_however_many_are_held(
    panel: int, stored: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Variant, "rows_place", RowsPlace(True, panel, "of a test"))
    captured: Counter[str] = Counter()
    resident_rows = capture.resident_rows

    def counting(stage: Any, work: Any) -> Any:
        captured[stage.stage_id] += 1
        return resident_rows(stage, work)

    monkeypatch.setattr(capture, "resident_rows", counting)
    _, results = swept(tmp_path, model, {})
    assert_same_tables(results, numbers(stored))
    assert "capture" not in counted(results)
    assert not (results / "artifacts" / "capture").exists()
    tiles = {name: value for name, value in checksums(results).items() if name.startswith("gram/")}
    assert tiles == {name: value for name, value in checksums(stored).items() if name.startswith("gram/")}
    # Two seeds; a band of panels captures its own shards, those after them, and the evaluation shards.
    train, evaluation = 4, 2
    assert sum(captured.values()) == 2 * sum(train - start + evaluation for start in range(0, train, panel))


@pytest.mark.parametrize(
    "changes",
    [
        {"kernel.kind": "asymmetric_sign", "kernel.eigenvectors": False},
        {"kernel.outputs": "trace", "kernel.kind": "sign"},
        {"kernel.outputs": "margin", "kernel.decomposition": "iterative", "kernel.eigenvectors": False},
        {"head.kind": "ridge", "head.in_kernel": True},
        {"model.dtype": "float32", "compute.gram_dtype": "float32", "compute.batching": "alone"},
        {"kernel.additions": True},
    ],
    ids=["asymmetric", "signs", "iterative", "head", "alone", "additions"],
)
def test_every_kind_of_kernel_has_the_same_bits(changes: dict[str, Any], model: Path, tmp_path: Path):
    some = {"grid.seeds": [0], "grid.n_train": [14]} | changes
    _, on_disk = swept(tmp_path / "stored", model, some | {"compute.rows": "stored"})
    _, in_memory = swept(tmp_path / "resident", model, some | {"compute.rows": "resident"})
    assert_same_tables(in_memory, numbers(on_disk))


def test_blocks_of_atoms_give_the_same_numbers_from_fewer_bytes(stored: Path, model: Path, tmp_path: Path):
    changes = {"compute.rows": "resident", "kernel.blocks": "atoms"}
    _, results = swept(tmp_path, model, changes)
    assert_same_tables(results, numbers(stored))
    sizes = [sum(path.stat().st_size for path in (each / "artifacts/gram").rglob("*")) for each in (results, stored)]
    assert sizes[0] < 0.75 * sizes[1]


def test_an_atom_of_several_layers_agrees_to_rounding(model: Path, tmp_path: Path):
    some = {"grid.layer_sets": ["all_layers", {"layers": [[0, 2]]}], "grid.seeds": [0], "grid.n_train": [14]}
    tables = []
    for blocks in ("groups", "atoms"):
        _, results = swept(tmp_path / blocks, model, some | {"kernel.blocks": blocks})
        tables.append(numbers(results)["cells"])
    for column in tables[0].column_names:
        values, others = (table[column].to_pylist() for table in tables)
        if isinstance(values[0], float):
            np.testing.assert_allclose(values, others, rtol=1e-9, atol=1e-12, err_msg=column)
        else:
            assert values == others


def test_stages_that_share_a_panel_are_together_and_name_what_they_need(model: Path, tmp_path: Path):
    plan = plan_of({"compute.rows": "resident", "grid.n_train": [14], "adapter.rank": 64})
    tiles = [stage for stage in plan.stages if stage.kind == "gram"]
    assert {stage.kind for stage in plan.stages} == {"dataset", "batching", "gram", "solve"}
    assert len({stage.together.key for stage in tiles if stage.together}) == 1
    for tile in tiles:
        assert {kind for kind, _ in tile.needs()} == {"dataset", "batching"}
        assert {stage.ref for stage in tile.within} == {*tile.inputs["left"], *tile.inputs["right"]}


def test_identities_do_not_depend_on_where_rows_are():
    plans = [plan_of({"compute.rows": rows}, survey=MANY) for rows in ("resident", "stored")]
    resident, stored = ({stage.stage_id for stage in plan.stages if stage.kind != "capture"} for plan in plans)
    assert resident == stored
    assert plans[0].plan_id == plans[1].plan_id


def test_what_reads_rows_has_them_on_the_disk():
    training = {"finetune.learning_rate": 0.1, "finetune.epochs": 1}
    for changes in (training, {"grid.n_train": [10_000]}):
        place = plan_of(changes).variants[0].rows_place
        assert not place.resident
        with pytest.raises(SpecError, match=r"compute\.rows: resident leaves no rows on the disk"):
            plan_of(changes | {"compute.rows": "resident"})


def test_auto_stores_rows_where_workers_would_wait_for_one():
    large = replace(MANY, model=replace(MANY.model, linear_parameters=10**9))
    few = {"compute.rows": "auto", "compute.executor": "ray", "compute.workers": 8, "compute.memory_budget": "2GB"}
    assert not plan_of(few, survey=large).variants[0].rows_place.resident
    assert plan_of(few | {"grid.seeds": list(range(8))}, survey=large).variants[0].rows_place.resident


def test_a_tile_that_runs_out_of_memory_is_made_again_from_two_shards_and_smaller_batches(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    some = {"compute.rows": "resident", "grid.seeds": [0], "grid.n_train": [14]}
    _, expected = swept(tmp_path / "whole", model, some)
    resident_rows, held = capture.resident_rows, []

    def full(stage: Any, work: Any) -> Any:
        if not work.halvings and stage.parameters.start == 8:
            raise MemoryError("no room")
        held.append((work.halvings, len(work.shared(HeldShards).held)))
        return resident_rows(stage, work)

    monkeypatch.setattr(capture, "resident_rows", full)
    _, results = swept(tmp_path / "less", model, some)
    assert max(count for halvings, count in held if halvings) <= 1
    columns = [numbers(folder)["cells"]["eval_loss"].to_numpy() for folder in (results, expected)]
    np.testing.assert_allclose(columns[0], columns[1], rtol=1e-10)


@pytest.mark.parametrize("panel", [1, 2, 100])
def test_the_plan_counts_what_is_captured(panel: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Variant, "rows_place", RowsPlace(True, panel, "of a test"))
    plan = plan_of({"grid.n_train": [16], "task.n_eval": 8}, survey=MANY)
    variant = plan.variants[0]
    tiles = [stage for stage in plan.stages if stage.kind == "gram"]
    products = 2.0 * (4 * 2) ** 2 * variant.sizes.n_parameters * len(tiles)
    captured = 4 * sum(4 - start + 2 for start in range(0, 4, panel))
    assert sum(plan.cost_of(tile).flops for tile in tiles) == pytest.approx(
        products + passes.rows(variant, captured, variant.sizes.groups).flops
    )


def rows_read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Return a counter that is filled from now on with the bytes of stored rows that are read, by `read`."""
    found: Counter[str] = Counter()
    read = BatchedRows.read

    def reading(rows: BatchedRows, out: Any, columns: slice = slice(None)) -> None:
        found["read"] += out.size * rows.dtype.itemsize
        read(rows, out, columns)

    monkeypatch.setattr(BatchedRows, "read", reading)
    return found


def stored_bytes(results: Path) -> int:
    store = ResultsFolder(results).artifacts()
    shards = [store.open("capture", stage_id) for stage_id in store.finished("capture")]
    return sum(shard.array(name).nbytes for shard in shards for name in shard.names())


STORED: dict[str, Any] = {"compute.rows": "stored", "grid.seeds": [0], "grid.n_train": [30], "adapter.rank": 16}
"""Eight training shards and two of evaluation."""


def test_stored_rows_are_read_once_or_panel_by_panel_with_the_same_bits(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A panel has one shard less than are held: it, and those after it, are read once in a pass."""
    found = rows_read(monkeypatch)
    ending, expected = swept(tmp_path / "all", model, STORED)
    stored = stored_bytes(expected)
    read = found["read"] - stored  # this test has read them once
    assert read == pytest.approx(stored, rel=0.01)
    tiles = [stage for stage in ending.plan.stages if stage.kind == "gram"]
    assert len(tiles) == 8 * 9 // 2 + 2 * 8
    assert sum(ending.plan.cost_of(tile).read_bytes for tile in tiles) == pytest.approx(read, rel=0.3)
    largest = max(path.stat().st_size for path in (expected / "artifacts/capture").glob("*.safetensors"))
    for held, times in ((2, 8.8), (3, 2.8), (5, 1.6)):
        # a tile that takes all of the budget but for so many shards
        monkeypatch.setattr(shards, "making_bytes", lambda *_, held=held: 10**8 - held * largest)
        monkeypatch.setattr(Variant, "rows_place", RowsPlace(False, held - 1, "of a test"))
        found.clear()
        _, results = swept(tmp_path / str(held), model, STORED)
        assert found["read"] <= 1.02 * times * stored
        assert checksums(results) == checksums(expected)
