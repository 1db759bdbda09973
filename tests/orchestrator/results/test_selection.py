"""Choosing layer sets before training: rankings, greedy selection from stored blocks, baselines, and the command."""

import json
import math
import shutil
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModel

from finetune.analysis.weight_condition import weight_condition_numbers
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from orchestrator.errors import ResultsError, SpecError
from orchestrator.plan.plan import make_plan
from orchestrator.results.loading import load
from orchestrator.results.selection import baselines
from orchestrator.results.selection.baselines import (
    ILL_CONDITIONED,
    LAST,
    RANDOM,
    RANDOM_SETS,
    WELL_CONDITIONED,
    baseline_values,
    random_sets,
    weight_conditions,
)
from orchestrator.results.selection.criteria import CRITERIA, Criterion, criterion_named
from orchestrator.results.selection.greedy import agreement, forward_selection, select_layers
from orchestrator.results.selection.ranking import rank
from orchestrator.results.selection.stored import StoredKernels, layers_of
from orchestrator.stages.base.cells import Solve
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.survey import surveys
from orchestrator.sweep.variant import Variant
from tests.orchestrator.sweeps import make_sweep, ntksweep, results_of, rewrite_table, run_spec, spec_of
from tests.tiny_models import save_tiny

LAYERS = 4
NAMES = [criterion.name for criterion in CRITERIA]
BY_NAME = {criterion.name: criterion for criterion in CRITERIA}
EVERY_SET = [set_ for size in range(1, LAYERS + 1) for set_ in combinations(range(LAYERS), size)]
CHANGES = {
    "grid.layer_sets": [{"subsets": LAYERS}],
    "grid.seeds": [0, 1],
    "kernel.eigenvectors": True,
    # beyond the parameters of no set, so that every kernel is solved from blocks
    "adapter.rank": 3,
}


@pytest.fixture(scope="module")
def deep_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("bert", tmp_path_factory.mktemp("deep") / "model", layers=LAYERS, hidden=8)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, deep_model: Path) -> Path:
    """The spec of a finished sweep over every set of four layers; nobody changes its results."""
    path = make_sweep(tmp_path_factory.mktemp("swept"), CHANGES, model=deep_model)
    run_spec(path)
    return path


def folder_of(spec: Path) -> ResultsFolder:
    return ResultsFolder(spec.parent / "results")


def variant_in(folder: ResultsFolder) -> tuple[Variant, tuple[Solve, ...]]:
    """Return the only variant of a sweep and the stages that fill its cells."""
    sweep = folder.existing()
    plan = make_plan(sweep, surveys(sweep, folder.artifacts()))
    (variant,) = plan.variants
    return variant, plan.solves


def kernels_of(spec: Path, seed: int) -> StoredKernels:
    return StoredKernels(*variant_in(folder_of(spec)), folder_of(spec), seed)


def with_cells(spec: Path, tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Path:
    """Return a copy of a results folder whose table of cells was changed."""
    shutil.copytree(folder_of(spec).root, tmp_path / "results")
    (part,) = (tmp_path / "results" / "tables" / "cells").iterdir()
    table = pq.read_table(part)
    changed = pa.Table.from_pandas(change(table.to_pandas()), schema=table.schema, preserve_index=False)
    rewrite_table(tmp_path / "results", "cells", changed)
    return tmp_path / "results"


def best_in_cells(cells: pd.DataFrame, layers: tuple[int, ...], seed: int, criterion: Criterion) -> float:
    """Return the criterion of a set of layers as the table has it."""
    named = [_numbers(name) == layers for name in cells["layer_set"]]
    rows = cells[np.array(named) & (cells["seed"] == seed)]
    assert len(rows) == 2
    return float(rows[criterion.column].max() if criterion.large_is_good else rows[criterion.column].min())


def _numbers(name: str) -> tuple[int, ...]:
    """Take the name of a layer set apart: `layers:0-2,5` is 0, 1, 2, 5."""
    found: list[int] = []
    for part in name.removeprefix("layers:").split(","):
        first, _, last = part.partition("-")
        found.extend(range(int(first), int(last or first) + 1))
    return tuple(found)


# --- criteria


def test_the_best_value_is_the_smallest_or_the_largest_and_never_nan():
    assert BY_NAME["gcv"].best([3.0, math.nan, 2.0]) == 2.0
    assert BY_NAME["alignment"].best([3.0, math.nan, 2.0]) == 3.0
    assert math.isnan(BY_NAME["gcv"].best([math.nan, math.nan]))


def test_condition_numbers_are_averaged_by_factors_and_other_numbers_by_differences():
    assert BY_NAME["condition_relative"].mean([1.0, 100.0]) == pytest.approx(10.0)
    assert BY_NAME["condition_fixed"].mean([2.0, math.inf]) == math.inf
    assert BY_NAME["effective_rank"].mean([1.0, 100.0]) == 50.5


def test_a_better_value_is_less_bad_and_nan_is_worst():
    small, large = BY_NAME["gcv"], BY_NAME["alignment"]
    assert sorted([math.nan, 2.0, 1.0], key=small.badness)[:2] == [1.0, 2.0]
    assert sorted([math.nan, 1.0, 2.0], key=large.badness)[:2] == [2.0, 1.0]


def test_no_criterion_reads_a_trained_result():
    assert not [criterion for criterion in CRITERIA if criterion.column.startswith(("finetune", "linearized", "diff"))]


def test_an_unknown_criterion_is_told_with_the_nearest():
    with pytest.raises(SpecError, match=r"no criterion `condition_relativ`; did you mean `condition_relative`\?"):
        criterion_named("condition_relativ", spec_of())
    with pytest.raises(SpecError, match="there is no criterion `xyz`; criteria: condition_fixed, condition_relative"):
        criterion_named("xyz", spec_of())


def test_leave_one_out_needs_eigenvectors_of_a_symmetric_kernel():
    with pytest.raises(ResultsError, match=r"needs kernel\.eigenvectors: true: set it .*; take `--by gcv`"):
        criterion_named("leave_one_out", spec_of())
    with pytest.raises(ResultsError, match="asymmetric_sign kernel has no leave-one-out"):
        criterion_named("leave_one_out", spec_of({"kernel.kind": "asymmetric_sign"}))
    assert criterion_named("leave_one_out", spec_of({"kernel.eigenvectors": True})).column == "leave_one_out_loss"


# --- ranking


def test_a_ranking_has_the_values_that_one_computes_by_hand(swept: Path, tmp_path: Path):
    def change(cells: pd.DataFrame) -> pd.DataFrame:
        place = (cells["seed"], cells["lambda_given"])
        by_hand = {(0, 0.01): 5.0, (0, 1.0): 2.0, (1, 0.01): 4.0, (1, 1.0): 7.0}
        cells["gcv"] = [by_hand[key] for key in zip(*place, strict=True)]
        cells["condition_number_fixed_sigma"] = np.where(cells["seed"] == 0, 2.0, 8.0)
        special = cells["layer_set"] == "layers:2"
        cells.loc[special, "gcv"] = cells.loc[special, "gcv"] / 4
        cells.loc[special, "condition_number_fixed_sigma"] *= 3
        cells.loc[cells["layer_set"] == "layers:3", "gcv"] = math.nan
        return cells

    results = load(with_cells(swept, tmp_path, change))
    ranking = rank(results, BY_NAME["gcv"])
    # each seed takes its own best lambda: (2 + 4)/2
    best, *middle, worst = ranking.layer_sets
    assert (best.layer_set, best.value, best.lowest, best.highest) == ("layers:2", 0.75, 0.5, 1.0)
    assert [each.layer_set for each in middle[:3]] == ["layers:0", "layers:1", "layers:0-1"]  # equally good: grid order
    assert {(each.value, each.lowest, each.highest) for each in middle} == {(3.0, 2.0, 4.0)}
    assert worst.layer_set == "layers:3"
    assert math.isnan(worst.value)
    by_condition = rank(results, BY_NAME["condition_fixed"])
    assert by_condition.layer_sets[-1].layer_set == "layers:2"
    assert by_condition.layer_sets[-1].value == pytest.approx(12.0)
    assert by_condition.layer_sets[0].value == pytest.approx(4.0)


@pytest.mark.parametrize("name", NAMES)
def test_a_ranking_holds_every_layer_set_the_best_first(swept: Path, name: str):
    criterion = BY_NAME[name]
    ranking = rank(results_of(swept), criterion)
    cells = results_of(swept).cells.to_pandas()
    assert len(ranking.layer_sets) == len(EVERY_SET)
    values = [each.value for each in ranking.layer_sets]
    assert values == sorted(values, reverse=criterion.large_is_good)
    for each in ranking.layer_sets:
        of_seeds = [best_in_cells(cells, _numbers(each.layer_set), seed, criterion) for seed in (0, 1)]
        mean = math.sqrt(of_seeds[0] * of_seeds[1]) if criterion.geometric else sum(of_seeds) / 2
        assert each.value == pytest.approx(mean)
        assert (each.lowest, each.highest) == (min(of_seeds), max(of_seeds))
        assert each.n_parameters == cells[cells["layer_set"] == each.layer_set]["n_parameters"].iloc[0]


def test_a_ranking_says_what_it_rests_on(swept: Path, tmp_path: Path):
    def change(cells: pd.DataFrame) -> pd.DataFrame:
        cells["condition_number_resolved"] = ~((cells["layer_set"] == "layers:1") & (cells["seed"] == 1))
        return cells

    ranking = rank(load(with_cells(swept, tmp_path, change)), BY_NAME["condition_fixed"])
    assert (ranking.n_train, ranking.n_eval, ranking.n_seeds) == (10, 6, 2)
    assert (ranking.lambdas, ranking.lambda_scale) == ([0.01, 1.0], "trace")
    assert (ranking.n_kernels, ranking.n_unresolved) == (30, 1)
    assert ranking.unfinished == []


def test_a_ranking_is_about_the_largest_training_set(finished_regression: Path):
    ranking = rank(results_of(finished_regression), BY_NAME["gcv"])
    cells = results_of(finished_regression).cells.to_pandas()
    of_set = cells[(cells["n_train"] == 24) & (cells["layer_set"] == ranking.layer_sets[0].layer_set)]
    assert ranking.n_train == 24
    assert ranking.layer_sets[0].value == of_set["gcv"].min()


def test_layer_sets_that_are_not_finished_are_named_and_not_ranked(swept: Path, tmp_path: Path):
    def change(cells: pd.DataFrame) -> pd.DataFrame:
        return cells[~((cells["layer_set"] == "layers:1") & (cells["seed"] == 1))]

    folder = with_cells(swept, tmp_path, change)
    ranking = rank(load(folder), BY_NAME["gcv"])
    assert ranking.unfinished == ["layers:1"]
    assert "layers:1" not in [each.layer_set for each in ranking.layer_sets]
    assert "Not finished, and not ranked: layers:1" in ntksweep("select", folder).output


def test_nothing_is_ranked_where_nothing_is_finished(swept: Path, tmp_path: Path):
    folder = with_cells(swept, tmp_path, lambda cells: cells[:0])
    with pytest.raises(ResultsError, match="no layer set of the sweep is finished; `ntksweep run` goes on"):
        rank(load(folder), BY_NAME["gcv"])


# --- greedy


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


@pytest.mark.parametrize(("kind", "what"), [
    ("gram", "part of the kernel blocks of layers 0-3"), ("capture", "outputs before training"), ("dataset", "labels"),
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


# --- baselines


def test_random_sets_are_all_sets_or_ten_that_never_change():
    assert random_sets(range(4), 2) == list(combinations(range(4), 2))
    drawn = random_sets(range(12), 3)
    assert drawn == random_sets(range(12), 3)
    assert len(set(drawn)) == RANDOM_SETS
    assert all(len(set(layers)) == 3 and set(layers) <= set(range(12)) for layers in drawn)
    assert drawn != list(combinations(range(12), 3))[:RANDOM_SETS]


@pytest.mark.parametrize("name", ["gcv", "alignment", "condition_relative"])
def test_baselines_are_the_cells_of_the_sets_that_they_stand_for(swept: Path, name: str):
    criterion, cells = BY_NAME[name], results_of(swept).cells.to_pandas()
    weights = {0: 5.0, 1: 1.0, 2: math.inf, 3: 2.0}

    def cell(*layers: int) -> float:
        return best_in_cells(cells, layers, 1, criterion)

    found = baseline_values(kernels_of(swept, 1), criterion, 2, weights)
    assert found[LAST] == cell(2, 3)
    assert found[WELL_CONDITIONED] == cell(1, 3)
    assert found[ILL_CONDITIONED] == cell(0, 2)
    assert found[RANDOM] == pytest.approx(criterion.mean([cell(*layers) for layers in combinations(range(4), 2)]))
    assert list(baseline_values(kernels_of(swept, 1), criterion, 2, {})) == [RANDOM, LAST]


def test_weights_have_the_condition_numbers_of_their_singular_values(deep_model: Path):
    found = weight_condition_numbers(
        ModelSettings(str(deep_model)), AdapterSettings("lora", 2, 4.0, ("query", "output.dense")),
        HeadSettings("random"), n_outputs=2,
    )  # fmt: skip
    modules = dict(AutoModel.from_pretrained(deep_model).named_modules())
    assert len(found) == 3 * LAYERS  # output.dense names two modules of a layer
    for group, path in {
        "2.query": "encoder.layer.2.attention.self.query",
        "3.output.dense": "encoder.layer.3.output.dense",
    }.items():
        weight = modules[path].weight.detach().numpy().astype(np.float64)
        assert found[group] == pytest.approx(np.linalg.cond(weight), rel=1e-9)


def test_singular_weights_have_an_infinite_condition_number(tmp_path: Path):
    model = save_tiny("bert", tmp_path / "model", layers=1, hidden=8)
    loaded = AutoModel.from_pretrained(model)
    with torch.no_grad():
        loaded.encoder.layer[0].attention.self.query.weight[:] = torch.diag(torch.arange(8.0))
    loaded.save_pretrained(model)
    found = weight_condition_numbers(
        ModelSettings(str(model)), AdapterSettings("none", 1, 1.0, ("query",)), HeadSettings("random"), n_outputs=2
    )
    assert found == {"0.query": math.inf}


def test_the_weights_of_a_layer_are_averaged_by_factors(swept: Path, monkeypatch: pytest.MonkeyPatch):
    def made_up(*_: Any, **__: Any) -> dict[str, float]:
        return {f"{layer}.{target}": (layer + 1) * factor for layer in range(4) for target, factor in
                (("query", 1.0), ("value", 100.0))}  # fmt: skip

    monkeypatch.setattr(baselines, "weight_condition_numbers", made_up)
    variant, solves = variant_in(folder_of(swept))
    weights, why = weight_conditions(variant, layers_of(variant, solves))
    assert weights == pytest.approx({0: 10.0, 1: 20.0, 2: 30.0, 3: 40.0})
    assert why == ""


def test_without_its_model_a_sweep_has_the_other_baselines(tmp_path: Path):
    spec = make_sweep(tmp_path, {"grid.layer_sets": ["each_layer", "all_layers"]})
    run_spec(spec)
    model = tmp_path / "model"
    model.rename(tmp_path / "moved")
    gone = ntksweep("select", spec, "--greedy", "1")
    assert gone.status == 0
    assert "No baselines by the condition number of weights: the model of the stored sweep is no longer at" in " ".join(
        gone.output.split()
    )
    save_tiny("bert", model, seed=9)
    changed = json.loads(ntksweep("select", spec, "--greedy", "1", "--json").output)["greedy"]
    assert list(changed["seeds"][0]["steps"][0]["baselines"]) == [RANDOM, LAST]
    assert "is no longer the one that the sweep was run with" in changed["without_weights"]


# --- the command


def test_select_prints_the_ranking_and_what_it_rests_on(swept: Path):
    answer = ntksweep("select", swept)
    assert answer.status == 0
    text = " ".join(answer.output.split())
    assert "Layer sets by gcv, smallest first (mean over 2 seeds)" in text
    assert "gcv: generalized cross-validation" in text
    assert "its best of 2 lambdas, 0.01 to 1, in units of trace/M" in text
    assert "rests on 10 training examples and 2 seeds" in text
    assert "noise floor" not in text
    names = [line.split()[0] for line in answer.output.splitlines() if line.startswith("layers:")]
    assert names == [each.layer_set for each in rank(results_of(swept), BY_NAME["gcv"]).layer_sets]


def test_select_says_what_belongs_to_the_criterion(swept: Path, tmp_path: Path):
    def change(cells: pd.DataFrame) -> pd.DataFrame:
        cells["condition_number_resolved"] = cells["layer_set"] != "layers:1"
        return cells

    resolved = " ".join(ntksweep("select", swept, "--by", "condition_fixed").output.split())
    assert "(geometric mean over 2 seeds)" in resolved
    assert "noise floor" not in resolved
    assert "lambdas" not in resolved
    folder = with_cells(swept, tmp_path, change)
    noise = " ".join(ntksweep("select", folder, "--by", "condition_fixed").output.split())
    assert "2 of 30 kernels have a smallest eigenvalue below the noise floor (condition_number_resolved is" in noise
    assert "noise floor" not in ntksweep("select", folder, "--by", "alignment").output
    assert "largest first" in ntksweep("select", swept, "--by", "effective_rank").output
    assert "10 training and 6 evaluation examples" in " ".join(
        ntksweep("select", swept, "--by", "eval_loss").output.split()
    )


def test_select_warns_of_gcv_where_texts_repeat(swept: Path, tmp_path: Path):
    def change(cells: pd.DataFrame) -> pd.DataFrame:
        cells["repeats_in_train"] = np.where(cells["seed"] == 1, 3, 0)
        return cells

    said = "3 training examples of a seed repeat an earlier text"
    folder = with_cells(swept, tmp_path, change)
    assert said in " ".join(ntksweep("select", folder).output.split())
    assert said not in " ".join(ntksweep("select", folder, "--by", "leave_one_out").output.split())
    assert "repeat an earlier text" not in ntksweep("select", swept).output


def test_select_shows_greedy_steps_beside_baselines(swept: Path):
    answer = ntksweep("select", folder_of(swept).root, "--by", "alignment", "--greedy", "2")
    assert answer.status == 0
    folder = folder_of(swept)
    selection = select_layers(*variant_in(folder), folder, BY_NAME["alignment"], 2)
    lines = answer.output.splitlines()
    for step in selection.seeds[0].steps:
        assert any(line.startswith(f"+ layer {step.layer} ") and f"{step.value:.4g}" in line for line in lines)
    for each in selection.seeds:
        layers = ", ".join(str(step.layer) for step in each.steps)
        assert f"seed {each.seed} chose {layers} with {each.steps[-1].value:.4g}" in answer.output
    assert f"{selection.agreement[-1]} of 2" in answer.output


def test_the_json_of_select_has_all_of_it(swept: Path):
    facts = json.loads(ntksweep("select", swept, "--by", "gcv", "--greedy", "2", "--json").output)
    assert facts["criterion"]["column"] == "gcv"
    assert len(facts["layer_sets"]) == len(EVERY_SET)
    assert set(facts["layer_sets"][0]) == {"layer_set", "value", "lowest", "highest", "n_parameters"}
    first = facts["greedy"]["seeds"][0]
    assert [len(each["steps"]) for each in facts["greedy"]["seeds"]] == [2, 2]
    assert set(first["steps"][0]["baselines"]) == {RANDOM, LAST, WELL_CONDITIONED, ILL_CONDITIONED}
    assert "greedy" not in json.loads(ntksweep("select", swept, "--json").output)


def test_the_help_of_select_names_every_criterion():
    text = " ".join(ntksweep("select", "--help").output.replace("│", " ").split())
    assert all(name in text for name in NAMES)


def test_select_explains_wrong_input(swept: Path, finished_regression: Path, tmp_path: Path):
    answer = ntksweep("select", swept, "--by", "gvc")
    assert (answer.status, answer.output) == (2, "")
    assert "there is no criterion `gvc`; did you mean `gcv`?" in answer.errors
    assert "needs kernel.eigenvectors" in ntksweep("select", finished_regression, "--by", "leave_one_out").errors
    assert "--greedy 9: the sweep's layer sets touch 4 layers" in ntksweep("select", swept, "--greedy", "9").errors
    assert "there are no results at" in ntksweep("select", tmp_path / "none").errors
