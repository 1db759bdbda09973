"""Cells that are trained: the numbers of plain autograd, in tables, plans and through changes of mind."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from finetune.data.targets import code_targets
from finetune.scorers import build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from orchestrator.errors import ChangedError, ResultsError, SpecError
from orchestrator.results.tables.schema import TABLES, arrow_schema
from orchestrator.spec import read_spec
from orchestrator.stages.context.tokenized import read_tokens
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.on_change import OnChange
from tests.faults.tables import numbers
from tests.orchestrator.stages.trained_sweeps import DESCENT, TRAINING, training
from tests.orchestrator.sweeps import make_sweep, ntksweep, plan_of, results_of, run_spec, spec_of

# --- numbers


def reference(spec: Path, groups: list[str], strength: float) -> tuple[dict[str, float], list[float]]:
    """Train one cell with torch alone, one example at a time, and return what the tables should say.

    These are columns of `cells`, and by how much each group's weights with their adapters, merged by peft, change.
    """
    read = read_spec(spec)
    (stage,) = [stage for stage in run_spec(spec).plan.stages if stage.kind == "dataset"]
    dataset = ResultsFolder(read.folder).artifacts().open("dataset", stage.stage_id)
    scorer = build_scorer(
        ModelSettings(read.model.path, dtype="float64"),
        AdapterSettings(**read.adapter.model_dump(exclude={"seed"})),
        HeadSettings("random"), n_outputs=2, adapter_seed=0, head_seed=0,
    )  # fmt: skip
    tokens, targets = {}, {}
    for split in ("train", "eval"):
        labels = np.array(dataset.array(f"{split}.labels"))
        tokens[split] = read_tokens(dataset, split, 0, len(labels))
        coded = code_targets(labels, kind="classification", n_outputs=2, outputs="full").reshape(len(labels), 2)
        targets[split] = torch.from_numpy(coded)

    def outputs(split: str) -> torch.Tensor:
        return torch.cat([scorer.logits(tokens[split].batch([i])) for i in range(len(tokens[split]))])

    def loss(split: str) -> torch.Tensor:
        return 0.5 * ((outputs(split) - targets[split]) ** 2).sum()

    def accuracy(split: str) -> float:
        return float((outputs(split).argmax(dim=1) == targets[split].argmax(dim=1)).double().mean())

    def adapted(group: str) -> list[torch.Tensor]:
        if group == "head":
            return [parameter.detach().clone() for linear in scorer.trained[group] for parameter in linear.parameters]
        paths = sorted({linear.name.rpartition(".lora_")[0] for linear in scorer.trained[group]})
        modules = [scorer.model.get_submodule(path) for path in paths]
        return [module.get_delta_weight(*module.scaling).detach().clone() for module in modules]

    before = [adapted(group) for group in groups]

    parameters = [p for group in groups for linear in scorer.trained[group] for p in linear.parameters]
    start = [parameter.detach().clone() for parameter in parameters]
    for parameter in parameters:
        parameter.requires_grad_()
    optimizer = torch.optim.SGD(parameters, lr=DESCENT["learning_rate"])
    n = len(targets["train"])
    for _ in range(DESCENT["epochs"]):
        optimizer.zero_grad()
        squares = sum(((p - p0) ** 2).sum() for p, p0 in zip(parameters, start, strict=True))
        ((loss("train") + strength / 2 * squares) / n).backward()
        optimizer.step()
    with torch.no_grad():
        squares = sum(((p - p0) ** 2).sum() for p, p0 in zip(parameters, start, strict=True))
        return {
            "finetune_distance": float(squares) ** 0.5,
            "finetune_train_loss": float(loss("train")) / n,
            "finetune_eval_loss": float(loss("eval")) / len(targets["eval"]),
            "finetune_train_accuracy": accuracy("train"),
            "finetune_eval_accuracy": accuracy("eval"),
        }, [
            float(sum(((new - old) ** 2).sum() for new, old in zip(adapted(group), first, strict=True))) ** 0.5
            for group, first in zip(groups, before, strict=True)
        ]  # fmt: skip


def test_every_cell_is_trained_as_plain_autograd_trains_it(tmp_path: Path, tiny_model: Path):
    spec = training(tmp_path, tiny_model, DESCENT)
    ending = run_spec(spec)
    assert not ending.report.failures
    groups = {layer_set.name: list(layer_set.groups) for layer_set in ending.plan.variants[0].layer_sets}
    updates = results_of(spec).updates.to_pandas().set_index(["cell_id", "group"])["finetune_update_norm"]
    for row in results_of(spec).cells.to_arrow().to_pylist():
        columns, moved = reference(spec, groups[row["layer_set"]], row["lambda"])
        for column, expected in columns.items():
            assert row[column] == pytest.approx(expected, rel=1e-8), (row["layer_set"], column)
        assert updates[row["cell_id"]][groups[row["layer_set"]]].tolist() == pytest.approx(moved, rel=1e-8)
        assert row["finetune_status"] == row["linearized_status"] == "finished"
        assert row["finetune_steps"] == DESCENT["epochs"]
        assert row["finetune_distance"] <= row["finetune_distance_bound"]


def test_long_descent_of_the_linearization_is_the_ridge_solution_of_the_same_cell(tmp_path: Path, tiny_model: Path):
    # The pull of lambda alone takes a sixth off every error at each step, so that 1e-12 of it is left.
    settings = DESCENT | {"learning_rate": 0.2, "epochs": 150, "batch_size": 10, "kernel_examples": 0}
    spec = training(tmp_path, tiny_model, settings, **{"grid.lambdas": {"values": [1.0], "scale": "trace"}})
    run_spec(spec)
    for row in results_of(spec).cells.to_arrow().to_pylist():
        assert row["linearized_train_loss"] == pytest.approx(row["train_loss"], rel=1e-9)
        assert row["linearized_eval_loss"] == pytest.approx(row["eval_loss"], rel=1e-9)
        assert row["linearized_distance"] == pytest.approx(row["parameter_distance"], rel=1e-9)


@pytest.mark.parametrize(
    "change",
    [{"prefix_cache": False}, {"stacked_cells": 1}],
    ids=["all layers run at every step", "each lambda by itself"],
)
def test_how_cells_are_trained_together_changes_nothing_but_rounding(
    change: dict[str, Any], tmp_path: Path, tiny_model: Path, trained: Path
):
    spec = training(tmp_path, tiny_model, TRAINING | change)
    run_spec(spec)
    for name in ("cells", "trajectories", "updates"):
        kept = [column.name for column in TABLES[name].columns if not column.provenance]
        pairs = zip(*(results_of(each).table(name).to_arrow(kept).to_pylist() for each in (spec, trained)), strict=True)
        for found, expected in pairs:
            for column in kept:
                same = found[column] == expected[column]
                assert same or found[column] == pytest.approx(expected[column], rel=1e-6, abs=1e-9), column


def test_trajectories_begin_at_the_pretrained_model_and_end_at_the_cell(trained: Path):
    cells = {row["cell_id"]: row for row in results_of(trained).cells.to_arrow().to_pylist()}
    rows = results_of(trained).trajectories.to_arrow().to_pylist()
    assert len(rows) == len(cells) * (TRAINING["num_evaluations"] + 1)
    for row in rows:
        cell = cells[row["cell_id"]]
        if row["step"] == 0:
            assert row["finetune_train_loss"] == pytest.approx(cell["initial_train_loss"])
            assert row["linearized_eval_loss"] == pytest.approx(cell["initial_eval_loss"])
            assert (row["finetune_distance"], row["finetune_kernel_change"]) == (0, pytest.approx(0, abs=1e-12))
            assert row["difference_train_relative_to_change"] is None
        if row["step"] == cell["finetune_steps"]:
            for column in ("finetune_train_loss", "linearized_eval_loss", "difference_eval_kl", "finetune_distance"):
                assert row[column] == cell[column]


def test_the_bound_on_what_linearization_leaves_out_is_that_of_taylors_formula(trained: Path):
    for row in results_of(trained).cells.to_arrow().to_pylist():
        expected = row["finetune_curvature"] * row["finetune_distance"] ** 2 / 2
        assert row["finetune_linearization_bound"] == pytest.approx(expected, rel=1e-12)
        assert row["finetune_linearization_error"] > 0


def test_updates_of_groups_are_there_for_every_group_of_a_cell(trained: Path):
    groups = {row["layer_set"]: row["groups"] for row in results_of(trained).spectra.to_arrow().to_pylist()}
    rows = results_of(trained).updates.to_arrow().to_pylist()
    cells = results_of(trained).cells.to_arrow(["cell_id", "layer_set"]).to_pylist()
    assert [(row["cell_id"], row["group"]) for row in rows] == [
        (cell["cell_id"], group) for cell in cells for group in groups[cell["layer_set"]]
    ]
    assert all(row["finetune_update_norm"] > 0 and row["weight_norm"] > 0 for row in rows)


@pytest.mark.parametrize("table", ["cells", "trajectories", "updates"])
def test_files_about_training_carry_the_documented_schema(trained: Path, table: str):
    (path,) = results_of(trained).table(table).path.glob("part-*.parquet")
    assert pq.read_schema(path).equals(arrow_schema(TABLES[table]), check_metadata=True)
    rows = results_of(trained).table(table).to_arrow()
    for name in rows.column_names:
        if pa.types.is_floating(rows[name].type):
            assert not pc.any(pc.is_nan(rows[name])).as_py(), name


def test_a_sweep_without_training_says_how_to_get_its_tables(finished: Path):
    for name in ("trajectories", "updates"):
        with pytest.raises(ResultsError, match="give the spec a section `finetune`"):
            results_of(finished).table(name)


@pytest.mark.parametrize("part", ["artifacts/finetune", "artifacts/compare", "tables/trajectories", "tables/updates"])
def test_a_flipped_byte_in_what_training_left_is_found(part: str, trained: Path, tmp_path: Path):
    results = shutil.copytree(trained.parent / "results", tmp_path / "results")
    assert ntksweep("status", results, "--verify").status == 0
    for path in sorted((results / part).iterdir())[-2:]:
        content = path.read_bytes()
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        answer = ntksweep("status", results, "--verify", "--json")
        assert answer.status == 3
        assert len(json.loads(answer.output)["damaged"]) == 1
        path.write_bytes(content)


# --- plan, status, changes


def test_training_joins_a_finished_sweep_and_other_training_is_refused(tmp_path: Path, tiny_model: Path):
    spec = make_sweep(tmp_path, model=tiny_model)
    first = run_spec(spec)
    before = numbers(tmp_path / "results")
    spec = training(tmp_path, tiny_model)
    ending = run_spec(spec)
    added = [stage for stage in ending.plan.stages if stage not in first.plan.stages]
    assert {stage.kind for stage in added} == {"batching", "finetune", "compare"}
    assert ending.report.computed == len(added) == len(ending.plan.stages) - len(first.plan.stages)
    after = results_of(spec).cells.to_arrow()
    for column in ("cell_id", "train_loss", "lambda"):
        assert after[column].equals(before["cells"][column])

    training(tmp_path, tiny_model, TRAINING | {"learning_rate": 0.01})
    with pytest.raises(ChangedError, match=r"finetune\.learning_rate: 0\.05 in the folder, 0\.01 now"):
        run_spec(spec)
    again = run_spec(spec, on_change=OnChange.GIVEN)
    assert again.report.computed == len([stage for stage in added if stage.kind != "batching"])


def test_a_cell_is_finished_once_it_is_trained_and_counted_by_lambda(tmp_path: Path, tiny_model: Path):
    settings = TRAINING | {"stacked_cells": 1}
    spec = training(tmp_path, tiny_model, settings)
    ending = run_spec(spec)
    (some, *_) = ending.plan.solves[0].comparisons
    ResultsFolder(read_spec(spec).folder).artifacts().record_path("compare", some.stage.stage_id).unlink()
    answer = ntksweep("status", tmp_path / "results", "--json")
    assert answer.status == 0  # every cell is in the tables
    status = json.loads(answer.output)
    by_lambda = {row["lambda"]: (row["finished"], row["missing"]) for row in status["lambdas"]}
    assert by_lambda == {0.01: (2, 1), 1.0: (3, 0)}
    (tmp_path / "results/tables/manifest.json").unlink()
    assert ntksweep("status", tmp_path / "results").status == 3
    assert run_spec(spec).report.computed == 1


def test_what_happened_to_a_cell_tells_of_its_own_training_alone(trained: Path):
    (cell, *_) = results_of(trained).cells.to_arrow().to_pylist()
    told = ntksweep("logs", trained.parent / "results", "--cell", cell["cell_id"]).output.splitlines()
    stages = [line.split()[3] for line in told if line.split()[2] == "finished"]
    assert stages.count("finetune") == 2
    assert stages[-1] == "compare"


def test_training_is_part_of_what_a_sweep_costs(tmp_path: Path, tiny_model: Path):
    spec = training(tmp_path, tiny_model)
    planned = ntksweep("plan", spec)
    assert planned.status == 0
    (line,) = [line for line in planned.output.splitlines() if line.startswith("finetune")]
    assert "-" not in line.split()
    too_large = training(tmp_path / "large", tiny_model, **{"compute.memory_budget": "10kB"})
    refused = ntksweep("plan", too_large)
    assert refused.status == 2


def test_only_the_layers_below_the_lowest_trained_one_are_frozen():
    sets = {"grid.layer_sets": ["each_layer", {"groups": [["head"]]}]}
    plan = plan_of({"finetune": TRAINING} | sets)
    frozen = {
        run.cells.groups: run.frozen_layers
        for stage in plan.stages
        if stage.kind == "finetune"
        for run in stage.parameters.runs
        if run.model == "nonlinear"
    }
    assert frozen == {("0.query", "0.value", "head"): 0, ("1.query", "1.value", "head"): 1, ("head",): None}


@pytest.mark.parametrize(
    ("settings", "changes", "said"),
    [
        ({"loss": "cross_entropy"}, {"task.kind": "regression"}, "cross_entropy needs a classification task"),
        ({}, {"kernel.kind": "sign"}, "finetune compares training with the sgd kernel"),
        ({"regularizer": "spd"}, {}, "spd takes lambda as a share of the way back"),
        (
            {"optimizer": "gradient_descent", "gradient_accumulation_steps": 2},
            {},
            "gradient_accumulation_steps belongs to sgd and adamw",
        ),
        ({"momentum": 0.9}, {}, "`momentum` is only for `optimizer: sgd`"),
        ({"learning_rate": 0}, {}, "greater than 0"),
        ({"optim": "sgd"}, {}, "finetune.optim"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], changes: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        spec_of({"finetune": TRAINING | settings} | changes)


def test_a_misspelled_key_of_training_is_answered_with_the_nearest(tmp_path: Path, tiny_model: Path):
    spec = training(tmp_path, tiny_model, TRAINING | {"learning_rat": 0.1})
    with pytest.raises(SpecError, match="learning_rate"):
        read_spec(spec)
