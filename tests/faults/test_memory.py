"""No worker spends more than its budget: Jacobians that are eight times as large stream through it."""

from pathlib import Path

import pytest

from benchmarks.memory_budget import BaselineWorker, jacobian_bytes
from orchestrator.plan.plan import Plan, make_plan
from orchestrator.store.journal import read_journals
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.survey import surveys
from tests.faults.driving import call, ntksweep
from tests.orchestrator.sweeps import write_data, write_spec
from tests.tiny_models import save_tiny

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("memory")]

BUDGET = 40 * 10**6
SWEEP = {
    "model.dtype": "float32",
    "task.n_eval": 32,
    "adapter": {"kind": "none", "target_modules": ["query", "value"]},
    "head.in_kernel": False,
    "kernel.outputs": "margin",
    "grid.layer_sets": ["each_layer", "all_layers"],
    "grid.n_train": [300],
    "compute.shard_examples": 32,
    "compute.memory_budget": BUDGET,
}


def plan_of(results: Path) -> Plan:
    folder = ResultsFolder(results)
    sweep = folder.existing()
    return make_plan(sweep, surveys(sweep, folder.artifacts()))


def peak_of_the_model_alone(results: Path) -> int:
    stages = plan_of(results).stages
    dataset = next(stage for stage in stages if stage.kind == "dataset")
    return BaselineWorker(str(results)).peak(dataset, [stage for stage in stages if stage.kind == "capture"])


def test_jacobians_of_eight_budgets_stream_through_one(tmp_path: Path) -> None:
    save_tiny("bert", tmp_path / "model", layers=2, hidden=256)
    write_data(tmp_path / "data.parquet", n=340)
    answer = ntksweep("run", write_spec(tmp_path, SWEEP), folder=tmp_path)
    assert answer.status == 0, answer.output
    results = tmp_path / "results"
    assert jacobian_bytes(plan_of(results)) >= 8 * BUDGET
    model = call(peak_of_the_model_alone, results)
    peaks = {
        f"{event['kind']} {event['stage']}": (event["peak_bytes"] - model) / BUDGET
        for event in read_journals(results / "journal")
        if event["event"] == "finished"
    }
    beyond = {stage: round(peak, 2) for stage, peak in peaks.items() if peak > 1.5}
    assert not beyond, f"more than 1.5 budgets beside the model: {beyond}"
