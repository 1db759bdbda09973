"""Tiles and decompositions on a GPU: what it adds to identities, and sweeps through the same code on a processor.

Where there is no GPU `device: cuda` is planned, and refused where it would compute; what it does is run with torch's
device `cpu` in its place, which is what `on_torch` puts into the parameters of the stages.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ntk_dist.device.share import bytes_left, part_of_gpu, take_part
from orchestrator.plan.plan import Plan
from orchestrator.stages.base.cells import cell_ids
from orchestrator.stages.base.parameters import KernelDevice
from orchestrator.stages.context.failures import FailureClass, failed
from tests.faults.tables import checksums
from tests.orchestrator.sweeps import make_sweep, plan_of, results_of, run_spec

needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


@pytest.fixture
def on_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KernelDevice, "of", lambda compute: KernelDevice("cpu", 100_000, False))


def kinds_of(plan: Plan) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for stage in plan.stages:
        found.setdefault(stage.kind, set()).add(stage.stage_id)
    return found


def cells_of(plan: Plan) -> set[str]:
    scale = plan.sweep.spec.grid.lambdas.scale
    return {
        name
        for solve in plan.solves
        for layer_set in solve.layer_sets
        for name in cell_ids(solve, layer_set, plan.lambdas, scale)
    }


# --- identities


@pytest.mark.parametrize("change", [{"compute.device": "cuda"}, {"compute.device": "cuda", "compute.tf32": True}])
def test_a_gpu_changes_tiles_decompositions_and_cells(change: dict[str, Any]):
    before, after = plan_of(), plan_of(change)
    for kind in ("gram", "solve"):
        assert not kinds_of(before)[kind] & kinds_of(after)[kind]
    assert not cells_of(before) & cells_of(after)
    assert kinds_of(before)["dataset"] == kinds_of(after)["dataset"]


def test_tf32_changes_tiles_of_a_gpu_alone():
    plain = plan_of({"compute.device": "cuda"})
    rounded = plan_of({"compute.device": "cuda", "compute.tf32": True})
    assert not kinds_of(plain)["gram"] & kinds_of(rounded)["gram"]
    assert kinds_of(plain)["capture"] == kinds_of(rounded)["capture"]


def test_the_memory_of_a_gpus_tiles_is_a_part_of_the_budget_up_to_a_limit():
    def device_bytes(budget: str) -> set[int]:
        plan = plan_of({"compute.device": "cuda", "compute.memory_budget": budget})
        return {stage.parameters.kernel_device.device_bytes for stage in plan.stages if stage.kind == "gram"}

    assert device_bytes("100MB") == {25_000_000}
    assert device_bytes("2GB") == device_bytes("8GB") == {256 << 20}


def test_what_a_tile_takes_on_the_host_fits_the_budget():
    plan = plan_of({"compute.device": "cuda", "compute.memory_budget": "100MB"})
    assert all(plan.cost_of(stage).memory_bytes <= 100_000_000 for stage in plan.stages if stage.kind == "gram")


# --- computing


@needs_no_gpu
def test_a_machine_without_a_gpu_says_what_to_set():
    from ntk_dist.device.transfers import NoDeviceError, present_device

    with pytest.raises(NoDeviceError, match=r"finds no GPU: set compute.device: cpu, or run where there is one"):
        present_device("cuda")


@pytest.mark.parametrize("outputs", ["full", "trace"])
def test_a_sweep_with_tiles_from_torch_has_the_numbers_of_one_with_tiles_from_numpy(
    tmp_path: Path, tiny_model: Path, on_torch: None, outputs: str, monkeypatch: pytest.MonkeyPatch
):
    changes = {"kernel.outputs": outputs, "kernel.eigenvectors": True}
    by_torch = make_sweep(tmp_path / "torch", changes, model=tiny_model)
    run_spec(by_torch)
    monkeypatch.undo()
    by_numpy = make_sweep(tmp_path / "numpy", changes, model=tiny_model)
    run_spec(by_numpy)
    assert_same_numbers(by_torch, by_numpy)


def assert_same_numbers(actual: Path, expected: Path) -> None:
    found, wanted = (results_of(path).cells.to_arrow().to_pylist() for path in (actual, expected))
    compared = 0
    for one, other in zip(found, wanted, strict=True):
        floor = max(one["noise_floor"], other["noise_floor"])
        for name in ("sigma_max", "trace", "train_loss", "eval_loss", "gcv", "leave_one_out_loss", "label_alignment",
                     "degrees_of_freedom", "parameter_distance", "eval_accuracy"):  # fmt: skip
            if one[name] is None:
                assert other[name] is None
                continue
            assert math.isclose(one[name], other[name], rel_tol=1e-8), name
            compared += 1
        assert abs(one["sigma_min"] - other["sigma_min"]) <= floor
    assert compared > 50
    spectra = [results_of(path).spectra.to_arrow()["eigenvalues"].to_pylist() for path in (actual, expected)]
    for one, other in zip(*spectra, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12 * other[0])


# --- decompositions


def test_the_fallback_is_null_without_a_gpu_and_in_the_artifact_where_one_failed(
    tmp_path: Path, tiny_model: Path, on_torch: None, monkeypatch: pytest.MonkeyPatch
):
    from ntk_dist.solvers import device_eigen

    good = make_sweep(tmp_path / "good", model=tiny_model)
    run_spec(good)
    assert results_of(good).cells.to_arrow()["fallback"].null_count == 6

    def full(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Stand for a GPU that is out of memory, which cannot be had here."""
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(device_eigen.DeviceEigh.__init__, "__defaults__", (full, device_eigen.free_bytes, True))
    failing = make_sweep(tmp_path / "failing", model=tiny_model)
    plan = run_spec(failing).plan
    assert set(results_of(failing).cells.to_arrow()["fallback"].to_pylist()) == {
        "eigh on cpu failed: CUDA out of memory"
    }
    assert_same_numbers(failing, good)
    # the identities are those of the GPU all the same: it is the same sweep
    assert kinds_of(plan)["solve"] == {path.stem for path in (tmp_path / "good/results/artifacts/solve").glob("*.json")}


def test_without_a_gpu_facts_of_a_solve_stage_tell_of_no_fallback(finished: Path):
    paths = list((finished.parent / "results/artifacts/solve").glob("*.json"))
    assert paths
    assert all(set(json.loads(path.read_text(encoding="utf-8"))["facts"]) == {"scalars"} for path in paths)


# --- what a GPU alone can show


TWICE = [
    {"model.dtype": "float32", "compute.batch_tokens": 64, "head": {"kind": "ridge", "in_kernel": False}},
    {"model.dtype": "bfloat16", "kernel.eigenvectors": True, "compute.tf32": True, "compute.gram_dtype": "float32"},
    {"model.dtype": "float32", "finetune": {"learning_rate": 0.05, "epochs": 2, "batch_size": 4}},
]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("changes", TWICE)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_gpu_gives_the_same_bits_twice(
    changes: dict[str, Any], attention: str, tmp_path: Path, tiny_model: Path
) -> None:
    found = []
    for name in ("once", "again"):
        spec = make_sweep(
            tmp_path / name, {**changes, "compute.device": "cuda", "model.attention": attention}, model=tiny_model
        )
        run_spec(spec)
        found.append(checksums(spec.parent / "results"))
    assert found[0] == found[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_worker_that_wants_more_than_its_part_of_a_gpu_runs_out_of_memory_by_itself() -> None:
    cuda = torch.device("cuda")
    take_part(cuda, 4)
    try:
        left = bytes_left(cuda)
        assert left <= part_of_gpu(torch.cuda.mem_get_info(cuda)[1], 4)
        with pytest.raises(torch.OutOfMemoryError) as full:
            torch.empty(left + 2**28, dtype=torch.uint8, device=cuda)
        assert failed(full.value).failure is FailureClass.MEMORY
        assert not failed(full.value).spent
        assert torch.empty(left // 2, dtype=torch.uint8, device=cuda).is_cuda
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, cuda)
