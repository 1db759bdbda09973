"""Seeds and learning rates that are trained side by side: the same numbers, planned within memory, through a kill."""

from pathlib import Path
from typing import Any

import pytest

from finetune.training import loop
from orchestrator.plan.plan import Plan
from orchestrator.results.tables.schema import TABLES
from orchestrator.spec import read_spec
from orchestrator.stages.finetune import FINETUNE, runs_of
from orchestrator.store import checkpoints
from orchestrator.store.stage import Part
from orchestrator.sweep.folder import ResultsFolder
from tests.faults.tables import assert_same_tables, numbers
from tests.orchestrator.sweeps import (
    make_sweep,
    ntksweep,
    plan_of,
    results_of,
    run_spec,
    write_data,
)

TRAINING: dict[str, Any] = {
    "learning_rate": 0.05, "epochs": 3, "batch_size": 4, "num_evaluations": 2, "stacked_cells": 8, "kernel_examples": 4,
}  # fmt: skip
AXES: dict[str, Any] = {
    "grid.seeds": [0, 1], "grid.learning_rates": [0.01, 0.05], "grid.layer_sets": [{"layers": [[1]]}],
    "adapter.initialization": "random",
}  # fmt: skip
BOTH = TRAINING | {"stacked_across": ["learning_rates", "seeds"]}


def sweep(folder: Path, model: Path, settings: dict[str, Any], **changes: Any) -> Path:
    return make_sweep(folder, {"finetune": settings} | AXES | changes, model=model)


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The spec of a finished sweep of two seeds and rates, each trained by itself; nobody changes its results."""
    spec = sweep(tmp_path_factory.mktemp("apart"), tiny_model, TRAINING)
    assert not run_spec(spec).report.failures
    return spec


def assert_close(spec: Path, expected: Path, names: tuple[str, ...]) -> None:
    """Check that tables agree to rounding in everything that is not provenance."""
    for name in names:
        kept = [column.name for column in TABLES[name].columns if not column.provenance]
        tables = [results_of(each).table(name).to_arrow(kept).to_pylist() for each in (spec, expected)]
        assert tables[0]
        for found, wanted in zip(*tables, strict=True):
            for column in kept:
                same = found[column] == wanted[column]
                assert same or found[column] == pytest.approx(wanted[column], rel=1e-6, abs=1e-9), (name, column)


@pytest.mark.parametrize(
    ("across", "trained"),
    [(["learning_rates"], 2), (["seeds"], 2), (["learning_rates", "seeds"], 1)],
    ids=["rates", "seeds", "both"],
)
@pytest.mark.parametrize("head", ["random", "ridge"])
def test_cells_have_the_numbers_that_they_have_apart(
    across: list[str], trained: int, head: str, tmp_path: Path, tiny_model: Path, apart: Path
):
    changes = {"head.kind": head}
    expected = apart
    if head == "ridge":
        expected = sweep(tmp_path / "apart", tiny_model, TRAINING, **changes)
        run_spec(expected)
    spec = sweep(tmp_path / "together", tiny_model, TRAINING | {"stacked_across": across}, **changes)
    ending = run_spec(spec)
    assert not ending.report.failures
    stages = [runs_of(stage) for stage in ending.plan.stages if stage.of is FINETUNE]
    models = [runs[0].parameters.model for runs in stages]
    assert models.count("nonlinear") == trained
    assert [len(runs) for runs in stages if runs[0].parameters.model == "linearized"] == [1, 1, 1, 1]
    assert_close(spec, expected, ("cells", "trajectories", "updates"))


def test_other_seeds_have_other_numbers(apart: Path):
    """So that the test above can tell the cells of one seed from those of another."""
    cells = results_of(apart).cells.to_pandas()
    assert cells["finetune_train_loss"].nunique() == len(cells)
    assert cells["finetune_kernel_change"].nunique() == len(cells)


def test_combinations_read_stacked_cells(tmp_path: Path, tiny_model: Path):
    tasks = {"films": {"data": "films.parquet"}, "books": {"data": "data.parquet"}}
    both = {"task.data": None, "grid.tasks": tasks, "adapter.initialization": None}
    specs = []
    for settings in (TRAINING, BOTH):
        combined = settings | {"combinations": {"coefficients": [0.25]}}
        specs.append(sweep(tmp_path / str(len(specs)), tiny_model, combined, **both))
        write_data(specs[-1].parent / "films.parquet", seed=1)
        assert not run_spec(specs[-1]).report.failures
    assert_close(specs[1], specs[0], ("cells", "combinations"))


def test_a_killed_stage_goes_on_with_the_same_numbers(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(checkpoints, "SAVED_EVERY", 0.0)
    whole, killed = (sweep(tmp_path / name, tiny_model, BOTH) for name in ("whole", "killed"))
    run_spec(whole)
    batches, steps = loop.step_batches, []

    def dying(settings: Any, lengths: Any, step: int, seed: int, at_once: int) -> Any:
        steps.append(step)
        if len(steps) == 12:  # two seeds a step
            raise Killed
        return batches(settings, lengths, step, seed, at_once)

    # The linearizations follow in the plan, and are not counted.
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop, "step_batches", dying)
        run_spec(killed)
    assert len(list(ResultsFolder(read_spec(killed).folder).checkpoints.iterdir())) == 1
    assert not run_spec(killed).report.failures
    assert_same_tables(killed.parent / "results", numbers(whole.parent / "results"))
    assert list(ResultsFolder(read_spec(killed).folder).checkpoints.iterdir()) == []


class Killed(BaseException):
    """The process dies; nothing in it may tidy up."""


# --- planning


def planned(changes: dict[str, Any]) -> Plan:
    return plan_of({"grid.seeds": list(range(6)), "finetune": BOTH, "grid.layer_sets": ["all_layers"]} | changes)


def members(plan: Plan) -> list[list[int]]:
    """Return the seeds of each stage that trains several side by side."""
    return [[run.parameters.cells.seed for run in runs] for runs in trained_together(plan)]


def trained_together(plan: Plan) -> list[list[Part]]:
    """Return the runs of each stage that trains the model itself."""
    stages = [runs_of(stage) for stage in plan.stages if stage.of is FINETUNE]
    return [runs for runs in stages if runs[0].parameters.model == "nonlinear"]


def test_as_many_cells_are_stacked_as_the_spec_says():
    plan = planned({})
    assert members(plan) == [[0, 1, 2, 3], [4, 5]]  # two lambdas each
    order = [stage.stage_id for stage in plan.stages]
    for position, stage in enumerate(plan.stages):
        assert {needed for _, needed in stage.needs()} <= set(order[:position])


def test_a_run_that_has_no_one_beside_it_is_an_ordinary_stage():
    alone = planned({"grid.seeds": [0]})
    usual = planned({"grid.seeds": [0], "finetune": TRAINING})
    assert [stage.stage_id for stage in alone.stages] == [stage.stage_id for stage in usual.stages]


def test_what_does_not_fit_memory_together_is_trained_apart():
    wide = planned({})
    several = [stage for stage in wide.stages if stage.of is FINETUNE and len(runs_of(stage)) > 1]
    largest = max(wide.cost_of(stage).memory_bytes for stage in several)
    plan = planned({"compute.memory_budget": f"{largest * 0.8:.0f}B"})
    assert members(plan) == [[0, 1, 2], [3, 4, 5]]


def test_plan_and_logs_know_the_stage(tmp_path: Path, tiny_model: Path):
    spec = sweep(tmp_path, tiny_model, BOTH)
    answer = ntksweep("plan", spec)
    assert answer.status == 0
    (line,) = [line for line in answer.output.splitlines() if line.startswith("finetune")]
    assert "-" not in line.split()
    run_spec(spec)
    (cell, *_) = results_of(spec).cells.to_arrow().to_pylist()
    told = ntksweep("logs", tmp_path / "results", "--cell", cell["cell_id"]).output
    assert (
        "finished  finetune (nonlinear) of 1.query+1.value+head, 2 lambdas from 0.01, 4 seeds or learning rates" in told
    )


def test_a_misspelled_axis_names_those_that_there_are(tmp_path: Path, tiny_model: Path):
    spec = sweep(tmp_path, tiny_model, TRAINING | {"stacked_across": ["seed"]})
    answer = ntksweep("plan", spec)
    assert answer.status == 2
    assert "is not one of learning_rates, seeds; did you mean `seeds`?" in answer.errors
