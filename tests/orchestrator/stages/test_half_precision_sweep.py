"""Sweeps of models in half precision, and of models that a configuration alone describes."""

from pathlib import Path
from typing import Any

import pytest

from finetune.parallel.process_group import ProcessGroup
from orchestrator.spec import read_spec
from orchestrator.stages.context.work import Work
from orchestrator.stages.context.worker_state import WorkerState
from orchestrator.stages.precision import compute as precision
from orchestrator.sweep.folder import ResultsFolder
from tests.orchestrator.sweeps import make_sweep, results_of, run_spec


def test_what_half_precision_costs_stands_beside_what_it_gave(tmp_path: Path):
    half = make_sweep(tmp_path / "half", {"model.dtype": "bfloat16"})
    single = make_sweep(tmp_path / "single", {"model.dtype": "float32"}, model=tmp_path / "half/model")
    for spec in (half, single):
        assert not run_spec(spec).report.failures
    cells, reference = results_of(half).cells.to_pandas(), results_of(single).cells.to_pandas()
    assert cells["dtype"].unique() == ["bfloat16"]
    assert (cells["row_precision_error"] > 1e-3).all()
    assert (cells["row_precision_error"] < 0.05).all()
    # the whole kernel of all groups, which is that of the last layer set
    errors = (cells["trace"] - reference["trace"]).abs() / reference["trace"]
    assert (errors < 3 * cells["kernel_precision_error"]).all()
    assert reference["row_precision_error"].isna().all()
    assert (cells["noise_floor"] > reference["noise_floor"]).all()


class OneOfTwo(ProcessGroup):
    """A process of a group of two that hears of itself alone."""

    def gathered(self, value: Any) -> list[Any]:
        return [value]


def test_a_group_samples_each_example_once(tmp_path: Path, tiny_model: Path):
    """Two processes have one batch between them: one runs it for the other's sake, and it counts once."""
    one_batch = {"model.dtype": "bfloat16", "compute.shard_examples": 32}
    spec = read_spec(make_sweep(tmp_path, one_batch, model=tiny_model))
    plan = run_spec(tmp_path / "sweep.yaml").plan
    (stage,) = (stage for stage in plan.stages if stage.kind == "precision")
    state = WorkerState(plan.sweep, ResultsFolder(spec.folder))
    alone = precision.compute(stage, Work(state)).facts
    found = []
    for rank in (0, 1):
        found.append(precision.compute(stage, Work(state, process_group=OneOfTwo(rank, 2))).facts)
    assert [facts["n_examples"] for facts in (alone, *found)] == [8, 8, 0]
    assert found[0] == alone
    assert set(found[1]["groups"]) == set(alone["groups"])


def test_rows_may_be_stored_in_half_the_space(tmp_path: Path):
    small = make_sweep(tmp_path / "small", {"model.dtype": "float32", "compute.row_dtype": "float16"})
    usual = make_sweep(tmp_path / "usual", {"model.dtype": "float32"}, model=tmp_path / "small/model")
    for spec in (small, usual):
        assert not run_spec(spec).report.failures
    sizes = [
        sum(path.stat().st_size for path in (spec.parent / "results/artifacts/capture").glob("*.safetensors"))
        for spec in (small, usual)
    ]
    assert sizes[0] < 0.7 * sizes[1]
    losses = [results_of(spec).cells.to_pandas()["eval_loss"].to_numpy() for spec in (small, usual)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_a_model_without_weights_is_drawn_from_its_configuration(tmp_path: Path):
    first = make_sweep(tmp_path / "first", {"model.weights": "random"})
    for weights in (tmp_path / "first/model").glob("*.safetensors"):
        weights.unlink()
    second = make_sweep(
        tmp_path / "second", {"model.weights": "random", "model.weights_seed": 1}, model=tmp_path / "first/model"
    )
    for spec in (first, second):
        assert not run_spec(spec).report.failures
    losses = [results_of(spec).cells.to_pandas()["eval_loss"].tolist() for spec in (first, second)]
    assert losses[0] != losses[1]
