"""Sweeps that never hold a kernel, beside the same sweeps with full decompositions."""

import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from orchestrator.errors import BudgetError
from orchestrator.plan.estimate import costs, refuse_what_cannot_fit
from orchestrator.sweep.folder import ResultsFolder
from tests.orchestrator.sweeps import (
    SPEEDS,
    groups_of,
    make_sweep,
    ntksweep,
    plan_of,
    results_of,
    run_spec,
    survey_of,
    write_data,
)

ITERATIVE = {"kernel.decomposition": "iterative"}
CHANGES: dict[str, Any] = {
    "grid.n_train": [12, 60],
    "grid.lambdas": {"values": [1e-4, 0.01, 1.0], "scale": "trace"},
    "grid.layer_sets": [{"groups": [["0.query"]]}, "all_layers"],
    "adapter.rank": 4,
    "results.predictions": True,
    "compute.shard_examples": 16,
}
"""Kernels of 24 and 120 rows, ends of the former decomposed and of the latter searched for; 98 parameters in the set of
one group, so that it is primal with 120 rows."""

EXACT = ("kernel_size", "initial_train_loss", "initial_eval_loss", "majority_accuracy", "parameter_distance_bound")
CLOSE = (
    "trace", "sigma_max", "lambda", "train_loss", "eval_loss", "objective", "parameter_distance", "label_alignment",
    "noise_floor", "feature_share_train", "feature_share_eval", "feature_trace_share", "train_accuracy",
    "eval_accuracy", "eval_mcc", "condition_number_fixed_sigma", "condition_number_relative_sigma",
)  # fmt: skip
UNKNOWN = {"effective_rank", "decay_exponent", "degrees_of_freedom", "gcv", "leave_one_out_loss", "log_evidence"}


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Path]:
    """The specs of a finished sweep and of the same one without decompositions."""
    found = {}
    for name, changes in (("full", {}), ("iterative", ITERATIVE), ("again", ITERATIVE)):
        folder = tmp_path_factory.mktemp(name)
        found[name] = make_sweep(folder, CHANGES | changes, model=tiny_model)
        write_data(folder / "data.parquet", n=90)
        run_spec(found[name])
    return found


def cells(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = results_of(path).cells.to_arrow().to_pylist()
    return sorted(rows, key=lambda row: (row["layer_set"], row["n_train"], row["lambda_given"]))


def is_primal(row: dict[str, Any]) -> bool:
    return bool(row["n_parameters"] < row["kernel_size"])


def test_every_number_is_that_of_a_full_decomposition_or_null(sweeps: dict[str, Path]):
    found, expected = cells(sweeps["iterative"]), cells(sweeps["full"])
    assert {(is_primal(row), row["kernel_size"]) for row in found} == {(False, 24), (True, 120), (False, 120)}
    for one, other in zip(found, expected, strict=True):
        assert one["cell_id"] != other["cell_id"]
        for name in EXACT:
            assert one[name] == other[name], name
        for name in CLOSE:
            assert one[name] == pytest.approx(other[name], rel=1e-6), name
        assert abs(one["sigma_min"] - other["sigma_min"]) <= other["noise_floor"] + 1e-8 * other["sigma_min"]
        assert one["condition_number_resolved"] == other["condition_number_resolved"]
        unknown = {name for name in UNKNOWN if one[name] is None}
        assert unknown == ({"leave_one_out_loss"} if is_primal(one) else UNKNOWN)
        assert other["ridge_residual"] is None
        if is_primal(one):
            assert one["ridge_residual"] is None
        else:
            assert one["ridge_residual"] < 1e-8


def test_predictions_are_those_of_a_full_decomposition(sweeps: dict[str, Path]):
    def predictions(path: Path) -> np.ndarray:
        table = results_of(path).table("predictions").to_arrow()
        keys = [(name, "ascending") for name in ("layer_set", "n_train", "lambda_given", "example", "output")]
        return np.asarray(table.sort_by(keys)["prediction"])

    found, expected = predictions(sweeps["iterative"]), predictions(sweeps["full"])
    np.testing.assert_allclose(found, expected, atol=1e-7 * np.abs(expected).max())


def test_spectra_are_null_and_densities_are_there_where_nothing_was_decomposed(sweeps: dict[str, Path]):
    results, full = results_of(sweeps["iterative"]), results_of(sweeps["full"])
    assert "densities" in results.names
    assert "densities" not in full.names
    spectra = {(row["layer_set"], row["n_train"]): row["eigenvalues"] for row in results.spectra.to_arrow().to_pylist()}
    exact = {(row["layer_set"], row["n_train"]): row["eigenvalues"] for row in full.spectra.to_arrow().to_pylist()}
    densities = results.densities.to_arrow().to_pylist()
    assert len(densities) == 3
    assert {key for key, values in spectra.items() if values is None} == {
        (row["layer_set"], row["n_train"]) for row in densities
    }
    for row in densities:
        check_density(row, np.array(exact[row["layer_set"], row["n_train"]]))


def check_density(row: dict[str, Any], eigenvalues: np.ndarray) -> None:
    M = row["kernel_size"]
    assert len(eigenvalues) == M
    assert row["trace"] == pytest.approx(eigenvalues.sum())
    assert row["frobenius_norm"] == pytest.approx(np.linalg.norm(eigenvalues))
    assert row["largest"][0] == pytest.approx(eigenvalues[0], rel=1e-8)
    assert abs(row["smallest"][0] - eigenvalues[-1]) <= row["noise_floor"]
    for values, residuals in (("largest", "largest_residuals"), ("smallest", "smallest_residuals")):
        for value, residual in zip(row[values], row[residuals], strict=True):
            assert np.abs(eigenvalues - value).min() <= residual + row["noise_floor"]
    assert row["probe_seed"] == 0
    assert sum(row["weights"]) == pytest.approx(M)
    nodes, weights = np.array(row["nodes"]), np.array(row["weights"])
    assert weights @ nodes == pytest.approx(row["trace"], rel=0.5)
    assert np.trapezoid(row["density"], np.log10(row["grid"])) == pytest.approx(M, rel=1e-6)
    assert 0 < row["ridge_steps"] <= M
    assert row["passes"] > row["ridge_steps"]


def test_the_same_sweep_has_the_same_bits(sweeps: dict[str, Path]):
    def sums(path: Path) -> dict[str, str]:
        files = (path.parent / "results/artifacts/solve").glob("*.safetensors")
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    first = sums(sweeps["iterative"])
    assert len(first) == 4
    assert first == sums(sweeps["again"])


def test_densities_of_a_kernel_of_zeros_are_empty(tmp_path: Path, tiny_model: Path):
    # Only the gradients of LoRA's A, which are zero while B is: no kernel at all.
    from ntk_dist.spectrum.iterative import IterativeDecomposition
    from tests.ntk_dist.solvers.tiled import tiled

    grid, density = IterativeDecomposition(tiled(np.zeros((6, 6)), 4), seed=0).density.smoothed(0.0)
    assert pa.array([grid, density]).to_pylist() == [[], []]


# --- commands


def test_commands_take_nulls_as_they_are(sweeps: dict[str, Path]):
    for command in ("show", "status", "plan"):
        answer = ntksweep(command, sweeps["iterative"])
        assert answer.status == 0, answer.errors


def test_choosing_layers_says_that_it_would_decompose(sweeps: dict[str, Path]):
    answer = ntksweep("select", sweeps["iterative"], "--greedy", "1")
    assert answer.status == 2
    assert "kernel.decomposition is iterative: set it to full" in " ".join(answer.errors.split())


# --- plans


def test_only_solve_stages_know_of_it():
    before, after = plan_of(), plan_of(ITERATIVE)
    kinds = {stage.kind for stage in before.stages}
    for kind in kinds:
        one, other = ({s.stage_id for s in plan.stages if s.kind == kind} for plan in (before, after))
        assert (one == other) == (kind != "solve")


def test_seeds_of_the_grid_draw_the_probes():
    plan = plan_of(ITERATIVE | {"grid.seeds": [3, 4]})
    assert {stage.parameters.iterative.probe_seed for stage in plan.stages if stage.kind == "solve"} == {3, 4}


LARGE = {"grid.n_train": [10_000], "compute.shard_examples": 256, "compute.memory_budget": "2GB"}


def test_a_plan_takes_kernels_that_a_full_decomposition_is_refused_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # the machine of the tests may have less free disk than this plan would leave
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**12))
    survey = survey_of(groups=groups_of(2, ("query", "value"), n_parameters=30_000))
    folder = ResultsFolder(tmp_path / "results")
    full, iterative = (plan_of(LARGE | change, survey=survey) for change in ({}, ITERATIVE))
    with pytest.raises(BudgetError, match=r"a solve stage needs .*kernel.decomposition: iterative"):
        refuse_what_cannot_fit(full, folder)
    refuse_what_cannot_fit(iterative, folder)
    needed = max(iterative.cost_of(stage).memory_bytes for stage in iterative.stages if stage.kind == "solve")
    M = 20_000
    assert 8 * M * 512 < needed < 8 * M * 1000 < 8 * M * M


def test_trace_kernels_have_a_krylov_space_for_every_output():
    survey = survey_of(groups=groups_of(2, ("query", "value"), n_parameters=30_000), n_outputs=5)

    def needed(outputs: str) -> int:
        plan = plan_of(LARGE | ITERATIVE | {"kernel.outputs": outputs, "grid.n_train": [5000]}, survey=survey)
        return max(plan.cost_of(stage).memory_bytes for stage in plan.stages if stage.kind == "solve")

    assert needed("trace") > 8 * 5 * 512 * 5000


def test_layer_sets_with_few_parameters_take_what_they_took(tmp_path: Path):
    survey = survey_of(groups=groups_of(2, ("query", "value"), n_parameters=500))
    found = []
    for change in ({}, ITERATIVE):
        plan = plan_of(LARGE | change, survey=survey)
        solves = [stage for stage in plan.stages if stage.kind == "solve"]
        assert {stage.parameters.method for stage in solves} == {"primal"}
        found.append(sorted(plan.cost_of(stage).memory_bytes for stage in solves))
    assert found[0] == found[1]


def test_its_cost_is_told(tmp_path: Path):
    (cost,) = [c for c in costs(plan_of(ITERATIVE), ResultsFolder(tmp_path), SPEEDS) if c.kind == "solve"]
    assert cost.flops > 0
    assert cost.written_bytes > 0


def test_disk_is_at_least_what_the_arrays_take(sweeps: dict[str, Path]):
    plan = run_spec(sweeps["iterative"]).plan
    (cost,) = [
        c for c in costs(plan, ResultsFolder(sweeps["iterative"].parent / "nothing"), SPEEDS) if c.kind == "solve"
    ]
    taken = 0
    for path in (sweeps["iterative"].parent / "results/artifacts/solve").glob("*.safetensors"):
        header = path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")]
        taken += sum(e["data_offsets"][1] - e["data_offsets"][0] for e in json.loads(header).values())
    assert taken <= cost.written_bytes
