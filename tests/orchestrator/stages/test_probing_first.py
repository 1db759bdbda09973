"""Linear probing, then fine-tuning: the probe is fitted, rows are captured there, and training goes on from there."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.data.targets import code_targets
from finetune.scorers import build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from orchestrator.spec import read_spec
from orchestrator.stages.context.tokenized import read_tokens
from orchestrator.sweep.folder import ResultsFolder
from tests.orchestrator.sweeps import make_sweep, plan_of, results_of, run_spec, write_data
from tests.tiny_models import WORDS

TRAINING = {"learning_rate": 0.01, "epochs": 4, "batch_size": 4, "num_evaluations": 1, "kernel_examples": 4}


@pytest.mark.parametrize("kind", ["ridge", "logistic"])
def test_training_begins_at_the_probe_and_changes_it(kind: Any, tmp_path: Path, tiny_model: Path):
    head = {"kind": kind, "in_kernel": True, "l2_penalty": 0.1}
    spec = make_sweep(
        tmp_path, {"head": head, "finetune": TRAINING, "grid.layer_sets": ["all_layers"]}, model=tiny_model
    )
    ending = run_spec(spec)
    assert not ending.report.failures
    probed = losses_of_the_probe(spec, kind)
    start = [row for row in results_of(spec).trajectories.to_arrow().to_pylist() if row["step"] == 0]
    for row in start:
        for split, loss in probed.items():
            assert row[f"finetune_{split}_loss"] == pytest.approx(loss, rel=1e-9)
            assert row[f"linearized_{split}_loss"] == pytest.approx(loss, rel=1e-9)
    for row in results_of(spec).cells.to_arrow().to_pylist():
        assert row["initial_train_loss"] == pytest.approx(probed["train"], rel=1e-9)
        assert row["finetune_train_loss"] < probed["train"]
        assert row["feature_share_train"] > 0
    moved = {row["group"]: row["finetune_update_norm"] for row in results_of(spec).updates.to_arrow().to_pylist()}
    assert moved["head"] > 0


def losses_of_the_probe(spec: Path, kind: Any) -> dict[str, float]:
    """Return half the mean squared residual of the fitted head, one example at a time."""
    read = read_spec(spec)
    plan = run_spec(spec).plan
    stages = {stage.kind: stage.stage_id for stage in plan.stages if stage.kind in ("head", "dataset")}
    store = ResultsFolder(read.folder).artifacts()
    head, dataset = store.open("head", stages["head"]), store.open("dataset", stages["dataset"])
    scorer = build_scorer(
        ModelSettings(read.model.path, dtype="float64"),
        AdapterSettings(**read.adapter.model_dump(exclude={"seed"})),
        HeadSettings(kind), n_outputs=2, adapter_seed=0, head_seed=0,
        head_weights={name: np.array(head.array(name)) for name in ("weight", "bias")},
    )  # fmt: skip
    losses = {}
    for split in ("train", "eval"):
        labels = np.array(dataset.array(f"{split}.labels"))
        tokens = read_tokens(dataset, split, 0, len(labels))
        outputs = np.concatenate([scorer.logits(tokens.batch([i])).detach().numpy() for i in range(len(labels))])
        targets = code_targets(labels, kind="classification", n_outputs=2, outputs="full").reshape(-1, 2)
        losses[split] = float(((outputs - targets) ** 2).sum() / (2 * len(labels)))
    return losses


@pytest.mark.parametrize("outputs", ["full", "trace", "margin"])
def test_a_perfect_ridge_probe_leaves_no_residual(outputs: str, tmp_path: Path, tiny_model: Path):
    """Fewer examples than features, so that nearly no penalty leaves nearly nothing of the kernel's targets."""
    head = {"kind": "ridge", "in_kernel": False, "l2_penalty": 1e-10}
    changes = {"head": head, "kernel.outputs": outputs, "grid.layer_sets": ["all_layers"]}
    spec = make_sweep(tmp_path, changes, model=tiny_model)
    different = [f"{first} {second}" for first in WORDS[:4] for second in WORDS[:10]]
    write_data(tmp_path / "data.parquet", text=different)
    assert not run_spec(spec).report.failures
    rows = results_of(spec).cells.to_arrow().to_pylist()
    assert all(row["initial_train_loss"] < 1e-6 for row in rows)


def test_the_margin_alone_changes_what_a_ridge_probe_is_fitted_to():
    heads = {
        (kind, outputs): next(
            stage.stage_id
            for stage in plan_of({"head": {"kind": kind}, "kernel.outputs": outputs}).stages
            if stage.kind == "head"
        )
        for kind in ("ridge", "logistic")
        for outputs in ("full", "trace", "margin")
    }
    assert heads["ridge", "full"] == heads["ridge", "trace"] != heads["ridge", "margin"]
    assert heads["logistic", "full"] == heads["logistic", "trace"] == heads["logistic", "margin"]
