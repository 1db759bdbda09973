"""The same bits on a GPU: what adds in any order is refused, and so is a GPU of another kind.

There is no GPU here. What torch refuses it refuses of some operations on a processor too; which GPU there is, is put in
the place of what torch would find. `test_devices.py` runs a sweep twice where there is one.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ntk_dist.device import transfers as device
from ntk_dist.device.bits import FIXED_WORKSPACE, WORKSPACE, same_bits
from orchestrator.cluster.unfit_nodes import unfit_nodes
from orchestrator.engine.executors.inline import InlineExecutor
from orchestrator.engine.worker.execute import StageWorker
from orchestrator.errors import GpuFailedError, OtherGpuError
from orchestrator.stages.capture import CAPTURE
from orchestrator.stages.context import worker_state
from orchestrator.stages.context.failures import FailureClass, Outcome, failed
from orchestrator.store.files import host_name
from orchestrator.store.stage import StageKind
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.gpu_kind import Gpu, refuse_other_gpu
from tests.orchestrator.sweeps import plan_of, sweep_of

GPU: dict[str, Any] = {"compute.device": "cuda"}
H100 = Gpu("NVIDIA H100 80GB HBM3", "9.0", 132, 85_017_493_504)
SLICE = Gpu("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "9.0", 16, 10_468_982_784)


def any_order(*_: object) -> None:
    torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))


@pytest.fixture
def outcome_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Compute a stage of a sweep on GPUs by a function."""
    monkeypatch.delenv(WORKSPACE, raising=False)

    def compute(function: Callable[..., Any], changes: dict[str, Any]) -> Outcome:
        monkeypatch.setattr(StageKind, "compute", lambda kind, stage, work: function(stage, work))
        worker = StageWorker(sweep_of(GPU | changes), ResultsFolder(tmp_path / "results"))
        stage = next(stage for stage in plan_of().stages if stage.of is CAPTURE)
        return worker.execute(replace(stage, inputs={}))

    return compute


def test_what_adds_in_any_order_is_refused_by_name(outcome_of: Callable[..., Outcome]) -> None:
    outcome = outcome_of(any_order, {})
    assert outcome.failure is FailureClass.INPUT
    assert outcome.message == (
        "put_, which this model needs, adds in any order on a GPU: set compute.deterministic: false for numbers that "
        "agree to rounding"
    )


def test_a_spec_may_do_without_the_same_bits(outcome_of: Callable[..., Outcome]) -> None:
    # It goes on to what follows: this function returns no product.
    assert outcome_of(any_order, {"compute.deterministic": False}).failure is FailureClass.CODE


def test_nothing_of_it_outlives_a_stage(outcome_of: Callable[..., Outcome]) -> None:
    seen = []

    def look(*_: object) -> None:
        seen.append((torch.are_deterministic_algorithms_enabled(), os.environ[WORKSPACE]))

    outcome_of(look, {})
    assert seen == [(True, FIXED_WORKSPACE)]
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory
    any_order()


def test_a_workspace_that_the_user_chose_stays_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKSPACE, ":0:0")
    with same_bits(wanted=True):
        assert os.environ[WORKSPACE] == ":0:0"
    outcome = failed(
        RuntimeError(
            "Deterministic behavior was enabled with either `torch.use_deterministic_algorithms(True)` or "
            "`at::Context::setDeterministicAlgorithms(true)`, but this operation is not deterministic because it uses "
            "CuBLAS and you have CUDA >= 10.2. To enable deterministic behavior in this case, you must set an "
            "environment variable before running your PyTorch application: CUBLAS_WORKSPACE_CONFIG=:4096:8 or "
            "CUBLAS_WORKSPACE_CONFIG=:16:8."
        )
    )
    assert outcome.failure is FailureClass.INPUT
    assert outcome.message.startswith(
        "CUBLAS_WORKSPACE_CONFIG=:0:0 lets cuBLAS add in any order: unset it, set :4096:8"
    )


def test_the_numbers_of_a_sweep_are_the_same_sweeps_without() -> None:
    stages = [
        [stage.stage_id for stage in plan_of(GPU | changes).stages]
        for changes in ({}, {"compute.deterministic": False})
    ]
    assert stages[0] == stages[1]


def test_the_first_gpu_is_noted_and_only_its_kind_goes_on(tmp_path: Path) -> None:
    folder = ResultsFolder(tmp_path / "results")
    refuse_other_gpu(folder, H100)
    refuse_other_gpu(folder, replace(H100, memory=H100.memory - 2**20))  # of another driver
    others = [
        SLICE,
        replace(H100, name="NVIDIA H200"),
        replace(H100, capability="9.1"),
        replace(H100, multiprocessors=114),
    ]
    for gpu in others:
        with pytest.raises(OtherGpuError) as refused:
            refuse_other_gpu(folder, gpu)
        assert (
            f"the GPU of {host_name()} is {gpu.kind}, and the numbers in {folder.root} come from {H100.kind}, "
            in str(refused.value)
        )
        assert "or set compute.deterministic: false" in str(refused.value)
    folder.gpu_path.write_bytes(b"{}")
    refuse_other_gpu(folder, SLICE)  # nobody knows


def test_a_worker_with_another_kind_of_gpu_begins_nothing_and_its_node_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, sweep = ResultsFolder(tmp_path / "results"), sweep_of(GPU)
    monkeypatch.setattr(device, "present_device", torch.device)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(worker_state, "gpu_of", lambda device: H100)
    with InlineExecutor(sweep, folder):
        assert unfit_nodes(folder) == {}
    monkeypatch.setattr(worker_state, "gpu_of", lambda device: SLICE)
    with pytest.raises(GpuFailedError, match=r"MIG 1g\.10gb .* use GPUs of one kind"), InlineExecutor(sweep, folder):
        pass
    with InlineExecutor(sweep_of(GPU | {"compute.deterministic": False}), folder):
        pass
    ((node, why),) = unfit_nodes(folder).items()
    assert node == host_name()
    assert why.startswith(f"the GPU of {node} is NVIDIA H100 80GB HBM3 MIG")
    monkeypatch.setattr("time.time", lambda: 2e10)
    assert unfit_nodes(folder) == {}


def test_torch_is_not_loaded_before_the_command_says_how_memory_is_divided(tmp_path: Path) -> None:
    import subprocess

    code = "import sys, orchestrator.cli.app, orchestrator.spec; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert said.stdout.strip() == "False"
