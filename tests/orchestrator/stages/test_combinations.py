"""Combinations of weights trained on two tasks: the numbers of plain forwards, in a table, planned with the rest."""

import copy
import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetune.data.targets import code_targets
from finetune.errors import CombinationError
from finetune.scorers import build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from orchestrator.errors import ResultsError, SpecError
from orchestrator.plan.plan import Plan, make_plan
from orchestrator.spec import read_spec
from orchestrator.stages.combine.compute import check_same_start
from orchestrator.stages.combine.planning import Combination
from orchestrator.stages.context.tokenized import read_tokens
from orchestrator.store.artifacts import Artifact
from orchestrator.sweep.folder import ResultsFolder
from tests.orchestrator.sweeps import (
    make_sweep,
    ntksweep,
    plan_of,
    results_of,
    run_spec,
    spec_of,
    survey_of,
    sweep_of,
    write_data,
    write_spec,
)

TRAINING: dict[str, Any] = {
    "learning_rate": 0.05, "epochs": 3, "batch_size": 4, "num_evaluations": 1, "stacked_cells": 2, "kernel_examples": 0,
    "combinations": {"coefficients": [0.25, 1.0]},
}  # fmt: skip
TASKS = {"films": {"data": "films.parquet"}, "books": {"data": "data.parquet"}}
CHANGES: dict[str, Any] = {
    "task.data": None, "grid.tasks": TASKS, "finetune": TRAINING,
    "grid.layer_sets": [{"layers": [[1]]}, "all_layers"],
}  # fmt: skip


def sweep(folder: Path, model: Path, **changes: Any) -> Path:
    spec = make_sweep(folder, CHANGES | changes, model=model)
    write_data(folder / "films.parquet", seed=1)
    return spec


@pytest.fixture(scope="module")
def combined(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The spec of a finished sweep with two tasks and their combinations; nobody changes its results."""
    spec = sweep(tmp_path_factory.mktemp("combined"), tiny_model)
    assert not run_spec(spec).report.failures
    return spec


# --- numbers


class Reference:
    """One task of a sweep: outputs of any weights by plain forwards, one example at a time."""

    def __init__(self, spec: Path, plan: Plan, position: int) -> None:
        self.spec = read_spec(spec)
        store = ResultsFolder(self.spec.folder).artifacts()
        solves = plan.solves_of(position)
        (dataset,) = solves[0].stage.inputs["dataset"]
        self.labels = np.array(store.open(*dataset).array("eval.labels"))
        self.tokens = read_tokens(store.open(*dataset), "eval", 0, len(self.labels))
        self.targets = code_targets(self.labels, kind="classification", n_outputs=2, outputs="full").reshape(-1, 2)
        self.captured = [
            store.open(stage.kind, stage.stage_id)
            for stage in plan.stages
            if stage.kind == "capture" and stage.parameters.split == "eval" and dataset in stage.needs()
        ]
        self.pretrained = build_scorer(
            ModelSettings(self.spec.model.path, dtype="float64"),
            AdapterSettings(**self.spec.adapter.model_dump(exclude={"seed"})),
            HeadSettings("random"), n_outputs=2, adapter_seed=0, head_seed=0,
        )  # fmt: skip
        self.start = self.outputs({})
        self.trained: dict[str, dict[str, Artifact]] = {}
        for place, comparison in ((solve, each) for solve in solves for each in solve.comparisons):
            name = place.layer_sets[comparison.layer_set].name
            both = {role: comparison.stage.inputs[role][0] for role in ("trained", "linearized")}
            self.trained[name] = {role: store.open(*each) for role, each in both.items()}

    def displacement(self, layer_set: str, role: str, cell: int) -> dict[str, torch.Tensor]:
        artifact, prefix = self.trained[layer_set][role], f"0.{cell}."
        names = [name for name in artifact.names() if name.startswith(prefix)]
        return {name.removeprefix(prefix): torch.from_numpy(np.array(artifact.array(name))) for name in names}

    @torch.no_grad()
    def outputs(self, change: dict[str, torch.Tensor]) -> np.ndarray:
        scorer = copy.deepcopy(self.pretrained)
        for linears in scorer.trained.values():
            for linear in linears:
                for part, parameter in linear.named_parameters():
                    parameter.add_(change.get(f"{linear.name}.{part}", torch.zeros(())))
        return np.concatenate([scorer.logits(self.tokens.batch([i])).numpy() for i in range(len(self.labels))])

    def linearized(self, groups: list[str], change: dict[str, torch.Tensor]) -> np.ndarray:
        scores = np.concatenate([shard.array("scores") for shard in self.captured])
        moved = np.zeros(scores.size)
        for group in groups:
            flat = np.concatenate([
                change[f"{linear.name}.{part}"].flatten().numpy()
                for linear in self.pretrained.groups[group]
                for part, _ in linear.named_parameters()
            ])  # fmt: skip
            moved += np.concatenate([shard.array(group) for shard in self.captured]) @ flat
        return scores + moved.reshape(scores.shape)

    def loss(self, outputs: np.ndarray) -> float:
        return float(((outputs - self.targets) ** 2).sum() / (2 * len(outputs)))


def weighted(first: Any, second: Any, u: float, v: float) -> dict[str, torch.Tensor]:
    return {name: u * tensor + v * second[name] for name, tensor in first.items()}


def test_every_combination_has_the_numbers_of_a_model_with_its_weights(combined: Path):
    plan = run_spec(combined).plan
    tasks = {name: Reference(combined, plan, position) for position, name in enumerate(TASKS)}
    groups = {layer_set.name: list(layer_set.groups) for layer_set in plan.variants[0].layer_sets}
    rows = results_of(combined).combinations.to_arrow().to_pylist()
    of_a = {"interpolation": lambda a: 1 - a, "addition": lambda a: a, "negation": lambda a: -a}
    of_b = {"interpolation": lambda a: a, "addition": lambda a: a, "negation": lambda a: 0.0}
    # layer sets x lambdas x tasks to evaluate x coefficients x (interpolation, addition, two negations)
    assert len(rows) == 2 * 2 * 2 * 2 * 4
    ends = {
        (where, name, cell, task): where.outputs(task.displacement(name, "trained", cell))
        for where, name, cell, task in product(tasks.values(), groups, range(2), tasks.values())
    }
    for row in rows:
        a, b, where = (tasks[row[name]] for name in ("task_a", "task_b", "eval_task"))
        u, v = (of[row["operation"]](row["coefficient"]) for of in (of_a, of_b))
        name, cell = row["layer_set"], [0.01, 1.0].index(row["lambda_given"])
        first, second = (task.displacement(name, "trained", cell) for task in (a, b))
        f = where.outputs(weighted(first, second, u, v))
        assert row["finetune_eval_loss"] == pytest.approx(where.loss(f), rel=1e-9)
        assert row["finetune_eval_accuracy"] == np.mean(f.argmax(axis=1) == where.labels)
        f_0, f_a, f_b = where.start, ends[where, name, cell, a], ends[where, name, cell, b]
        expected = f_0 + u * (f_a - f_0) + v * (f_b - f_0)
        gap = np.linalg.norm(f - expected) / np.linalg.norm(f)
        assert row["linearity_gap"] == pytest.approx(gap, rel=1e-6, abs=1e-12)
        linear = weighted(*(task.displacement(name, "linearized", cell) for task in (a, b)), u, v)
        f_lin = where.linearized(groups[name], linear)
        assert row["linearized_eval_loss"] == pytest.approx(where.loss(f_lin), rel=1e-9)
        assert row["linearized_eval_accuracy"] == np.mean(f_lin.argmax(axis=1) == where.labels)


def test_an_interpolation_that_ends_at_a_task_is_its_cell(combined: Path):
    cells = {
        (row["task"], row["layer_set"], row["lambda_given"]): row
        for row in results_of(combined).cells.to_arrow().to_pylist()
    }
    table = results_of(combined).combinations.to_arrow().to_pylist()
    ends = [row for row in table if row["operation"] == "interpolation" and row["coefficient"] == 1]
    own = [row for row in ends if row["eval_task"] == row["task_b"]]
    assert len(own) == 4
    for row in own:
        cell = cells[row["task_b"], row["layer_set"], row["lambda_given"]]
        for column in ("finetune_eval_loss", "linearized_eval_loss", "finetune_eval_f1", "linearized_eval_mcc"):
            assert row[column] == pytest.approx(cell[column], rel=1e-9), column
        assert row["linearity_gap"] == pytest.approx(0, abs=1e-12)


def test_each_task_is_negated_once(combined: Path):
    rows = results_of(combined).combinations.to_arrow().to_pylist()
    negated = {(row["task_a"], row["task_b"]) for row in rows if row["operation"] == "negation"}
    others = {(row["task_a"], row["task_b"]) for row in rows if row["operation"] != "negation"}
    assert negated == {("films", "books"), ("books", "films")}
    assert others == {("films", "books")}


# --- plan


def test_combinations_join_a_finished_sweep_and_leave_it(tmp_path: Path, tiny_model: Path, combined: Path):
    without = TRAINING | {"combinations": None}
    spec = sweep(tmp_path, tiny_model, finetune=without)
    first = run_spec(spec)
    with pytest.raises(ResultsError, match=r"give the spec `finetune\.combinations` and at least two tasks"):
        results_of(spec).table("combinations")
    write_spec(tmp_path, {"model.path": str(tiny_model)} | CHANGES)
    index = json.loads(ntksweep("status", spec.parent / "results", "--json").output)
    assert index["complete"]
    ending = run_spec(spec)
    assert {stage.kind for stage in ending.plan.stages if stage not in first.plan.stages} == {"combine"}
    assert ending.report.computed == len(ending.plan.filled_by(Combination)) == 2
    assert results_of(spec).combinations.to_arrow().equals(results_of(combined).combinations.to_arrow())
    write_spec(tmp_path, {"model.path": str(tiny_model)} | CHANGES | {"finetune": without})
    assert run_spec(spec).report.computed == 0


def test_a_combination_that_is_lost_is_missing_and_computed_again(tmp_path: Path, tiny_model: Path):
    spec = sweep(tmp_path, tiny_model)
    ending = run_spec(spec)
    folder = ResultsFolder(read_spec(spec).folder)
    folder.artifacts().record_path("combine", ending.plan.filled_by(Combination)[0].stage.stage_id).unlink()
    (folder.tables / "manifest.json").unlink()
    status = json.loads(ntksweep("status", folder.root, "--json").output)
    assert [kind["missing"] for kind in status["kinds"] if kind["kind"] == "combine"] == [1]
    assert not status["complete"]
    assert run_spec(spec).report.computed == 1
    assert json.loads(ntksweep("status", folder.root, "--verify", "--json").output)["complete"]


def test_only_tasks_of_one_rank_and_learning_rate_are_combined():
    axes = {"grid.ranks": [1, 2], "grid.learning_rates": [0.01, 0.1], "grid.seeds": [0, 1]}
    asked = sweep_of(CHANGES | axes, sources=None)
    sources = asked.sources
    named = type(sources)(sources.model, sources.data, dict.fromkeys(TASKS, sources.data))
    plan = make_plan(type(asked)(asked.spec, named), [survey_of()] * 8)
    pairs = {
        tuple(plan.variants[position].choice for position in (each.variant, each.other_variant))
        for each in plan.filled_by(Combination)
    }
    assert len(pairs) == 4
    assert all((a.rank, a.learning_rate) == (b.rank, b.learning_rate) and a.task != b.task for a, b in pairs)
    assert len(plan.filled_by(Combination)) == 4 * 2 * 2  # seeds x layer sets
    assert len({each.stage.stage_id for each in plan.filled_by(Combination)}) == len(plan.filled_by(Combination))


def test_the_cost_of_combinations_is_told_before(tmp_path: Path, tiny_model: Path):
    planned = ntksweep("plan", sweep(tmp_path, tiny_model))
    assert planned.status == 0
    (line,) = [line for line in planned.output.splitlines() if line.startswith("combine")]
    assert "-" not in line.split()


# --- bad input


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"grid.tasks": None, "task.data": "d"}, "name at least two in grid.tasks"),
        ({"head.kind": "ridge"}, "a ridge head is fitted to each task"),
        ({"finetune": TRAINING | {"combinations": {"coefficients": [2.0]}}}, "less than or equal to 1"),
        ({"finetune": TRAINING | {"combinations": {"coefficients": []}}}, "at least 1 item"),
        ({"finetune": TRAINING | {"combinations": {"operations": ["sum"]}}}, "interpolation"),
    ],
)
def test_combinations_that_cannot_be_are_refused(changes: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        spec_of(CHANGES | changes)


def test_tasks_with_other_numbers_of_classes_are_refused_by_name(tmp_path: Path, tiny_model: Path):
    spec = sweep(tmp_path, tiny_model)
    write_data(tmp_path / "films.parquet", seed=1, classes=3)
    with pytest.raises(SpecError, match="films has 3 and books 2"):
        run_spec(spec)


def test_weights_of_other_starts_are_not_combined():
    same = plan_of().solves[0].stage.parameters.problem.scorer
    check_same_start(same, replace(same))
    with pytest.raises(CombinationError, match="differ in adapter_seed, n_outputs"):
        check_same_start(same, replace(same, adapter_seed=1, n_outputs=3))
    fitted = replace(same, head=replace(same.head, kind="logistic"))
    with pytest.raises(CombinationError, match="a logistic head is fitted to each task"):
        check_same_start(fitted, replace(fitted))
