"""The variances in the table of predictions, against Bayesian linear regression on rows that were captured."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator.spec import read_spec
from orchestrator.sweep.folder import ResultsFolder
from tests.orchestrator.sweeps import make_sweep, results_of, run_spec

CHANGES: dict[str, Any] = {
    "kernel.eigenvectors": True,
    "results.predictions": True,
    "adapter.initialization": "random",
    "grid.layer_sets": [{"groups": [["0.query"]]}, "all_layers"],
    "adapter.rank": 1,
    "head.in_kernel": False,
    "grid.n_train": [6, 34],
}
"""Shards of 4 examples, 32 parameters in the group: primal with the larger set, but not as averages of two outputs."""


def rows_of(path: Path, split: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the captured rows of each group, and the initial outputs, of all examples of a split."""
    spec = read_spec(path)
    store = ResultsFolder(spec.folder).artifacts()
    stages = [each for each in run_spec(path).plan.stages if each.kind == "capture" and each.parameters.split == split]
    shards = [store.open("capture", each.stage_id) for each in sorted(stages, key=lambda each: each.parameters.start)]
    names = [name for name in shards[0].names() if name != "scores"]
    rows = {name: np.concatenate([np.array(shard.array(name)) for shard in shards]) for name in names}
    return rows, np.concatenate([np.array(shard.array("scores")) for shard in shards])


def features(rows: dict[str, np.ndarray], groups: list[str], outputs: str, n: int) -> np.ndarray:
    """Return the feature rows of the first n examples, whose products are the kernel."""
    J = np.hstack([rows[group] for group in groups]).astype(np.float64)
    if outputs == "margin":
        return J[:n]
    return J[: 2 * n] if outputs == "full" else J[: 2 * n].reshape(n, -1) / np.sqrt(2)


def residual_of(labels: np.ndarray, scores: np.ndarray, outputs: str) -> np.ndarray:
    if outputs == "margin":
        return np.where(labels == 1, 1.0, -1.0)[:, None] - scores.reshape(-1, 1)
    r = np.where(np.arange(2) == labels[:, None], 1.0, -1.0) - scores
    return r if outputs == "trace" else r.reshape(-1, 1)


@pytest.mark.parametrize("outputs", ["full", "trace", "margin"])
def test_they_are_those_of_bayesian_linear_regression(outputs: str, tmp_path: Path, tiny_model: Path):
    path = make_sweep(tmp_path, CHANGES | {"kernel.outputs": outputs}, model=tiny_model)
    ending = run_spec(path)
    assert not ending.report.failures
    methods = {stage.parameters.method for stage in ending.plan.stages if stage.kind == "solve"}
    assert methods == ({"dual"} if outputs == "trace" else {"dual", "primal"})
    (train, scores), (evaluation, _) = rows_of(path, "train"), rows_of(path, "eval")
    (dataset,) = {each.stage_id for each in ending.plan.stages if each.kind == "dataset"}
    labels = np.array(ResultsFolder(read_spec(path).folder).artifacts().open("dataset", dataset).array("train.labels"))
    results = results_of(path)
    table = results.predictions.to_pandas().groupby("cell_id")
    groups_of = results.spectra.to_pandas().set_index(["layer_set", "n_train"])["groups"]
    for cell in results.cells.to_arrow().to_pylist():
        n, shift, groups = cell["n_train"], cell["lambda"], list(groups_of[cell["layer_set"], cell["n_train"]])
        J, E = features(train, groups, outputs, n), features(evaluation, groups, outputs, 6)
        r = residual_of(labels[:n], scores[:n], outputs)
        tau_squared = shift * np.sum(r * np.linalg.solve(J @ J.T + shift * np.eye(len(J)), r)) / r.size
        A = (shift * np.eye(J.shape[1]) + J.T @ J) / tau_squared
        wanted = np.repeat(np.einsum("ep,pe->e", E, np.linalg.solve(A, E.T)), r.shape[1])
        found = table.get_group(cell["cell_id"])
        np.testing.assert_allclose(found["predictive_variance"], wanted, rtol=1e-10)
        np.testing.assert_allclose(found["observation_variance"], wanted + tau_squared, rtol=1e-10)


def variances(path: Path) -> pd.DataFrame:
    assert not run_spec(path).report.failures
    return results_of(path).predictions.to_pandas()[["predictive_variance", "observation_variance"]]


def test_rows_in_memory_and_blocks_of_atoms_give_the_same(tmp_path: Path, tiny_model: Path):
    changes = {key: value for key, value in CHANGES.items() if key != "grid.n_train"} | {
        "grid.layer_sets": ["each_layer"]
    }
    stored = variances(make_sweep(tmp_path / "stored", changes, model=tiny_model))
    resident = {"compute.rows": "resident", "kernel.blocks": "atoms"}
    np.testing.assert_allclose(
        variances(make_sweep(tmp_path / "resident", changes | resident, model=tiny_model)), stored, rtol=1e-9
    )


@pytest.mark.parametrize(
    "change",
    [
        {"kernel.eigenvectors": False},
        {"head.kind": "ridge", "head.in_kernel": False},
        {"kernel.kind": "asymmetric_sign", "kernel.eigenvectors": False},
        {"kernel.decomposition": "iterative", "kernel.eigenvectors": False},
    ],
)
def test_they_are_null_where_the_labels_were_seen_or_nothing_gives_them(
    change: dict[str, Any], tmp_path: Path, tiny_model: Path
):
    found = variances(make_sweep(tmp_path, CHANGES | {"grid.n_train": [6]} | change, model=tiny_model))
    assert len(found)
    assert found.isna().all(axis=None)
