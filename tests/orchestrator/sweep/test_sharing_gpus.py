"""Several GPUs, and several workers on one: how many workers there are, where they find room, what each may take.

There are no GPUs here: how many torch finds, and how large they are, is put in its place.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ntk_dist.device.share import CONTEXT_BYTES, bytes_left, part_of_gpu, take_part
from ntk_dist.device.transfers import LostDeviceError, present_device
from orchestrator.cluster.submitting import _refuse_groups_that_are_not_whole
from orchestrator.errors import BudgetError, SpecError
from orchestrator.stages.context.failures import failed
from orchestrator.sweep.model_memory import fitting_notes, this_device
from orchestrator.sweep.workers import gpus_here, refuse_more_workers_than_gpus_hold, worker_count
from slurm.profile.profile import Profile
from tests.orchestrator.sweeps import make_sweep, ntksweep, plan_of, survey_of, sweep_of

GPU: dict[str, Any] = {"compute.device": "cuda", "compute.executor": "ray", "compute.workers": None}


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.parametrize(
    ("changes", "workers"),
    [
        ({}, 2),
        ({"compute.workers_per_gpu": 3}, 6),
        ({"compute.workers": 1}, 1),
        ({"sharding.group_size": 2, "model.dtype": "float32"}, 2),
        ({"compute.workers_per_gpu": 2, "compute.executor": "inline"}, 1),
    ],
)
def test_there_is_a_worker_for_every_place_on_a_gpu(changes: dict[str, Any], workers: int, two_gpus: None) -> None:
    sweep = sweep_of(GPU | changes)
    assert worker_count(sweep) == workers
    refuse_more_workers_than_gpus_hold(sweep.spec, workers)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"compute.workers": 3},
            "this machine has 2 GPUs, .* set compute.workers: 2, or compute.workers_per_gpu: 2 to",
        ),
        (
            {"compute.workers": 9, "compute.workers_per_gpu": 4},
            "set compute.workers: 8, or compute.workers_per_gpu: 5 to",
        ),
        ({"sharding.group_size": 4, "model.dtype": "float32"}, "need a GPU each, and this machine has 2 GPUs: lower"),
    ],
)
def test_workers_that_would_wait_for_room_for_ever_are_refused(
    changes: dict[str, Any], message: str, two_gpus: None
) -> None:
    sweep = sweep_of(GPU | changes)
    with pytest.raises(SpecError, match=message):
        refuse_more_workers_than_gpus_hold(sweep.spec, worker_count(sweep))


def test_a_plan_says_so_and_is_none_the_less_made_for_a_cluster(
    two_gpus: None, tmp_path: Path, tiny_model: Path
) -> None:
    answer = ntksweep("plan", make_sweep(tmp_path, GPU | {"compute.workers": 3}, model=tiny_model))
    assert answer.status == 0, answer.output
    assert "`run` would refuse this here: 3 workers do not find room: this machine has 2 GPUs" in " ".join(
        answer.output.split()
    )


def test_every_mig_instance_counts_though_a_process_sees_one(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = "MIG-2d7ee6a7-9d29-5ea9-8a2b-3e6ba1c7f9a6,MIG-7ebc6cd7-6ac4-5d4b-a1a2-4d0f7bc38f7f"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert gpus_here() == 2
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert gpus_here() == 0


def test_a_plan_divides_the_memory_of_a_gpu_among_those_that_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=80 * 10**9))
    sweep = sweep_of(GPU | {"compute.workers_per_gpu": 4})
    device = this_device(sweep.spec, 4)
    assert device is not None
    assert device.memory == 20 * 10**9 - CONTEXT_BYTES
    assert "of 19.4 GB (this machine's GPU, shared by 4)" in fitting_notes(sweep, survey_of(), device)[1]
    alone = this_device(sweep_of(GPU).spec, 1)
    assert alone is not None
    assert (alone.memory, alone.name) == (80 * 10**9, "this machine's GPU")


class Gpu:
    """A stand-in for torch's view of a GPU with 80 GB, a part of which others hold."""

    def __init__(self, *, others: int = 0, reserved: int = 0, allocated: int = 0) -> None:
        self.fraction, self.others, self.reserved, self.allocated = 1.0, others, reserved, allocated

    def mem_get_info(self, device: object) -> tuple[int, int]:
        return 80 * 10**9 - self.others - self.reserved, 80 * 10**9

    def memory_reserved(self, device: object) -> int:
        return self.reserved

    def memory_allocated(self, device: object) -> int:
        return self.allocated

    def get_per_process_memory_fraction(self, device: object) -> float:
        return self.fraction

    def set_per_process_memory_fraction(self, fraction: float, device: object) -> None:
        self.fraction = fraction


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_workers_on_a_gpu_never_take_more_than_there_is_together(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, gigabyte = torch.device("cuda"), 10**9
    part = part_of_gpu(80 * gigabyte, workers)
    assert workers * (part + (CONTEXT_BYTES if workers > 1 else 0)) <= 80 * gigabyte
    held = part // 4
    # The first of them comes when nothing is taken, the last when all others have what is theirs.
    for others in (0, (workers - 1) * (part + CONTEXT_BYTES)):
        gpu = Gpu(others=others, reserved=held, allocated=held // 2)
        monkeypatch.setattr(torch, "get_device_module", lambda device, gpu=gpu: gpu)
        take_part(cuda, workers)
        assert gpu.allocated + bytes_left(cuda) == pytest.approx(part, abs=8)


def test_others_that_take_more_than_their_part_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(others=70 * 10**9)
    monkeypatch.setattr(torch, "get_device_module", lambda device: gpu)
    take_part(torch.device("cuda"), 2)
    assert bytes_left(torch.device("cuda")) == 10 * 10**9


def test_a_worker_whose_gpu_is_not_there_has_a_broken_node_and_no_wrong_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    with pytest.raises(
        LostDeviceError, match="CUDA_VISIBLE_DEVICES=2 gives this process a GPU, and torch finds"
    ) as lost:
        present_device("cuda")
    assert failed(lost.value).broken_gpu


def test_no_two_processes_of_a_group_share_a_gpu_in_an_allocation(tmp_path: Path) -> None:
    given = {"memory": "64GB", "time_limit": "1h", "tasks_per_node": 2, "gpus_per_task": 0.5}
    plan = plan_of(GPU | {"sharding.group_size": 2, "model.dtype": "float32"})
    with pytest.raises(BudgetError, match=r"gpus_per_task puts 2 workers on a GPU, .* NCCL connects no two on one"):
        _refuse_groups_that_are_not_whole(plan, Profile.model_validate(given))
    _refuse_groups_that_are_not_whole(plan, Profile.model_validate(given | {"gpus_per_task": 1}))
