"""What the ridge objective loses by a layer that is added: against dense solves, and bounds that fail a run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ntk_dist.spectrum.bounds import added_block_form_factor
from orchestrator.errors import BrokenBoundError
from orchestrator.plan.plan import Plan
from orchestrator.spec import read_spec
from orchestrator.stages.additions import ridge_forms
from orchestrator.stages.additions.ridge_forms import check_forms
from orchestrator.sweep.folder import ResultsFolder
from tests.orchestrator.stages.test_additions import KERNELS, adding, expected_row, kernels_of, model
from tests.orchestrator.sweeps import results_of, run_spec

__all__ = ["model"]  # a fixture


def residuals_of(spec: Path, plan: Plan, seed: int, n_train: int) -> np.ndarray:
    """Return y - f_0 (M, k), by numpy, from labels and the outputs that were captured."""
    store, outputs = ResultsFolder(read_spec(spec).folder).artifacts(), plan.sweep.spec.kernel.outputs
    of_seed = [s for s in plan.stages if s.kind == "capture" and s.parameters.rows.scorer.adapter_seed == seed]
    shards = [store.open(*stage.ref) for stage in of_seed if stage.parameters.split == "train"]
    f_0 = np.concatenate([np.array(shard.array("scores"), dtype=np.float64) for shard in shards])[:n_train]
    dataset = store.open(*of_seed[-1].inputs["dataset"][0])
    labels = np.array(dataset.array("train.labels"))[:n_train]
    if outputs == "margin":
        return np.where(labels == 1, 1.0, -1.0)[:, None] - f_0
    r = np.where(np.arange(2) == labels[:, None], 1.0, -1.0) - f_0
    return r if outputs == "trace" else r.reshape(-1, 1)


def ridge_form(K: np.ndarray, r: np.ndarray, strength: float) -> float:
    return float(np.sum(r * np.linalg.solve(K + strength * np.eye(len(K)), r)))


@pytest.mark.parametrize("name", KERNELS)
def test_every_form_is_that_of_a_dense_solve_and_keeps_to_its_bounds(name: str, tmp_path: Path, model: Path):
    spec = adding(tmp_path, model, KERNELS[name])
    ending = run_spec(spec)
    assert not ending.report.failures
    plan, read, single = ending.plan, read_spec(spec), name == "float32"
    sets = {layer_set.name: layer_set.groups for layer_set in plan.variants[0].layer_sets}
    eps = float(np.finfo(np.float32 if single else np.float64).eps)
    rows = results_of(spec).additions.to_arrow().to_pylist()
    assert rows
    for row in rows:
        kernels = kernels_of(spec, plan, row["seed"], row["n_train"])
        K, S = (sum(kernels[group] for group in each) for each in (sets[row["layer_set"]], row["added_groups"]))
        expected = expected_row(K, S, read.kernel.sigma, (eps, eps))
        r, s = residuals_of(spec, plan, row["seed"], row["n_train"]), np.linalg.eigvalsh(K)
        floor = len(s) * eps * s[-1] + (8 * eps) ** 2 * s.sum()
        assert len(row["lambdas"]) == len(read.grid.lambdas.numbers())
        for place, given in enumerate(read.grid.lambdas.numbers()):
            strength = given * np.trace(K) / len(K)
            assert row["lambdas"][place] == pytest.approx(strength, rel=1e-5 if single else 1e-12)
            before, after = (ridge_form(each, r, strength) for each in (K, K + S))
            least = before / (1 + expected["block_sigma_max"] / (max(0.0, s[0] - floor) + strength))
            # Rounding of products moves eigenvalues, and forms by as much of lambda.
            close = {"rel": 2e-5 + expected["noise_floor"] / strength if single else 1e-10}
            assert row["kernel_ridge_form"][place] == pytest.approx(before, **close)
            assert row["ridge_form"][place] == pytest.approx(after, **close)
            assert row["ridge_form_lower"][place] == pytest.approx(least, **close)
            assert least <= after * (1 + 1e-9) and after <= before * (1 + 1e-9)


def test_a_broken_bound_of_the_ridge_form_fails_the_run_with_one_message(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
):
    def too_large(*ends: Any) -> np.ndarray:
        return 1.1 + 0 * added_block_form_factor(*ends)

    spec = adding(tmp_path, model, {"grid.layer_sets": [{"groups": [["0.query"], ["0.query", "1.query"]]}]})
    monkeypatch.setattr(ridge_forms, "added_block_form_factor", too_large)
    report = run_spec(spec).report
    assert {failure.stage.kind for failure in report.failures} == {"additions"}
    for failure in report.failures:
        assert failure.message.count("1.query added to 0.query, lambda") == 1
        assert "ridge_form_lower is" in failure.message


@pytest.mark.parametrize(("column", "factor"), [("ridge_form", 1.0 + 4e-9), ("ridge_form_lower", 1.0 + 4e-9)])
def test_a_ridge_form_is_held_against_both_of_its_bounds(column: str, factor: float):
    forms = {
        "lambdas": np.array([1.0]), "kernel_ridge_form": np.array([0.5]), "ridge_form": np.array([0.5]),
        "ridge_form_lower": np.array([0.5]),
    }  # fmt: skip
    check_forms(forms, 0.0, "S added to K")
    forms[column] = forms[column] * factor
    with pytest.raises(BrokenBoundError, match=rf"S added to K, lambda 1.0: .*{column}"):
        check_forms(forms, 0.0, "S added to K")
