"""A head that is trained although the kernel leaves it out."""

from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
import torch

from finetune.data.targets import code_targets
from finetune.scorers import build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from ntk_dist.jacobian.capture import jacobian_rows
from orchestrator.cli.notes import HEAD_OUTSIDE
from orchestrator.spec import read_spec
from orchestrator.stages.context.tokenized import read_tokens
from orchestrator.stages.finetune import runs_of
from orchestrator.store.stage import Stage
from orchestrator.sweep.folder import ResultsFolder
from tests.orchestrator.sweeps import (
    groups_of,
    make_sweep,
    ntksweep,
    plan_of,
    results_of,
    run_spec,
    spec_of,
    survey_of,
)

DESCENT: dict[str, Any] = {
    "optimizer": "gradient_descent", "learning_rate": 0.02, "epochs": 8, "batch_size": 4, "num_evaluations": 2,
    "kernel_examples": 3, "train_head": True,
}  # fmt: skip
OUTSIDE = {"head.in_kernel": False}


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The spec of a finished sweep whose head was trained outside the kernel; nobody changes its results."""
    path = make_sweep(tmp_path_factory.mktemp("beside"), {"finetune": DESCENT} | OUTSIDE, model=tiny_model)
    assert not run_spec(path).report.failures
    return path


def reference(spec: Path, groups: list[str], strength: float) -> dict[str, float]:
    """Train groups and head with torch alone, one example at a time, and return what the table should say."""
    read = read_spec(spec)
    (stage,) = [stage for stage in run_spec(spec).plan.stages if stage.kind == "dataset"]
    dataset = ResultsFolder(read.folder).artifacts().open("dataset", stage.stage_id)
    scorer = build_scorer(
        ModelSettings(read.model.path, dtype="float64"),
        AdapterSettings(**read.adapter.model_dump(exclude={"seed"})),
        HeadSettings("random", in_kernel=False), n_outputs=2, adapter_seed=0, head_seed=0,
    )  # fmt: skip
    labels = dataset.array("train.labels")
    tokens = read_tokens(dataset, "train", 0, len(labels))
    coded = code_targets(labels, kind="classification", n_outputs=2, outputs="full").reshape(len(labels), 2)
    targets = torch.from_numpy(coded)

    def loss() -> torch.Tensor:
        return 0.5 * ((torch.cat([scorer.logits(tokens.batch([i])) for i in range(len(tokens))]) - targets) ** 2).sum()

    head = [scorer.final.weight, scorer.final.bias]

    def kernel() -> torch.Tensor:
        batch = tokens.batch(range(DESCENT["kernel_examples"]))
        _, rows = jacobian_rows(lambda: scorer.logits(batch), {group: scorer.trained[group] for group in groups})
        return sum(values.flatten(0, 1) @ values.flatten(0, 1).T for values in rows.values())

    first = kernel()
    parameters = head + [p for group in groups for linear in scorer.trained[group] for p in linear.parameters]
    start = [parameter.detach().clone() for parameter in parameters]
    for parameter in parameters:
        parameter.requires_grad_()
    optimizer = torch.optim.SGD(parameters, lr=DESCENT["learning_rate"])
    for _ in range(DESCENT["epochs"]):
        optimizer.zero_grad()
        squares = sum(((p - p0) ** 2).sum() for p, p0 in zip(parameters, start, strict=True))
        ((loss() + strength / 2 * squares) / len(labels)).backward()
        optimizer.step()
    with torch.no_grad():
        squares = [float(((p - p0) ** 2).sum()) for p, p0 in zip(parameters, start, strict=True)]
        return {
            "finetune_distance": sum(squares) ** 0.5,
            "finetune_train_loss": float(loss()) / len(labels),
            "finetune_kernel_change": float((kernel() - first).norm() / first.norm()),
            "head_moved": sum(squares[:2]) ** 0.5,
        }


def test_the_head_is_trained_as_plain_autograd_trains_it_and_the_linearization_lacks_it(beside: Path):
    groups = {layer_set.name: list(layer_set.groups) for layer_set in run_spec(beside).plan.variants[0].layer_sets}
    assert not any("head" in names for names in groups.values())
    moved = {row["cell_id"]: row for row in results_of(beside).updates.to_arrow().to_pylist() if row["group"] == "head"}
    rows = results_of(beside).cells.to_arrow().to_pylist()
    for row in rows:
        expected = reference(beside, groups[row["layer_set"]], row["lambda"])
        for column in ("finetune_distance", "finetune_train_loss", "finetune_kernel_change"):
            assert row[column] == pytest.approx(expected[column], rel=1e-8), column
        assert row["finetune_distance"] <= row["finetune_distance_bound"]
        head = moved[row["cell_id"]]
        assert head["finetune_update_norm"] == pytest.approx(expected["head_moved"], rel=1e-8)
        assert head["linearized_update_norm"] == 0
        assert head["weight_norm"] > 0
    assert len(moved) == len(rows)
    assert {row["head_trained"] for row in rows} == {True}
    assert {row["head_in_kernel"] for row in rows} == {False}


def test_kernel_and_linearization_are_those_of_a_head_that_stays(beside: Path, tmp_path: Path, tiny_model: Path):
    still = make_sweep(tmp_path, {"finetune": DESCENT | {"train_head": None}} | OUTSIDE, model=tiny_model)
    run_spec(still)
    with_head, without = (results_of(spec).cells.to_arrow() for spec in (beside, still))
    for column in ("cell_id", "trace", "lambda", "eval_loss", "linearized_train_loss", "linearized_distance"):
        assert with_head[column].equals(without[column]), column
    assert not pc.any(pc.equal(with_head["finetune_train_loss"], without["finetune_train_loss"])).as_py()
    assert set(without["head_trained"].to_pylist()) == {False}


def test_the_column_is_empty_where_nothing_is_trained(finished: Path):
    assert set(results_of(finished).cells.to_arrow()["head_trained"].to_pylist()) == {None}


def model_of(stage: Stage) -> str | None:
    return str(runs_of(stage)[0].parameters.model) if stage.kind == "finetune" else None


def test_stages_change_only_where_the_head_is_trained_outside_the_kernel():
    def ids(in_kernel: bool, **training: Any) -> set[str]:
        survey = survey_of(groups=groups_of(2, ("query", "value"), head=in_kernel))
        settings = {key: value for key, value in (DESCENT | training).items() if key != "train_head" or key in training}
        plan = plan_of({"finetune": settings, "head.in_kernel": in_kernel}, survey=survey)
        return {(stage.kind, model_of(stage), stage.stage_id) for stage in plan.stages}

    assert ids(True) == ids(True, train_head=None) == ids(True, train_head=True)
    assert ids(False) == ids(False, train_head=False)
    changed = ids(False, train_head=True) - ids(False)
    assert {each[:2] for each in changed} == {("finetune", "nonlinear"), ("compare", None)}


def test_the_heads_weights_are_counted():
    survey = survey_of(groups=groups_of(2, ("query", "value"), head=False))
    plans = [plan_of({"finetune": DESCENT | {"train_head": way}} | OUTSIDE, survey=survey) for way in (False, True)]
    without, with_head = (
        max(plan.cost_of(stage).memory_bytes for stage in plan.stages if model_of(stage) == "nonlinear")
        for plan in plans
    )
    # two cells: displacement, gradient, two moments and what is kept of a dense layer of 16 and two outputs
    assert with_head - without == 5 * 2 * (16 * 17 + 17 * 2) * 8


def test_plan_and_run_say_it(beside: Path, finished: Path):
    for command in ("plan", "run"):
        assert HEAD_OUTSIDE in " ".join(ntksweep(command, beside).output.split())
        assert HEAD_OUTSIDE not in " ".join(ntksweep(command, finished).output.split())


@pytest.mark.parametrize(
    ("training", "changes", "said"),
    [
        ({"train_head": False}, {}, "head.in_kernel: false too"),
        (
            {"train_head": True},
            {"head": {"kind": "label_words", "words": ["bad", "good"], "in_kernel": False}},
            "no head to train",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(training: dict[str, Any], changes: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        spec_of({"finetune": DESCENT | training} | changes)
