"""The tables `contributions` and `flow` of whole sweeps, against plain matrices of the rows that were captured."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import yaml

from orchestrator.engine.run import resolve
from orchestrator.spec import read_spec
from orchestrator.stages.base.cells import Solve
from orchestrator.stages.context.problem import Problem, load_problem
from orchestrator.stages.context.work import Work
from orchestrator.stages.context.worker_state import WorkerState
from orchestrator.sweep.folder import ResultsFolder
from tests.orchestrator.stages.trained_sweeps import training
from tests.orchestrator.sweeps import make_sweep, ntksweep, plan_of, results_of, run_spec, write_data
from tests.root import ROOT

# Rank 1 in one group has fewer parameters than the larger kernels have rows: solved without a kernel.
SETS: list[Any] = [{"groups": [["0.query"], ["0.query", "1.value"]]}, "all_layers"]
TIMES = [0.3, 2.0, 50.0]
CHANGES: dict[str, Any] = {
    "grid.layer_sets": SETS, "grid.n_train": [7, 34], "adapter.rank": 1, "kernel.eigenvectors": True,
    "kernel.contributions": True, "kernel.flow_times": {"values": TIMES, "scale": "sigma_max"},
}  # fmt: skip
KERNELS: dict[str, dict[str, Any]] = {
    "full": {},
    "trace": {
        "grid.n_train": [7, 140],
        "kernel.outputs": "trace",
        "grid.lambdas": {"values": [0.01, 1.0], "scale": "absolute"},
    },
    "margin, one block for groups": {"grid.n_train": [7, 70], "kernel.outputs": "margin", "kernel.blocks": "atoms"},
    "absolute times": {"kernel.flow_times": TIMES},
}


@dataclass(frozen=True)
class Plain:
    """A layer set's rows of features for training and evaluation, by group, and its problem."""

    train: dict[str, np.ndarray]
    evaluation: dict[str, np.ndarray]
    problem: Problem

    @property
    def rows(self) -> np.ndarray:
        return np.hstack(list(self.train.values()))

    @property
    def eval_rows(self) -> np.ndarray:
        return np.hstack(list(self.evaluation.values()))


def plain_sets(spec: Path) -> dict[tuple[int, str], Plain]:
    """Return what each layer set of each training-set size is made of."""
    read = read_spec(spec)
    folder = ResultsFolder(read.folder)
    sweep = resolve(read, spec.parent, folder, trusts_code=False)
    plan, store, work = run_spec(spec).plan, folder.artifacts(), Work(WorkerState(sweep, folder))
    C = 2 if read.kernel.outputs == "trace" else 1

    def rows(split: str, group: str, size: int) -> np.ndarray:
        shards = [
            store.open(stage.kind, stage.stage_id)
            for stage in plan.stages
            if stage.kind == "capture" and stage.parameters.split == split
        ]
        J = np.concatenate([np.array(shard.array(group), dtype=np.float64) for shard in shards])
        return np.hstack([J[output::C] for output in range(C)])[:size] / np.sqrt(C)

    found = {}
    for solve in plan.filled_by(Solve):
        problem = load_problem(solve.stage, work)
        for layer_set in solve.layer_sets:
            sides = [
                {group: rows(split, group, size) for group in layer_set.groups}
                for split, size in (("train", problem.size), ("eval", problem.eval_size))
            ]
            found[solve.n_train, layer_set.name] = Plain(*sides, problem)
    return found


def check_contributions(table: pd.DataFrame, cells: pd.DataFrame, sets: dict[tuple[int, str], Plain]) -> None:
    lambdas = cells.set_index("cell_id")["lambda"]
    for cell_id, rows in table.groupby("cell_id"):
        plain = sets[rows["n_train"].iloc[0], rows["layer_set"].iloc[0]]
        J, r = plain.rows, plain.problem.residual
        value = lambdas[cell_id]
        d = np.linalg.solve(J.T @ J + value * np.eye(J.shape[1]), J.T @ r)
        parts = dict(zip(plain.train, np.split(d, np.cumsum([own.shape[1] for own in plain.train.values()]))))  # noqa: B905
        moved = {group: plain.train[group] @ part for group, part in parts.items()}
        whole = sum(moved.values())
        assert sorted(group for groups in rows["groups"] for group in groups) == sorted(plain.train)
        for row in rows.to_dict("records"):
            own = sum(moved[group] for group in row["groups"])
            size = sum(np.sum(parts[group] ** 2) for group in row["groups"])
            assert row["contribution"] == pytest.approx(np.sum(own * whole) / np.sum(whole**2), abs=1e-10)
            assert row["squared_distance_share"] == pytest.approx(size / np.sum(d**2), abs=1e-10)
        assert rows["contribution"].sum() == pytest.approx(1, abs=1e-12)


def check_flow(table: pd.DataFrame, sets: dict[tuple[int, str], Plain]) -> None:
    """Compare every row with weights that a matrix exponential or all the steps of a matrix power give."""
    for row in table.to_dict("records"):
        plain = sets[row["n_train"], row["layer_set"]]
        J, problem = plain.rows, plain.problem
        A, g = J.T @ J + row["lambda"] * np.eye(J.shape[1]), J.T @ problem.residual
        p, k = g.shape
        system = np.zeros((p + k, p + k))
        if row["trained_by"] == "flow":
            system[:p] = np.hstack([-A, g])
            d = scipy.linalg.expm(row["time"] * system)[:p, p:]
        else:
            h = row["step_size"]
            assert h == pytest.approx(1 / np.linalg.eigvalsh(A)[-1], rel=1e-10)
            assert row["steps"] == round(row["time"] / h)
            system = np.eye(p + k)
            system[:p] = np.hstack([np.eye(p) - h * A, h * g])
            d = np.linalg.matrix_power(system, int(row["steps"]))[:p, p:]
        left, missed = problem.residual - J @ d, problem.eval_targets - problem.eval_initial - plain.eval_rows @ d
        assert row["parameter_distance"] == pytest.approx(np.linalg.norm(d), rel=1e-9, abs=1e-12)
        assert row["train_loss"] == pytest.approx(np.sum(left**2) / 2 / problem.n_train, rel=1e-10)
        assert row["eval_loss"] == pytest.approx(np.sum(missed**2) / 2 / problem.n_eval, rel=1e-10)
        scores = (problem.eval_initial + plain.eval_rows @ d).reshape(problem.n_eval, -1)
        said = scores.argmax(axis=1) if scores.shape[1] > 1 else scores[:, 0] > 0
        assert row["eval_accuracy"] == pytest.approx(np.mean(said == problem.eval_labels))


@pytest.mark.parametrize("name", KERNELS)
def test_both_tables_are_those_of_plain_matrices(name: str, tmp_path: Path, tiny_model: Path):
    spec = make_sweep(tmp_path, CHANGES | KERNELS[name], model=tiny_model)
    write_data(tmp_path / "data.parquet", n=150)
    ending = run_spec(spec)
    assert not ending.report.failures
    assert {solve.stage.parameters.method for solve in ending.plan.solves} == {"primal", "dual"}
    results, sets = results_of(spec), plain_sets(spec)
    cells, flow = results.cells.to_pandas(), results.flow.to_pandas()
    contributions = results.contributions.to_pandas()
    assert set(contributions["cell_id"]) == set(cells["cell_id"])
    check_contributions(contributions, cells, sets)
    assert len(flow) == len(sets) * 2 * (1 + 2) * len(TIMES)
    check_flow(flow, sets)
    scale = cells.groupby(["n_train", "layer_set"])["sigma_max"].first()
    unit = [1.0 if name == "absolute times" else scale[row.n_train, row.layer_set] for row in flow.itertuples()]
    np.testing.assert_allclose(flow["time"] * unit, flow["time_given"], rtol=1e-12)


def test_the_flow_meets_the_ridge_solution(tmp_path: Path, tiny_model: Path):
    value = 0.5
    changes = CHANGES | {"grid.lambdas": [value], "kernel.flow_times": [1.0, 40 / value], "head.in_kernel": False}
    spec = make_sweep(tmp_path, changes, model=tiny_model)
    run_spec(spec)
    keys, cells = ["n_train", "layer_set"], results_of(spec).cells.to_pandas()
    flow = results_of(spec).flow.to_pandas().query(f"`lambda` == {value} and time_given == {40 / value}")
    assert len(flow) == 2 * len(cells)
    both = flow.merge(cells, on=keys, suffixes=("", "_ridge"))
    for column in ("train_loss", "eval_loss", "parameter_distance", "eval_accuracy"):
        np.testing.assert_allclose(both[column], both[f"{column}_ridge"], rtol=1e-10, err_msg=column)


def test_kernels_that_are_multiplied_with_have_contributions_too(tmp_path: Path, tiny_model: Path):
    changes = CHANGES | {
        "kernel.eigenvectors": False, "kernel.flow_times": None, "kernel.decomposition": "iterative",
        "kernel.outputs": "trace",
    }  # fmt: skip
    spec = make_sweep(tmp_path, changes, model=tiny_model)
    ending = run_spec(spec)
    assert not ending.report.failures
    assert any(solve.stage.parameters.iterative for solve in ending.plan.solves)
    results = results_of(spec)
    check_contributions(results.contributions.to_pandas(), results.cells.to_pandas(), plain_sets(spec))


def test_trained_cells_have_what_is_not_linear_beside_their_contributions(tmp_path: Path, tiny_model: Path):
    spec = training(tmp_path, tiny_model, **{"kernel.contributions": True})
    assert not run_spec(spec).report.failures
    results = results_of(spec)
    both = results.contributions.to_pandas().merge(results.cells.to_pandas(), on="cell_id", suffixes=("", "_cell"))
    for split in ("train", "eval"):
        for name in (f"difference_{split}_relative", f"difference_{split}_relative_to_change"):
            assert both[name].notna().any()
            pd.testing.assert_series_equal(both[name], both[f"{name}_cell"], check_names=False)


def test_the_best_time_to_stop_stands_beside_the_best_lambda(tmp_path: Path, tiny_model: Path):
    spec = make_sweep(tmp_path, CHANGES | {"grid.seeds": [0, 1], "grid.n_train": [7]}, model=tiny_model)
    run_spec(spec)
    flow = results_of(spec).flow.to_pandas().query("trained_by == 'flow' and lambda_given == 0")
    losses = flow.groupby(["layer_set", "time_given"])["eval_loss"].mean().unstack()
    shown = json.loads(ntksweep("show", tmp_path / "results", "--json").output)
    for each in shown["layer_sets"]:
        own = losses.loc[each["layer_set"]]
        assert each["stopping"] == {"time": own.idxmin(), "eval_loss": pytest.approx(own.min())}
    assert "or stop" in ntksweep("show", tmp_path / "results").output


def test_the_example_runs_on_a_small_model(tmp_path: Path, tiny_model: Path):
    tree = yaml.safe_load((ROOT / "examples/one-decomposition.yaml").read_text(encoding="utf-8"))
    write_data(tmp_path / "data.parquet")
    tree["model"]["path"] = str(tiny_model)
    tree["task"] |= {"data": "data.parquet", "n_eval": 5}
    tree["grid"]["n_train"] = [20]
    tree["compute"] = {"executor": "inline"}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    assert not run_spec(path).report.failures
    results = results_of(path)
    assert results.cells.to_pandas()["log_evidence"].notna().all()
    assert len(results.flow.to_pandas()) == len(read_spec(path).kernel.flow_times.numbers()) * 2 * 14 * 3  # type: ignore[union-attr]
    assert len(results.contributions.to_pandas()) == 13 * (2 + 2 + 4)


REFUSED = {
    "flow": ({"kernel.flow_times": [1.0]}, "eigenvectors: true"),
    "flow of products": (
        {"kernel.flow_times": [1.0], "kernel.decomposition": "iterative"}, "leave `flow_times` out",
    ),
    "flow, not symmetric": (
        {"kernel.flow_times": [1.0], "kernel.kind": "asymmetric_sign"}, "leave `flow_times` out",
    ),
    "no times": ({"kernel.flow_times": [], "kernel.eigenvectors": True}, "flow_times"),
    "contributions, not symmetric": (
        {"kernel.contributions": True, "kernel.kind": "asymmetric_sign"}, "contributions: false",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_before_anything_runs(name: str, tmp_path: Path, tiny_model: Path):
    changes, fix = REFUSED[name]
    spec = make_sweep(tmp_path, changes, model=tiny_model)
    answer = ntksweep("plan", spec)
    assert answer.status != 0
    assert fix in answer.output + answer.errors
    assert not (tmp_path / "results").exists()


def test_neither_changes_the_identity_of_a_cell():
    changes = {"kernel.eigenvectors": True}
    before = plan_of(changes)
    for further in ({"kernel.contributions": True}, {"kernel.flow_times": [1.0]}):
        after = plan_of(changes | further)
        assert [solve.problem_id for solve in after.solves] == [solve.problem_id for solve in before.solves]
        assert [solve.stage.stage_id for solve in after.solves] != [solve.stage.stage_id for solve in before.solves]
