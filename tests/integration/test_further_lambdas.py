"""Lambdas that join a finished sweep or leave it: nothing is decomposed, and numbers are those of a fresh sweep."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.results.tables.schema import TABLES
from orchestrator.spec import read_spec
from orchestrator.store.journal import read_journals
from orchestrator.sweep.folder import ResultsFolder
from tests.orchestrator.sweeps import make_sweep, ntksweep, results_of, run_spec, write_data, write_spec

FEW, MANY = [0.01, 1.0], [3e-4, 0.01, 0.2, 1.0, 50.0]
KINDS: dict[str, dict[str, Any]] = {
    "dual": {"kernel.eigenvectors": False},
    "left out, a fitted head": {"kernel.eigenvectors": True, "head.kind": "ridge", "head.in_kernel": False},
    "primal": {"head.in_kernel": False, "adapter.rank": 1, "grid.n_train": [24], "kernel.eigenvectors": True},
    "several targets": {"kernel.outputs": "trace", "grid.n_train": [8]},
    "asymmetric": {"kernel.kind": "asymmetric_sign", "grid.n_train": [8]},
}


def with_lambdas(kind: str, lambdas: list[float]) -> dict[str, Any]:
    return KINDS[kind] | {"grid.lambdas.values": lambdas, "results.predictions": True}


def numbers(spec: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of every table, without where and when they were computed."""
    return {
        name: results_of(spec)
        .table(name)
        .to_arrow([c.name for c in TABLES[name].columns if not c.provenance])
        .to_pylist()
        for name in results_of(spec).names
    }


def computed(spec: Path) -> list[str]:
    """Return the kinds of the stages that were begun, in order."""
    events = read_journals(ResultsFolder(read_spec(spec).folder).journals)
    return [event["kind"] for event in events if event["event"] == "started"]


def forbid_decompositions(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a kernel is decomposed")

    for name in ("reduced.ReducedDecomposition", "eigen.EigenDecomposition", "schur.SchurDecomposition"):
        monkeypatch.setattr(f"ntk_dist.solvers.{name}.__init__", refuse)


@pytest.mark.parametrize("kind", KINDS)
def test_lambdas_join_and_leave_a_finished_sweep_without_a_decomposition(
    kind: str, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    fresh = {
        len(lambdas): make_sweep(tmp_path / str(len(lambdas)), with_lambdas(kind, lambdas), model=tiny_model)
        for lambdas in (FEW, MANY)
    }
    spec = make_sweep(tmp_path / "changing", with_lambdas(kind, FEW), model=tiny_model)
    for each in (*fresh.values(), spec):
        assert not run_spec(each).report.failures
    begun = computed(spec)
    assert "solve" in begun

    forbid_decompositions(monkeypatch)
    for lambdas in (MANY, FEW):
        write_spec(spec.parent, {"model.path": str(tiny_model)} | with_lambdas(kind, lambdas))
        planned = json.loads(ntksweep("plan", spec, "--json").output)
        assert not any(stage["missing"] for stage in planned["stages"])
        assert planned["decompositions"] == 0
        ending = run_spec(spec)
        assert (ending.report.computed, ending.n_cells) == (0, planned["cells"])
        assert computed(spec) == begun
        assert numbers(spec) == numbers(fresh[len(lambdas)])
        assert run_spec(spec).was_finished


def test_the_plan_says_how_many_kernels_are_to_be_decomposed(finished: Path, tmp_path: Path, tiny_model: Path):
    assert "0 decompositions to compute, of 6 kernels" in ntksweep("plan", finished).output
    spec = make_sweep(tmp_path, model=tiny_model)
    assert "3 decompositions to compute, of 3 kernels" in ntksweep("plan", spec).output


# --- kernels that are not decomposed

SOLVED, LOWER = [0.1, 1.0], [1e-3, 1.0]
COUNTED = {"ridge_steps", "passes"}
"""Columns about the computation itself, which may differ: fewer steps solve for a larger lambda."""


def multiplied(outputs: str, lambdas: list[float]) -> dict[str, Any]:
    """Return what makes a spec of one layer set, with more parameters than the kernel has rows: 120, or 60."""
    return {
        "kernel.outputs": outputs,
        "kernel.decomposition": "iterative",
        "grid.lambdas": {"values": lambdas, "scale": "trace"},
        "grid.layer_sets": ["all_layers"],
        "grid.n_train": [60],
        "adapter.rank": 4,
        "results.predictions": True,
        "compute.shard_examples": 16,
    }


@pytest.fixture(scope="module", params=["full", "trace"])
def outputs(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def solved(outputs: str, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The spec of a finished sweep whose kernel was solved for `SOLVED`."""
    spec = make_sweep(tmp_path_factory.mktemp(outputs), multiplied(outputs, SOLVED), model=tiny_model)
    write_data(spec.parent / "data.parquet", n=90)
    assert not run_spec(spec).report.failures
    return spec


@pytest.fixture
def asked(solved: Path, outputs: str, tmp_path: Path, tiny_model: Path) -> Callable[..., Path]:
    """Return a function that copies the sweep into a named folder and returns its spec with other lambdas."""

    def asked(name: str, lambdas: list[float], *, fresh: bool = False, **changes: Any) -> Path:
        folder = tmp_path / name
        if not folder.exists():
            shutil.copytree(solved.parent, folder, ignore=shutil.ignore_patterns("results") if fresh else None)
        return write_spec(folder, {"model.path": str(tiny_model)} | multiplied(outputs, lambdas) | changes)

    return asked


def missing(spec: Path) -> dict[str, int]:
    """Return how many stages of each kind `plan` says are to be computed, but for none."""
    planned = json.loads(ntksweep("plan", spec, "--json").output)
    return {stage["kind"]: stage["missing"] for stage in planned["stages"] if stage["missing"]}


def forbid_products(patch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a kernel is multiplied")

    patch.setattr("ntk_dist.kernel.tile_operator.TileOperator._matmat", refuse)


def check_close(found: Path, expected: Path) -> None:
    """Compare all tables, to what a Krylov solve promises: losses to 2.5e-9."""
    one, other = numbers(found), numbers(expected)
    for name in one.keys() | other.keys():
        for row, reference in zip(one[name], other[name], strict=True):
            for column in row.keys() - COUNTED - {"ridge_residual"}:
                if not isinstance(row[column], float):
                    assert row[column] == reference[column], (name, column)
                elif column == "prediction":
                    assert row[column] == pytest.approx(reference[column], abs=1e-8), name
                else:
                    assert row[column] == pytest.approx(reference[column], rel=2.5e-9), (name, column)
            assert (row.get("ridge_residual") or 0.0) <= 1.1e-9


@pytest.mark.parametrize("lambdas", [[1.0], [0.1, 0.4, 1.0, 50.0]], ids=["dropped", "added"])
def test_lambdas_above_the_lowest_are_read_off(
    lambdas: list[float], asked: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    fresh, spec = asked("fresh", lambdas, fresh=True), asked("changed", lambdas)
    assert not run_spec(fresh).report.failures
    begun = computed(spec)
    forbid_products(monkeypatch)
    assert missing(spec) == {}
    ending = run_spec(spec)
    assert (ending.report.computed, ending.n_cells) == (0, len(lambdas))
    assert computed(spec) == begun
    check_close(spec, fresh)
    status = json.loads(ntksweep("status", spec.parent / "results", "--json").output)
    assert (status["cells"], status["complete"]) == (len(lambdas), True)
    assert run_spec(spec).was_finished


def test_the_numbers_of_lambdas_that_joined_are_those_of_a_decomposition(asked: Callable[..., Path]):
    lambdas = [0.15, 3.0]
    spec, full = asked("changed", lambdas), asked("full", lambdas, fresh=True, **{"kernel.decomposition": "full"})
    for each in (spec, full):
        assert not run_spec(each).report.failures
    for row, exact in zip(*(results_of(each).cells.to_arrow().to_pylist() for each in (spec, full)), strict=True):
        for name in ("lambda", "train_loss", "eval_loss", "objective", "parameter_distance"):
            assert row[name] == pytest.approx(exact[name], rel=1e-8), name
        for name in ("train_accuracy", "eval_accuracy", "eval_mcc"):
            assert row[name] == exact[name], name
        assert row["degrees_of_freedom"] is row["gcv"] is row["leave_one_out_loss"] is None


def test_a_lower_lambda_is_one_solve_stage_and_serves_from_then_on(asked: Callable[..., Path]):
    spec = asked("changed", LOWER)
    assert missing(spec) == {"solve": 1}
    assert "1 kernel to multiply with, of 1; each serves every lambda from 0.001 trace/M on" in said(spec)
    assert run_spec(spec).report.computed == 1
    # Between the two, and back to what the first was made for: neither is computed again.
    for lambdas in ([0.02, 0.1], SOLVED):
        asked("changed", lambdas)
        assert missing(spec) == {}
        assert run_spec(spec).report.computed == 0
    assert "0 kernels to multiply with, of 1" in said(spec)


def said(spec: Path) -> str:
    return " ".join(ntksweep("plan", spec).output.split())
