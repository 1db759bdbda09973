"""What `plan` says of products in float64, by the GPU. There are no GPUs here: descriptions of them are made up."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from orchestrator.cli.notes import product_notes
from orchestrator.plan.estimate import Cost
from orchestrator.sweep.double_precision import product_note, product_speed
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.gpu_kind import Gpu, refuse_other_gpu
from tests.orchestrator.sweeps import make_sweep, ntksweep, plan_of

H200 = Gpu("NVIDIA H200", "9.0", 132, 150 * 10**9)
A100 = Gpu("NVIDIA A100-SXM4-80GB", "8.0", 108, 85 * 10**9)
L40 = Gpu("NVIDIA L40S", "8.9", 142, 48 * 10**9)
T4 = Gpu("Tesla T4", "7.5", 40, 16 * 10**9)
UNKNOWN = Gpu("NVIDIA Next", "99.9", 100, 10**11)


@pytest.mark.parametrize("gpu", [H200, A100])
def test_float64_is_free_where_its_units_are_fast(gpu: Gpu):
    speed = product_speed(gpu)
    assert speed is not None
    assert speed.double == speed.single
    assert product_note(gpu, 1e18) is None


@pytest.mark.parametrize(("gpu", "published_tflops", "share"), [(L40, (91.6, 1.41), 64), (T4, (8.1, 0.254), 32)])
def test_the_speed_is_near_what_its_maker_publishes(gpu: Gpu, published_tflops: tuple[float, float], share: int):
    """Peaks at the highest clock, which products do not reach."""
    speed = product_speed(gpu)
    assert speed is not None
    assert speed.single / speed.double == share
    for found, published in zip((speed.single, speed.double), published_tflops, strict=True):
        assert 0.5 < found / (1e12 * published) < 1.05


def test_slow_float64_is_said_with_its_cost_and_the_way_out():
    note = product_note(L40, 1e15)
    assert note is not None
    assert note.startswith("NVIDIA L40S takes products in float64 at 1/64 of its speed in float32 (published)")
    assert "take about 0.3 h of GPU time, and would take 18 s with compute.gram_dtype: float32" in note
    assert "noise_floor is then that of float32" in note
    assert product_note(L40, 0.0) is None


def test_a_gpu_that_is_not_in_the_table_is_measured_if_it_is_here():
    assert product_speed(UNKNOWN) is None
    assert product_note(UNKNOWN, 1e18) is None
    speed = product_speed(UNKNOWN, torch.device("cpu"))
    assert speed is not None
    assert speed.measured
    # any processor takes float32 at about twice the speed
    assert 1e8 < speed.double < 1.5 * speed.single


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("without_gpu")
def test_the_gpu_is_that_of_the_results_folder_where_there_is_none_here(tmp_path: Path):
    folder, gram = ResultsFolder(tmp_path / "results"), Cost("gram", 1, 1, 1e15, 0, 0, 0, 0, 0, None, measured=False)
    plans = {
        dtype: plan_of({"compute.device": "cuda", "compute.gram_dtype": dtype}) for dtype in ("float64", "float32")
    }
    assert product_notes(plans["float64"], [gram], folder) == []
    refuse_other_gpu(folder, L40)
    assert product_notes(plans["float64"], [gram], folder) == [product_note(L40, 1e15)]
    assert product_notes(plans["float64"], [replace(gram, flops=0.0)], folder) == []
    assert product_notes(plans["float32"], [gram], folder) == []
    assert product_notes(plan_of(), [gram], folder) == []


@pytest.mark.usefixtures("without_gpu")
def test_plan_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("orchestrator.sweep.gpu_kind.noted_gpu", lambda _folder: L40)
    answer = ntksweep("plan", make_sweep(tmp_path, {"compute.device": "cuda"}))
    assert "takes products in float64 at 1/64" in " ".join(answer.output.split()), answer.errors
