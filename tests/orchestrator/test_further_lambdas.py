"""Lambdas that join a finished sweep or leave it: nothing is decomposed, and numbers are those of a fresh sweep."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.folder import ResultsFolder
from orchestrator.spec import read_spec
from orchestrator.store.journal import read_journals
from orchestrator.tables.schema import TABLES
from tests.orchestrator.sweeps import make_sweep, ntksweep, results_of, run_spec, write_spec

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
        name: results_of(spec).table(name).to_arrow([c.name for c in TABLES[name] if not c.provenance]).to_pylist()
        for name in results_of(spec).names
    }


def computed(spec: Path) -> list[str]:
    """Return the kinds of the stages that were begun, in order."""
    events = read_journals(ResultsFolder(read_spec(spec).folder).journals)
    return [event["kind"] for event in events if event["event"] == "started"]


def forbid_decompositions(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a kernel is decomposed")

    for name in ("tridiagonal.TridiagonalDecomposition", "eigen.EigenDecomposition", "schur.SchurDecomposition"):
        monkeypatch.setattr(f"ntk_dist.{name}.__init__", refuse)


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
