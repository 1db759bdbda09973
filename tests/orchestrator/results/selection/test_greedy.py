"""Greedy selection of layers from stored blocks: the numbers of the cells, and what is said where blocks are gone."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ResultsError, SpecError
from orchestrator.results.selection.greedy import agreement, forward_selection, select_layers
from orchestrator.results.selection.stored import layers_of
from tests.orchestrator.results.selection.swept import (
    BY_NAME,
    CHANGES,
    EVERY_SET,
    LAYERS,
    NAMES,
    best_in_cells,
    folder_of,
    kernels_of,
    variant_in,
)
from tests.orchestrator.sweeps import make_sweep, ntksweep, results_of, run_spec

pytestmark = pytest.mark.xdist_group("selection")


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", NAMES)
def test_stored_blocks_give_the_numbers_of_the_cells_bit_by_bit(swept: Path, name: str, seed: int):
    kernels, cells = kernels_of(swept, seed), results_of(swept).cells.to_pandas()
    for layers in EVERY_SET:
        stored = kernels.value(kernels.of(layers), BY_NAME[name])
        assert stored == best_in_cells(cells, layers, seed, BY_NAME[name]), layers


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", NAMES)
def test_forward_selection_takes_at_every_step_the_best_set_of_the_table(swept: Path, name: str, seed: int):
    criterion, cells = BY_NAME[name], results_of(swept).cells.to_pandas()
    chosen: tuple[int, ...] = ()
    for layer, value in forward_selection(kernels_of(swept, seed), criterion, LAYERS):
        grown = [tuple(sorted((*chosen, other))) for other in range(LAYERS) if other not in chosen]
        by_set = {layers: best_in_cells(cells, layers, seed, criterion) for layers in grown}
        expected = min(by_set, key=lambda layers: criterion.badness(by_set[layers]))
        chosen = tuple(sorted((*chosen, layer)))
        assert chosen == expected
        assert value == pytest.approx(by_set[expected], rel=1e-9)


@pytest.mark.parametrize("changes", [
    {"head.in_kernel": False}, {"kernel.outputs": "trace"}, {"task.kind": "regression", "task.label": "rating"},
    {"kernel.kind": "asymmetric_sign", "kernel.eigenvectors": False}, {"kernel.eigenvectors": False},
], ids=str)  # fmt: skip
def test_other_kernels_and_tasks_have_the_numbers_of_their_cells(
    tmp_path: Path, deep_model: Path, changes: dict[str, Any]
):
    spec = make_sweep(tmp_path, CHANGES | {"grid.seeds": [3]} | changes, model=deep_model)
    run_spec(spec)
    cells = results_of(spec).cells.to_pandas()
    steps = forward_selection(kernels_of(spec, 3), BY_NAME["gcv"], 2)
    layers = tuple(sorted(layer for layer, _ in steps))
    assert steps[1][1] == pytest.approx(best_in_cells(cells, layers, 3, BY_NAME["gcv"]), rel=1e-9)


def test_a_selection_has_every_seed_and_says_how_far_they_agree(swept: Path):
    folder, criterion = folder_of(swept), BY_NAME["gcv"]
    selection = select_layers(*variant_in(folder), folder, criterion, 3)
    assert selection.layers == [0, 1, 2, 3]
    assert [each.seed for each in selection.seeds] == [0, 1]
    for each in selection.seeds:
        alone = forward_selection(kernels_of(swept, each.seed), criterion, 3)
        assert [(step.layer, step.value) for step in each.steps] == alone
    assert selection.agreement == agreement([[step.layer for step in each.steps] for each in selection.seeds])
    assert selection.without_weights == ""


def test_seeds_agree_where_they_chose_the_same_layers_in_whatever_order():
    assert agreement([[0, 1, 2], [1, 0, 3], [0, 2, 1]]) == [2, 2, 2]
    assert agreement([[4, 5]]) == [1, 1]


@pytest.mark.parametrize("size", [0, 5])
def test_there_must_be_as_many_layers_as_are_to_be_chosen(swept: Path, size: int):
    folder = folder_of(swept)
    with pytest.raises(SpecError, match="touch 4 layers; give 1 to 4"):
        select_layers(*variant_in(folder), folder, BY_NAME["gcv"], size)


# --- what is not stored


def test_blocks_of_sets_that_were_solved_without_them_are_named(tmp_path: Path, deep_model: Path):
    # a layer alone has 2 * 8 + 18 parameters or fewer than 40 rows; two of the four layers are in a larger set
    changes = {"adapter.rank": 1, "grid.n_train": [20], "grid.layer_sets": ["each_layer", {"layers": [[0, 1]]}]}
    spec = make_sweep(tmp_path, changes | {"head.in_kernel": False, "adapter.rank": 2}, model=deep_model)
    run_spec(spec)
    with pytest.raises(ResultsError) as raised:
        layers_of(*variant_in(folder_of(spec)))
    assert "the kernel blocks of all their groups are needed; not stored are 2.query, 2.value, 3.query, 3.value" in str(
        raised.value
    )
    assert "add `all_layers` to grid.layer_sets and run again" in str(raised.value)
    run_spec(make_sweep(tmp_path, changes | {
        "head.in_kernel": False, "adapter.rank": 2, "grid.layer_sets": ["each_layer", "all_layers"],
    }, model=deep_model))  # fmt: skip
    assert len(forward_selection(kernels_of(spec, 0), BY_NAME["gcv"], 1)) == 1


def test_a_sweep_without_any_block_says_what_would_give_some(tmp_path: Path, deep_model: Path):
    changes = {"adapter.rank": 1, "grid.n_train": [34], "head.in_kernel": False}
    spec = make_sweep(tmp_path, changes, model=deep_model)
    run_spec(spec)
    answer = ntksweep("select", spec, "--greedy", "1")
    assert answer.status == 2
    assert "even all layers together have fewer parameters (64) than the kernel has rows (68)" in answer.errors
    assert "lower grid.n_train, or raise adapter.rank" in answer.errors


@pytest.mark.parametrize("mended", [{"kernel.blocks": "groups"}, {"grid.layer_sets": ["all_layers", "each_layer"]}])
def test_blocks_of_several_layers_cannot_be_chosen_from(mended: dict[str, object], tmp_path: Path, deep_model: Path):
    changes = {"adapter.rank": 4, "grid.layer_sets": ["all_layers", {"layers": [[0, 1, 2]]}], "kernel.blocks": "atoms"}
    spec = make_sweep(tmp_path, changes, model=deep_model)
    run_spec(spec)
    answer = ntksweep("select", spec, "--greedy", "1")
    assert answer.status == 2
    assert "layer 0 shares a block with others: add `each_layer` to grid.layer_sets, or set" in answer.errors
    assert "kernel.blocks: groups, and run again" in answer.errors
    run_spec(make_sweep(tmp_path, changes | mended, model=deep_model))
    assert ntksweep("select", spec, "--greedy", "1").status == 0


@pytest.mark.parametrize(("kind", "what"), [
    ("gram", "part of the kernel blocks of layers 0-3"), ("dataset", "labels"),
])  # fmt: skip
@pytest.mark.parametrize("fault", ["deleted", "damaged"])
def test_what_is_gone_comes_back_by_what_the_message_says(
    swept: Path, tmp_path: Path, deep_model: Path, kind: str, what: str, fault: str
):
    folder = tmp_path / "results"
    shutil.copytree(folder_of(swept).root, folder)
    for path in (folder / "artifacts" / kind).glob("*.safetensors"):
        if fault == "deleted":
            path.unlink()
            path.with_name(path.name.split(".")[0] + ".json").unlink()
        else:
            content = path.read_bytes()
            start = 8 + int.from_bytes(content[:8], "little")  # where the header of safetensors ends
            path.write_bytes(content[:start] + bytes(byte ^ 1 for byte in content[start:]))
    answer = ntksweep("select", folder, "--greedy", "1")
    assert answer.status == 2
    assert f"({what}) is gone or damaged; to get it again, remove {folder}/artifacts/solve/" in answer.errors
    asked = ntksweep("select", swept, "--greedy", "1", "--json").output
    for path in (folder / "artifacts" / "solve").glob("*.json"):
        path.unlink()
    run_spec(make_sweep(tmp_path, CHANGES, model=deep_model))
    assert ntksweep("select", folder, "--greedy", "1", "--json").output == asked
