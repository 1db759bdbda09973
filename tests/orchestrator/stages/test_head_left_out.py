"""GCV and leave-one-out of sweeps with a fitted head, against fitting both again without each example."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetune.data.targets import kernel_outputs
from finetune.scorers import build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from orchestrator.plan.plan import Plan
from orchestrator.spec import read_spec
from orchestrator.stages.base.cells import Solve
from orchestrator.stages.context.tokenized import read_tokens
from orchestrator.sweep.folder import ResultsFolder
from tests.finetune.analysis.probes import logistic, ridge
from tests.orchestrator.sweeps import make_sweep, ntksweep, plan_of, results_of, run_spec, write_data

PENALTY = 0.3
CHANGES: dict[str, Any] = {
    "head.kind": "ridge",
    "head.in_kernel": False,
    "head.l2_penalty": PENALTY,
    "kernel.eigenvectors": True,
    "adapter.rank": 1,
    "grid.lambdas": {"values": [0.01, 1.0, 1e12], "scale": "trace"},
    # The kernel has more rows than the set of one group has parameters, and fewer than the other.
    "grid.layer_sets": [{"groups": [["0.query"]]}, "all_layers"],
    "grid.n_train": [24],
}
LOGISTIC = {"head.kind": "logistic"}


@dataclass(frozen=True)
class Examples:
    """The problem of a stage, one example at a time: features x, labels, Jacobian rows (n, R, p) and outputs (n, C)."""

    x: np.ndarray
    labels: np.ndarray
    jacobian: np.ndarray
    logits: np.ndarray


def examples_of(spec: Path, plan: Plan, solve: Solve, groups: tuple[str, ...]) -> Examples:
    """Return all examples that the head is fitted to, in float64, each alone in its batch."""
    read = read_spec(spec)
    store = ResultsFolder(read.folder).artifacts()
    dataset = store.open(*solve.stage.inputs["dataset"][0])
    seed = solve.stage.parameters.problem.scorer.adapter_seed
    capture = next(
        stage for stage in plan.stages if stage.kind == "capture" and stage.parameters.rows.scorer.adapter_seed == seed
    )
    head = store.open(*capture.inputs["head"][0])
    labels = np.array(dataset.array("train.labels"))
    scorer = build_scorer(
        ModelSettings(read.model.path, dtype="float64"),
        AdapterSettings(**read.adapter.model_dump(exclude={"seed"})),
        HeadSettings(read.head.kind, in_kernel=read.head.in_kernel),
        n_outputs=capture.parameters.rows.scorer.n_outputs, adapter_seed=seed, head_seed=seed, groups=list(groups),
        head_weights={name: np.array(head.array(name)) for name in ("weight", "bias")},
    )  # fmt: skip
    tokens = read_tokens(dataset, "train", 0, len(labels))
    outputs = partial(kernel_outputs, outputs=read.kernel.outputs)
    batches = [tokens.batch([i]) for i in range(len(labels))]
    rows = [scorer.rows(batch, outputs=outputs, row_dtype=torch.float64)[1] for batch in batches]
    return Examples(
        np.concatenate([scorer.features(batch).numpy() for batch in batches]),
        labels,
        np.stack([np.hstack([each[group].numpy()[0] for group in groups]) for each in rows]),
        np.concatenate([scorer.logits(batch).detach().numpy() for batch in batches]),
    )


class Reference:
    """The regression of the first n examples, dense."""

    def __init__(self, spec: Path, plan: Plan, solve: Solve, groups: tuple[str, ...]) -> None:
        self.mode, self.n = read_spec(spec).kernel.outputs, solve.n_train
        self.examples = examples_of(spec, plan, solve, groups)
        J = self.examples.jacobian
        C = J.shape[1]
        if self.mode == "trace":
            self.K = np.einsum("icp,jcp->ij", J, J) / C
        else:
            self.K = J.reshape(self.n * C, -1) @ J.reshape(self.n * C, -1).T
        self.R = len(self.K) // self.n
        regression = self.examples.labels.dtype.kind == "f"
        C = self.examples.logits.shape[1]
        one_hot = None if regression else np.eye(C)[self.examples.labels]
        # What the logits aim at, so that their margin aims at 1 and -1.
        scale = 2 if self.mode == "margin" else 1
        self.t = self.examples.labels[:, None] if one_hot is None else (one_hot * C - 1) / (C - 1) / scale

    def rows(self, logits: np.ndarray) -> np.ndarray:
        """Logits (n, C) as right-hand sides of the kernel."""
        if self.mode == "margin":
            return logits[:, 1:] - logits[:, :1]
        return logits.reshape(-1, 1) if self.mode == "full" else logits

    def leave_one_out_loss(self, value: float, without: Callable[[np.ndarray], np.ndarray]) -> float:
        """Half the mean squared residual of each; `without` gives logits of the head fitted to some examples."""
        total = 0.0
        for i in range(self.n):
            r = self.residual(without, i)
            out = np.arange(i * self.R, (i + 1) * self.R)
            rest = np.setdiff1d(np.arange(len(self.K)), out)
            alpha = np.linalg.solve(self.K[np.ix_(rest, rest)] + value * np.eye(len(rest)), r[rest])
            total += np.sum((r[out] - self.K[np.ix_(out, rest)] @ alpha) ** 2)
        return total / (2 * self.n)

    @cache  # noqa: B019 -- as short-lived as the test
    def residual(self, without: Callable[[np.ndarray], np.ndarray], i: int) -> np.ndarray:
        """Return the residuals of the head when it is fitted without example i."""
        return self.rows(self.t - without(np.arange(self.n) != i))

    def ridge(self, rest: np.ndarray) -> np.ndarray:
        """Logits of a ridge head fitted to some examples."""
        x = self.examples.x
        return ridge(x[rest], self.t[rest], PENALTY, x)

    def logistic(self, rest: np.ndarray) -> np.ndarray:
        """Logits of a logistic head fitted to some examples."""
        x, C = self.examples.x, self.t.shape[1]
        return logistic(x[rest], self.examples.labels[rest], C, PENALTY, x)

    def gcv(self, value: float) -> float:
        """GCV with the matrix from labels to predictions put together."""
        x, M = self.examples.x, len(self.K)
        H = np.kron(ridge(x, np.eye(len(x)), PENALTY, x), np.eye(self.R))
        B = np.linalg.inv(self.K + value * np.eye(M))
        S = H + self.K @ B @ (np.eye(M) - H)
        r = self.rows(self.t - self.examples.logits)
        return float(np.sum((value * B @ r) ** 2) / M / (1 - np.trace(S) / M) ** 2)


def solved(spec: Path, plan: Plan) -> Iterator[tuple[Reference, dict[str, Any]]]:
    """Yield each cell of a finished sweep beside its reference."""
    rows = results_of(spec).cells.to_arrow().to_pylist()
    for solve in plan.solves:
        for layer_set in solve.layer_sets:
            reference = Reference(spec, plan, solve, layer_set.groups)
            for row in rows:
                if (row["seed"], row["n_train"], row["layer_set"]) == (solve.seed, solve.n_train, layer_set.name):
                    yield reference, row


RIDGES: dict[str, dict[str, Any]] = {
    "full": {"adapter.rank": 2},
    "trace": {"kernel.outputs": "trace", "head.in_kernel": True},
    "margin": {"kernel.outputs": "margin", "grid.seeds": [0, 1]},
    "ratings": {"task.kind": "regression", "task.label": "rating"},
}


@pytest.mark.parametrize("name", RIDGES)
def test_a_ridge_head_is_left_out_as_if_it_were_fitted_again(name: str, tmp_path: Path, tiny_model: Path):
    spec = make_sweep(tmp_path, CHANGES | RIDGES[name], model=tiny_model)
    write_data(tmp_path / "data.parquet", classes=3 if name in ("full", "trace") else 2)
    ending = run_spec(spec)
    assert not ending.report.failures
    methods = {solve.stage.parameters.method for solve in ending.plan.solves}
    assert methods == ({"dual"} if name == "trace" else {"dual", "primal"})
    for reference, row in solved(spec, ending.plan):
        expected = reference.leave_one_out_loss(row["lambda"], reference.ridge)
        assert row["leave_one_out_loss"] == pytest.approx(expected, rel=1e-9)
        assert row["gcv"] == pytest.approx(reference.gcv(row["lambda"]), rel=1e-9)
        assert row["missing_estimates"] == "log_evidence: a fitted head has seen the labels"
        assert row["log_evidence"] is None
        if row["lambda_given"] == 1e12:  # nothing but the head is left
            R = reference.R
            left = [reference.residual(reference.ridge, i)[i * R : (i + 1) * R] for i in range(reference.n)]
            own = np.sum(np.square(left)) / (2 * reference.n)
            assert row["leave_one_out_loss"] == pytest.approx(own, rel=1e-9)


def test_a_logistic_head_is_fitted_again_and_has_no_gcv(tmp_path: Path, tiny_model: Path):
    spec = make_sweep(tmp_path, CHANGES | LOGISTIC, model=tiny_model)
    write_data(tmp_path / "data.parquet", classes=3)
    ending = run_spec(spec)
    assert not ending.report.failures
    for reference, row in solved(spec, ending.plan):
        expected = reference.leave_one_out_loss(row["lambda"], reference.logistic)
        assert row["leave_one_out_loss"] == pytest.approx(expected, rel=1e-8)
        assert row["gcv"] is None
        assert row["missing_estimates"].startswith("gcv: a logistic head is not linear in the labels")
    # Nobody said by what to rank, and the usual criterion is empty.
    assert "Layer sets by leave_one_out, smallest first" in ntksweep("select", spec.parent / "results").output
    by_gcv = ntksweep("select", spec.parent / "results", "--by", "gcv").errors
    assert "gcv is empty in this sweep, for a logistic head is not linear" in by_gcv
    assert "take `--by leave_one_out`" in by_gcv


def test_a_class_with_one_example_cannot_be_left_out(tmp_path: Path, tiny_model: Path):
    spec = make_sweep(tmp_path, CHANGES | LOGISTIC | {"grid.n_train": [34]}, model=tiny_model)
    write_data(tmp_path / "data.parquet", label=[0] + [1 + i % 2 for i in range(39)])
    assert not run_spec(spec).report.failures
    why = "leave_one_out_loss: class 0 has one training example, without which the probe cannot be fitted"
    for row in results_of(spec).cells.to_arrow().to_pylist():
        assert row["leave_one_out_loss"] is None
        assert row["missing_estimates"].endswith(why)
    assert why in " ".join(ntksweep("select", spec.parent / "results").errors.split())


def test_a_sweep_goes_on_with_the_same_numbers(tmp_path: Path, tiny_model: Path):
    """Greedy selection, layers added later and a solve stage that is lost need what the head was fitted with."""
    spec = make_sweep(tmp_path, CHANGES | {"grid.layer_sets": ["all_layers"]}, model=tiny_model)
    run_spec(spec)
    (before,) = {tuple(results_of(spec).cells.to_arrow()[name].to_pylist()) for name in ("leave_one_out_loss",)}
    folder = ResultsFolder(read_spec(spec).folder)
    for path in (folder.root / "artifacts" / "solve").iterdir():
        path.unlink()
    run_spec(spec)
    assert tuple(results_of(spec).cells.to_arrow()["leave_one_out_loss"].to_pylist()) == before
    for by in ("leave_one_out", "gcv"):
        answer = ntksweep("select", folder.root, "--by", by, "--greedy", "2")
        column = results_of(spec).cells.to_arrow()["leave_one_out_loss" if by == "leave_one_out" else by].to_pylist()
        assert f"with {min(column):.4g}" in answer.output


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"head.kind": "random", "kernel.eigenvectors": True}, None),
        ({"head.kind": "pretrained", "kernel.eigenvectors": True}, None),
        ({"head": {"kind": "label_words", "words": ["a", "b"], "in_kernel": False}, "kernel.eigenvectors": True}, None),
        ({"head.kind": "ridge"}, "head"),
        ({"head.kind": "ridge", "kernel.eigenvectors": True}, "head"),
        ({"head.kind": "ridge", "kernel.kind": "asymmetric_sign"}, None),
        ({"head.kind": "ridge", "kernel.decomposition": "iterative"}, None),
        ({"head.kind": "logistic"}, None),
        ({"head.kind": "logistic", "kernel.eigenvectors": True}, "head_refits"),
        ({"head.kind": "logistic", "kernel.eigenvectors": True, "grid.seeds": [0, 1]}, "head_refits"),
    ],
)
def test_the_head_is_fitted_again_once_a_seed_where_somebody_asks(changes: dict[str, Any], kind: str | None):
    plan = plan_of(changes)
    duals = [solve.stage for solve in plan.solves if solve.stage.parameters.method == "dual"]
    assert duals
    assert {dict(stage.inputs).get("left_out", ((None, ""),))[0][0] for stage in duals} == {kind}
    refits = [stage for stage in plan.stages if stage.kind == "head_refits"]
    assert len(refits) == (len(plan.sweep.spec.grid.seeds) if kind == "head_refits" else 0)


def test_plan_and_run_say_which_estimates_a_fitted_head_leaves_empty(tmp_path: Path, tiny_model: Path):
    spec = make_sweep(tmp_path, LOGISTIC | {"grid.layer_sets": ["all_layers"]}, model=tiny_model)
    said = (
        "head.kind: logistic: gcv is empty, for a logistic head is not linear in the labels that it is fitted to; so is"
    )
    for command in ("plan", "run"):
        assert said in " ".join(ntksweep(command, spec).output.split())
    empty = " ".join(ntksweep("select", spec.parent / "results").errors.split())
    assert "this sweep has no gcv" in empty
    assert "set it and run with `--on-change given`" in empty
