"""Training where the kernel averages over outputs: what the columns mean then, and what runs say."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from finetune.scorers import build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from orchestrator.cli.notes import AVERAGED, kernel_notes, training_notes
from orchestrator.results.findings.linearity import linearity
from orchestrator.spec import read_spec
from orchestrator.stages.context.tokenized import read_tokens
from orchestrator.stages.finetune import runs_of
from orchestrator.stages.finetune.trained_cells import TrainedCells
from orchestrator.sweep.folder import ResultsFolder
from tests.orchestrator.sweeps import make_sweep, ntksweep, plan_of, results_of, run_spec
from tests.single_example import reference_rows

LAMBDA, FOLLOWED = 20.0, 3
DESCENT: dict[str, Any] = {
    "optimizer": "gradient_descent", "learning_rate": 0.14, "epochs": 60, "batch_size": 10, "num_evaluations": 1,
    "kernel_examples": FOLLOWED,
}  # fmt: skip
TRACE: dict[str, Any] = {
    "kernel.outputs": "trace", "grid.layer_sets": [{"layers": [[1]]}],
    "grid.lambdas": {"values": [LAMBDA], "scale": "absolute"}, "finetune": DESCENT,
}  # fmt: skip


@pytest.fixture(scope="module")
def averaged(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The spec of a finished sweep with one cell; nobody changes its results."""
    spec = make_sweep(tmp_path_factory.mktemp("averaged"), TRACE, model=tiny_model)
    assert not run_spec(spec).report.failures
    return spec


def artifacts_of(spec: Path, kind: str, **parameters: Any) -> list[Any]:
    store = ResultsFolder(read_spec(spec).folder).artifacts()
    found = []
    for stage in run_spec(spec).plan.stages:
        own = runs_of(stage)[0].parameters if kind == stage.kind == "finetune" else stage.parameters
        if stage.kind == kind and all(getattr(own, name) == value for name, value in parameters.items()):
            found.append(store.open(kind, stage.stage_id))
    return found


def test_the_linearization_ends_at_the_ridge_solution_of_all_outputs(averaged: Path):
    (cell,) = results_of(averaged).cells.to_arrow().to_pylist()
    (solve,) = (stage for stage in run_spec(averaged).plan.stages if stage.kind == "solve")
    (groups,) = solve.parameters.layer_sets
    shards = artifacts_of(averaged, "capture", split="train")
    J = np.concatenate([np.hstack([shard.array(group) for group in groups]) for shard in shards])
    initial = np.concatenate([shard.array("scores") for shard in shards])
    (dataset,) = artifacts_of(averaged, "dataset")
    labels = np.array(dataset.array("train.labels"))
    r = (np.where(np.arange(2) == labels[:, None], 1.0, -1.0) - initial).ravel()
    solution = np.linalg.solve(J.T @ J + LAMBDA * np.eye(J.shape[1]), J.T @ r)
    # The pull alone takes more than a quarter off every error at each step, so that 3e-9 of it is left.
    assert cell["linearized_distance"] == pytest.approx(np.linalg.norm(solution), rel=1e-7)
    loss = np.sum((J @ solution - r) ** 2) / (2 * len(labels))
    assert cell["linearized_train_loss"] == pytest.approx(loss, rel=1e-7)
    # The cell's own ridge solution is another, and its distance a norm of the averaged kernel.
    average = J.reshape(len(labels), -1) / np.sqrt(2)
    K, targets = average @ average.T, r.reshape(-1, 2)
    a = np.linalg.solve(K + LAMBDA * np.eye(len(K)), targets)
    assert cell["parameter_distance"] == pytest.approx(np.sqrt(np.trace(a.T @ K @ a)), rel=1e-9)
    assert abs(cell["train_loss"] - loss) > 2e-4 * loss
    assert abs(cell["parameter_distance"] - cell["linearized_distance"]) > 2e-4 * cell["linearized_distance"]


def test_the_kernel_that_is_followed_is_averaged_too(averaged: Path):
    (cell,) = results_of(averaged).cells.to_arrow().to_pylist()
    read = read_spec(averaged)
    (dataset,) = artifacts_of(averaged, "dataset")
    (trained,) = artifacts_of(averaged, "finetune", model="nonlinear")
    moved = TrainedCells(trained, 0).displacement(0)
    texts = read_tokens(dataset, "train", 0, FOLLOWED)
    kernels = []
    for share in (0.0, 1.0):
        scorer = build_scorer(
            ModelSettings(read.model.path, dtype="float64"),
            AdapterSettings(**read.adapter.model_dump(exclude={"seed"})),
            HeadSettings("random"), n_outputs=2, adapter_seed=0, head_seed=0,
        )  # fmt: skip
        groups = {group: linears for group, linears in scorer.trained.items() if not group.startswith("0.")}
        for linears in groups.values():
            for linear in linears:
                for part, parameter in linear.named_parameters():
                    parameter.data += share * moved[f"{linear.name}.{part}"]
        rows = reference_rows(lambda i, scorer=scorer: scorer.logits(texts.batch([i])), FOLLOWED, groups)
        kernels.append(sum(np.einsum("icp,jcp->ij", values, values) / 2 for values in map(np.asarray, rows.values())))
    first, last = kernels
    change = np.linalg.norm(last - first) / np.linalg.norm(first)
    assert change > 1e-3
    assert cell["finetune_kernel_change"] == pytest.approx(change, rel=1e-8)
    alignment = np.sum(first * last) / np.linalg.norm(first) / np.linalg.norm(last)
    assert cell["finetune_kernel_alignment"] == pytest.approx(alignment, rel=1e-10)


def test_a_report_sets_no_ridge_solution_beside_another_models_training(averaged: Path):
    (row,) = linearity(results_of(averaged).cells.to_pandas()).to_dict("records")
    assert np.isfinite(row["linearized_eval_loss"])
    assert pd.isna([row["eval_loss"], row["eval_loss_low"], row["eval_accuracy"]]).all()


def test_plan_and_run_say_what_the_columns_are_not(averaged: Path):
    for command in ("plan", "run"):
        said = " ".join(ntksweep(command, averaged).output.split())
        assert AVERAGED in said
        assert "kernel.outputs: trace: parameter_distance is a norm in the kernel's space" in said


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"kernel.kind": "sign"}, "kernel.kind: sign"),
        ({"kernel.kind": "sign", "kernel.outputs": "trace"}, "kernel.kind: sign, kernel.outputs: trace"),
        ({"kernel.outputs": "margin"}, None),
        ({"kernel.kind": "asymmetric_sign", "kernel.outputs": "trace"}, None),
    ],
)
def test_kernels_without_parameters_of_their_own_are_named(changes: dict[str, Any], keys: str | None):
    plan = plan_of(changes)
    assert training_notes(plan) == []
    assert [note.partition(": parameter_distance")[0] for note in kernel_notes(plan)] == ([keys] if keys else [])
