"""Linearizations whose rows do not fit the memory are trained by products, with the numbers of the rows."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import BudgetError
from orchestrator.plan.estimate import refuse_what_cannot_fit
from orchestrator.plan.plan import Plan
from orchestrator.results.tables.schema import TABLES
from orchestrator.stages.finetune import FINETUNE, runs_of
from orchestrator.store.stage import Stage
from orchestrator.sweep.folder import ResultsFolder
from tests.orchestrator.sweeps import groups_of, make_sweep, ntksweep, plan_of, results_of, run_spec, spec_of, survey_of

TRAINING: dict[str, Any] = {
    "learning_rate": 0.05, "epochs": 4, "batch_size": 4, "num_evaluations": 2, "kernel_examples": 0,
}  # fmt: skip


def planned(n_parameters: int = 100_000, **training: Any) -> Plan:
    survey = survey_of(groups=groups_of(2, ("query", "value"), n_parameters=n_parameters))
    return plan_of({"finetune": TRAINING | training}, survey=survey)


def linearized(plan: Plan) -> dict[tuple[str, ...], Stage]:
    return {
        tuple(run.parameters.cells.groups): stage
        for stage in plan.stages
        if stage.of is FINETUNE
        for run in runs_of(stage)
        if run.parameters.model == "linearized"
    }


def test_rows_are_held_where_they_fit_and_left_where_they_do_not():
    fits = linearized(planned(1000))
    assert all(stage.parameters.runs[0].linearization == "rows" for stage in fits.values())
    # 16 examples with 2 outputs, held twice: 61 MB for the rows of one layer, 123 MB for both; the budget is 100 MB
    mixed = linearized(planned(60_000))
    assert {len(groups): stage.parameters.runs[0].linearization for groups, stage in mixed.items()} == {
        3: "rows", 5: "products",
    }  # fmt: skip
    assert mixed["0.query", "0.value", "1.query", "1.value", "head"].parameters.runs[0].frozen_layers == 0


def test_the_spec_may_say_how():
    products = linearized(planned(1000, linearization="products"))
    assert [stage.parameters.runs[0].frozen_layers for stage in products.values()] == [0, 1, 0]
    uncached = linearized(planned(1000, linearization="products", prefix_cache=False))
    assert {stage.parameters.runs[0].frozen_layers for stage in uncached.values()} == {0}
    by_rows = linearized(planned(100_000, linearization="rows"))
    assert all(stage.parameters.runs[0].linearization == "rows" for stage in by_rows.values())
    with pytest.raises(ValueError, match="rows"):
        spec_of({"finetune": TRAINING | {"linearization": "dense"}})


def test_sharded_models_have_rows_alone(tmp_path: Path):
    sharded = {"sharding.group_size": 2, "model.dtype": "float32"}
    survey = survey_of(groups=groups_of(2, ("query", "value"), n_parameters=120_000))
    plan = plan_of({"finetune": TRAINING} | sharded, survey=survey)
    assert all(stage.parameters.runs[0].linearization == "rows" for stage in linearized(plan).values())
    with pytest.raises(BudgetError, match="unless the model is sharded"):
        refuse_what_cannot_fit(plan, ResultsFolder(tmp_path / "results"))
    with pytest.raises(ValueError, match="which DeepSpeed's ZeRO-3 cannot"):
        spec_of({"finetune": TRAINING | {"linearization": "products"}} | sharded)
    spec_of({"finetune": TRAINING | {"linearization": "products"}, "sharding.stage": 0} | sharded)


def test_only_the_stages_of_linearizations_by_products_are_other_stages():
    default, asked = planned(1000), planned(1000, linearization="products")
    same, others = ({stage.stage_id for stage in plan.stages} for plan in (default, asked))
    changed = [stage for stage in asked.stages if stage.stage_id not in same]
    assert {stage.kind for stage in changed} == {"finetune", "compare"}
    trained = [run for stage in changed if stage.of is FINETUNE for run in runs_of(stage)]
    assert {run.parameters.model for run in trained} == {"linearized"}
    assert {stage.stage_id for stage in planned(1000, linearization="rows").stages} == same != others


def test_products_take_no_memory_for_rows_and_more_operations(tmp_path: Path):
    by_rows, products = planned(linearization="rows"), planned(linearization="products")
    with pytest.raises(BudgetError, match=r"finetune\.linearization: products"):
        refuse_what_cannot_fit(by_rows, ResultsFolder(tmp_path / "results"))
    refuse_what_cannot_fit(products, ResultsFolder(tmp_path / "results"))
    for groups, stage in linearized(products).items():
        assert products.cost_of(stage).memory_bytes < by_rows.cost_of(linearized(by_rows)[groups]).memory_bytes / 2
    small = planned(10, linearization="products")
    (nonlinear,) = {
        small.cost_of(stage).model_flops
        for stage in small.stages
        if stage.kind == "finetune"
        and stage.parameters.runs[0].model == "nonlinear"
        and not stage.parameters.runs[0].frozen_layers
    }
    both_layers = linearized(small)["0.query", "0.value", "1.query", "1.value", "head"]
    # Training takes 1.5 times as much, for two cells and the graph they share, and an evaluation twice as much.
    assert 1.5 * nonlinear < small.cost_of(both_layers).model_flops < 2 * nonlinear


@pytest.mark.parametrize("change", [{}, {"kernel.outputs": "margin", "head.in_kernel": False}], ids=["full", "margin"])
def test_tables_are_those_of_rows(change: dict[str, Any], tmp_path: Path, tiny_model: Path):
    found = []
    for way in ("rows", "products"):
        settings = TRAINING | {"linearization": way}
        spec = make_sweep(tmp_path / way, {"finetune": settings} | change, model=tiny_model)
        assert not run_spec(spec).report.failures
        found.append(results_of(spec))
    for name in ("cells", "trajectories", "updates"):
        kept = [column.name for column in TABLES[name].columns if not column.provenance]
        for one, other in zip(*(each.table(name).to_arrow(kept).to_pylist() for each in found), strict=True):
            for column in kept:
                same = one[column] == other[column]
                assert same or one[column] == pytest.approx(other[column], rel=1e-6, abs=1e-9), column


def test_a_plan_says_which_linearizations_have_no_rows(tmp_path: Path, tiny_model: Path):
    fits = make_sweep(tmp_path / "fits", {"finetune": TRAINING}, model=tiny_model)
    assert "products" not in ntksweep("plan", fits).output
    budget = {"finetune": TRAINING, "adapter.kind": "none", "compute.memory_budget": "450kB"}
    tight = make_sweep(tmp_path / "tight", budget, model=tiny_model)
    answer = ntksweep("plan", tight)
    assert answer.status == 0, answer.errors
    said = " ".join(answer.output.split())
    assert "1 of 3 linearizations are trained by products with the Jacobian, for their rows do not fit" in said
