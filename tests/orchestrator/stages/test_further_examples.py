"""Cells are trained on more examples than the kernel has: `finetune.n_train`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from orchestrator.errors import SpecError
from orchestrator.plan.plan import Plan
from orchestrator.results.findings.linearity import linearity
from orchestrator.results.loading import Results
from orchestrator.spec import read_spec
from orchestrator.stages.finetune import FINETUNE, CellsParameters, runs_of
from orchestrator.sweep.folder import ResultsFolder
from tests.orchestrator.stages.trained_sweeps import DESCENT, TRAINING, training
from tests.orchestrator.sweeps import ntksweep, plan_of, plan_spec, results_of, run_spec, spec_of, survey_of, write_data
from tests.root import ROOT

LARGER: dict[str, Any] = TRAINING | {"n_train": 22}
PROVENANCE = ("host", "seconds", "peak_memory_bytes", "finished", "git")


def cells_of(plan: Plan) -> list[CellsParameters]:
    return [run.parameters.cells for stage in plan.stages if stage.of is FINETUNE for run in runs_of(stage)]


def numbers(results: Results, table: str = "cells") -> Any:
    frame = results.table(table).to_pandas()
    return frame[[name for name in frame.columns if name not in PROVENANCE]]


def test_as_many_as_the_kernel_has_are_the_same_stages():
    without, with_it = (plan_of({"finetune": TRAINING | key}) for key in ({}, {"n_train": 10}))
    assert [stage.stage_id for stage in without.stages] == [stage.stage_id for stage in with_it.stages]
    assert without.plan_id == with_it.plan_id
    assert all("kernel_n_train" not in str(stage.to_json()) for stage in without.stages)


def test_the_kernel_keeps_its_stages_and_training_has_further_examples():
    without, with_it = plan_of({"finetune": TRAINING}), plan_of({"finetune": LARGER})
    same = {stage.stage_id for stage in without.stages} & {stage.stage_id for stage in with_it.stages}
    new = {stage.kind for stage in with_it.stages if stage.stage_id not in same}
    assert new == {"dataset", "batching", "finetune", "compare"}
    for cells in cells_of(with_it):
        assert (cells.problem.n_train, cells.n_captured, cells.training.steps) == (22, 10, 6 * 6)
    for stage in with_it.stages:
        if stage.of is FINETUNE:
            assert {run.parameters.linearization for run in runs_of(stage)} <= {None, "products"}


def test_every_size_of_the_kernel_is_trained_on_the_same_examples():
    plan = plan_of({"finetune": LARGER, "grid.n_train": [6, 10, 22]})
    found = {(cells.problem.n_train, cells.n_captured, cells.kernel_n_train) for cells in cells_of(plan)}
    assert found == {(22, 6, 6), (22, 10, 10), (22, 22, None)}
    assert len({cells.problem.dataset for cells in cells_of(plan)}) == 1


def test_all_of_the_data_but_what_is_held_out():
    survey = survey_of(pool=50)
    held_out = plan_of({"finetune": TRAINING | {"n_train": "all"}}, survey=survey)
    assert {cells.problem.n_train for cells in cells_of(held_out)} == {44}
    own_split = plan_of({"finetune": TRAINING | {"n_train": "all"}}, survey=survey_of(pool=50, shared_pool=False))
    assert {cells.problem.n_train for cells in cells_of(own_split)} == {50}


def test_costs_are_those_of_the_larger_training():
    few, many = (plan_of({"finetune": TRAINING | {"linearization": "products", "n_train": n}}) for n in (10, 1000))
    flops = [sum(plan.cost_of(s).model_flops for s in plan.stages if s.of is FINETUNE) for plan in (few, many)]
    assert 60 < flops[1] / flops[0] < 110
    outputs = [sum(plan.cost_of(s).written_bytes for s in plan.stages if s.of is FINETUNE) for plan in (few, many)]
    assert outputs[1] > 10 * outputs[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"finetune": TRAINING | {"n_train": 9}}, "9 is less than the 10 examples of the kernel.*give 10 or more"),
        (
            {"finetune": TRAINING | {"n_train": "all"}, "task.sampling": "balanced"},
            "balanced equally many: give a number",
        ),
        ({"finetune": TRAINING | {"n_train": "most"}}, "all"),
    ],
)
def test_what_contradicts_itself_is_refused(changes: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        spec_of(changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"finetune": TRAINING | {"n_train": 45}}, "finetune.n_train 45 and task.n_eval 6 need more than the 50 "),
        ({"finetune": LARGER | {"linearization": "rows"}}, "linearization: rows needs .*22.*products"),
        (
            {"finetune": LARGER, "sharding.group_size": 2, "model.dtype": "float32"},
            "by products, which a model that is sharded",
        ),
        ({"finetune": TRAINING | {"n_train": 21}, "task.sampling": "balanced"}, "finetune.n_train: .*multiple of 2"),
    ],
)
def test_what_the_data_or_the_rows_do_not_give_is_refused_before_anything_runs(changes: dict[str, Any], said: str):
    with pytest.raises(SpecError, match=said):
        plan_of(changes, survey=survey_of(pool=50))


def test_the_command_says_it_before_anything_runs(tmp_path: Path, tiny_model: Path):
    spec = training(tmp_path, tiny_model, TRAINING | {"n_train": 9})
    answer = ntksweep("run", spec)
    assert answer.status != 0
    assert "9 is less than the 10 examples of the kernel" in " ".join(answer.errors.split())
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("head", [{}, {"head.kind": "ridge", "head.in_kernel": False}], ids=["random", "probe"])
def test_the_kernels_numbers_are_those_of_a_sweep_without_it(tmp_path: Path, tiny_model: Path, head: dict[str, Any]):
    grid = {"grid.layer_sets": ["all_layers"]} | head
    found = []
    for name, settings in (("without", TRAINING), ("with", LARGER)):
        spec = training(tmp_path / name, tiny_model, settings, **grid)
        assert not run_spec(spec).report.failures
        found.append(results_of(spec))
    without, with_it = map(numbers, found)
    kernel = [name for name in without if not name.startswith(("finetune_", "linearized_", "difference_"))]
    assert without[[k for k in kernel if k not in ("stage_id", "rank_threshold")]].equals(
        with_it[[k for k in kernel if k not in ("stage_id", "rank_threshold")]]
    )
    assert without["finetune_eval_in_train"].isna().all() and with_it["finetune_eval_in_train"].notna().all()
    assert set(without["finetune_n_train"]) == {10} and set(with_it["finetune_n_train"]) == {22}
    assert linearity(without)["eval_loss"].notna().all() and linearity(with_it)["eval_loss"].isna().all()
    said = " ".join(ntksweep("plan", spec).output.split())
    assert "finetune.n_train: cells are trained on 22 examples" in said and "fitted to the first 10" in said
    assert "do not fit compute.memory_budget" not in said


def test_training_is_that_of_a_sweep_whose_kernel_has_all_of_the_examples(tmp_path: Path, tiny_model: Path):
    """At the same absolute lambda: by the same path where only the linearization is trained in another way."""
    grid = {"grid.layer_sets": ["all_layers"], "grid.lambdas": {"values": [0.5, 5.0], "scale": "absolute"}}
    found = []
    for name, settings, n_train in (("apart", LARGER, 10), ("whole", TRAINING, 22)):
        spec = training(tmp_path / name, tiny_model, settings, **grid, **{"grid.n_train": [n_train]})
        assert not run_spec(spec).report.failures
        found.append(numbers(results_of(spec)))
    apart, whole = found
    names = [name for name in whole if name.startswith(("finetune_", "linearized_", "difference_"))]
    names = [name for name in names if whole[name].dtype.kind == "f" and not name.endswith("_in_train")]
    assert len(names) > 30
    np.testing.assert_allclose(apart[names], whole[names], rtol=1e-9, atol=1e-12)


def test_lambda_in_units_of_the_trace_takes_that_of_the_kernel(tmp_path: Path, tiny_model: Path):
    changes = {"grid.layer_sets": ["all_layers"], "grid.lambdas": {"values": [1.0], "scale": "trace"}}
    spec = training(tmp_path, tiny_model, DESCENT | {"n_train": 22}, **changes)
    assert not run_spec(spec).report.failures
    strength = numbers(results_of(spec))["lambda"][0]
    store = ResultsFolder(read_spec(spec).folder).artifacts()
    trained = [store.open(*stage.ref) for stage in plan_spec(spec).stages if stage.of is FINETUNE]
    assert len(trained) == 2
    for artifact in trained:
        assert artifact.array("0.lambda")[0] == pytest.approx(strength, rel=1e-12)


def test_the_example_runs_on_a_small_model(tmp_path: Path, tiny_model: Path):
    tree = yaml.safe_load((ROOT / "examples/small-protocol.yaml").read_text(encoding="utf-8"))
    write_data(tmp_path / "data.parquet")
    tree["model"]["path"] = str(tiny_model)
    tree["task"] |= {"data": "data.parquet", "n_eval": 5}
    tree["adapter"]["rank"] = 2
    tree["grid"] |= {"layer_sets": [{"layers": [[0], [0, 1]]}], "n_train": [8]}
    tree["finetune"] |= {"n_train": 24, "num_evaluations": 2}
    tree["finetune"]["smoothness"]["examples"] = 1
    tree["compute"] = {"executor": "inline"}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    assert not run_spec(path).report.failures
    results = results_of(path)
    cells = results.cells.to_pandas()
    assert set(cells["finetune_n_train"]) == {24} and set(cells["n_train"]) == {8}
    assert cells[["finetune_loss_rises", "finetune_distance_bound"]].notna().all(axis=None)
    assert len(results.smoothness.to_pandas()) == 2 * (4 + 2)
    added = results.additions.to_pandas()
    assert (added["ridge_form_lower"].map(len) == 2).all()
