"""Transfers of a batch of capture between host and device, and waits of the host for them."""

from functools import partial
from pathlib import Path

import pytest

from finetune.data.targets import kernel_outputs
from finetune.data.tokens import tokenize
from finetune.scorers import build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelDType, ModelSettings
from orchestrator.engine.executors.bundles import BundleSizes
from orchestrator.spec import read_spec
from orchestrator.stages.context.blocks import DIAGONAL, SCORES, kernel_blocks
from orchestrator.sweep.folder import ResultsFolder
from tests.devices.conftest import Pretending
from tests.devices.rows import TEXTS
from tests.devices.runs import moved_by, waited_in
from tests.faults.tables import checksums
from tests.orchestrator.sweeps import make_sweep, run_spec
from tests.pretended_device import COUNTED, WAITED_AT
from tests.tiny_models import ALL_TARGETS, FAMILIES, Kind, save_tiny

pytestmark = pytest.mark.xdist_group("pretended device")


def traffic(folder: Path, kind: Kind, dtype: ModelDType) -> tuple[dict[str, int], list[str], int]:
    """Return what was counted in the second batch of a model's, where it waited, and the bytes of rows and scores."""
    model = ModelSettings(str(folder), dtype=dtype, device="cuda")
    adapter = AdapterSettings("lora", 2, 4.0, ALL_TARGETS[kind], "random")
    scorer = build_scorer(model, adapter, HeadSettings("random"), n_outputs=2, adapter_seed=1, head_seed=2)
    batch = tokenize(model, TEXTS, template=None, max_length=32).batch(range(len(TEXTS)))
    outputs = partial(kernel_outputs, outputs="full")
    scorer.rows(batch, outputs)
    COUNTED.clear()
    WAITED_AT.clear()
    scores, rows = scorer.rows(batch, outputs)
    n_bytes = sum(values.numel() * values.element_size() for values in (scores, *rows.values()))
    return dict(COUNTED), list(WAITED_AT), n_bytes


@pytest.mark.parametrize(
    ("kind", "dtype"), [*((kind, "float32") for kind in FAMILIES), ("llama", "float64"), ("llama", "bfloat16")]
)
def test_the_host_waits_twice_a_batch_and_gets_rows_and_scores_alone(
    kind: Kind, dtype: ModelDType, pretending: Pretending, tmp_path: Path
):
    save_tiny(kind, tmp_path)
    counted, places, n_bytes = pretending(traffic, tmp_path, kind, dtype)
    assert counted["waits"] <= 2, "\n".join(places)
    assert counted["bytes to the host"] <= 1.05 * n_bytes


def test_a_step_of_training_waits_twice_however_many_cells_it_trains(
    pretending: Pretending, tmp_path: Path, tiny_model: Path
):
    training = {
        "finetune.learning_rate": 0.01,
        "finetune.num_evaluations": 1,
        "finetune.batch_size": 5,
        "compute.device": "cuda",
        "grid.layer_sets": ["all_layers"],
        "grid.lambdas.values": [0.1, 1.0, 10.0],
        "compute.shard_examples": 16,
    }
    waits = []
    for epochs in (1, 2):
        spec = make_sweep(tmp_path / str(epochs), {**training, "finetune.epochs": epochs}, model=tiny_model)
        waits.append(pretending(waited_in, spec, "finetune/training"))
    n_steps = 2
    assert len(waits[1]) - len(waits[0]) <= 2 * n_steps, "\n".join(sorted(set(waits[1])))


def decomposing(spec: Path, together: int) -> tuple[dict[str, int], dict[str, str]]:
    """Run a spec with so many stages in a bundle; return its waits and copies for decompositions, and its bits."""
    of, BundleSizes.of = BundleSizes.of, lambda self, kind: together if kind.bundled else 1  # type: ignore[method-assign]
    COUNTED.clear()
    WAITED_AT.clear()
    try:
        run_spec(spec)
    finally:
        BundleSizes.of = of  # type: ignore[method-assign]
    waits = sum("solvers/device_eigen" in place for place in WAITED_AT)
    copies = COUNTED["copies to the host"] + COUNTED["copies to the device"]
    return {"waits": waits, "copies": copies}, checksums(spec.parent / "results")


def test_a_bundle_of_stages_waits_for_its_decompositions_once_and_has_the_bits_of_single_stages(
    pretending: Pretending, tmp_path: Path, tiny_model: Path
):
    changes = {"compute.device": "cuda", "kernel.outputs": "margin", "grid.layer_sets": ["each_layer", "prefixes"]}
    found, bits = {}, {}
    for together in (1, 8):
        spec = make_sweep(tmp_path / str(together), changes, model=tiny_model)
        found[together], bits[together] = pretending(decomposing, spec, together)
    n_stages = len(list((tmp_path / "1/results/artifacts/solve").glob("*.json")))
    assert n_stages >= 3
    assert found[8]["waits"] <= 2 < 2 * n_stages <= found[1]["waits"]
    assert found[8]["copies"] <= found[1]["copies"] - 3 * (n_stages - 1)
    assert bits[8] == bits[1]


@pytest.mark.parametrize("blocks", ["groups", "atoms"])
def test_resident_rows_bring_back_blocks_diagonals_scores_and_a_flag_a_batch(
    blocks: str, pretending: Pretending, tmp_path: Path, tiny_model: Path
):
    changes = {
        "compute.device": "cuda", "compute.rows": "resident", "kernel.blocks": blocks,
        "grid.layer_sets": ["each_layer", "prefixes"], "grid.n_train": [10], "adapter.rank": 8,
        "kernel.outputs": "margin",
    }  # fmt: skip
    spec = make_sweep(tmp_path, changes, model=tiny_model)
    moved = pretending(moved_by, spec, "gram")
    results = ResultsFolder(read_spec(spec).folder)
    store = results.artifacts()
    tiles = [store.open("gram", stage_id) for stage_id in store.finished("gram")]
    blocks_bytes = sum(array.nbytes for tile in tiles for array in tile.arrays(kernel_blocks(tile)).values())
    shards = {tuple(tile.facts["rows"]): tile.array(SCORES).nbytes for tile in tiles}
    train, evaluation = 10, 6
    scores_bytes = 8 * (train + evaluation)  # the shards of both splits begin with example 0
    assert sum(shards.values()) <= scores_bytes
    own = [name for tile in tiles for name in tile.names() if name.startswith(DIAGONAL)]
    own_bytes = sum(tile.array(name).nbytes for tile in tiles for name in tile.names() if name.startswith(DIAGONAL))
    assert own_bytes == 8 * evaluation * len(kernel_blocks(tiles[0]))
    assert moved["bytes to the host"] <= blocks_bytes + own_bytes + scores_bytes + moved["batches"]
    n_blocks = sum(len(kernel_blocks(tile)) for tile in tiles)
    n_shards = 3 + 2
    n_diagonals = len(own) // len(kernel_blocks(tiles[0]))  # all blocks of a tile together
    assert moved["waits"] <= moved["batches"] + n_blocks + n_shards + n_diagonals
    assert not (results.root / "artifacts" / "capture").exists()
