"""GPUs as CUDA_VISIBLE_DEVICES names them, and workers that share them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm.ray.gpus import allocator_settings, gpus_of_a_worker, visible_gpus, workers_on_a_gpu
from slurm.ray.node import MissingGpusError, refuse_missing_gpus

CARD = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
OLD_SLICES = ["MIG-GPU-b8ea3855-276c-c9cb-b366-c6fa655957c5/1/0", "MIG-GPU-b8ea3855-276c-c9cb-b366-c6fa655957c5/1/1"]
NEW_SLICES = ["MIG-2d7ee6a7-9d29-5ea9-8a2b-3e6ba1c7f9a6", "MIG-7ebc6cd7-6ac4-5d4b-a1a2-4d0f7bc38f7f"]


@pytest.mark.parametrize(
    ("listed", "gpus"),
    [
        ("0", ["0"]),
        ("0,1,2,3", ["0", "1", "2", "3"]),
        ("2, 5", ["2", "5"]),
        (CARD, [CARD]),
        (",".join(OLD_SLICES), OLD_SLICES),
        (",".join(NEW_SLICES), NEW_SLICES),
        ("", []),
        ("NoDevFiles", []),
        ("-1", []),
        ("1,-1,0", ["1"]),
        ("0,0", []),
    ],
)
def test_what_a_process_sees_is_read_as_cuda_reads_it(listed: str, gpus: list[str]) -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": listed}) == gpus


def test_without_the_variable_nothing_is_hidden() -> None:
    assert visible_gpus({"HOME": "/"}) is None


@given(st.integers(1, 64), st.integers(0, 16))
def test_all_workers_find_room_on_the_gpus_and_no_gpu_holds_more_than_said(workers: int, gpus: int) -> None:
    each = gpus_of_a_worker(workers, gpus)
    if each < 1:
        on_one = workers_on_a_gpu(workers, gpus)
        assert each in (0.0, 1 / on_one)
        assert gpus == 0 or gpus * on_one >= workers
    else:
        # Ray takes whole numbers alone beyond 1.
        assert each.is_integer()
        assert workers * each <= gpus


@pytest.mark.parametrize("name", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
def test_how_a_user_has_memory_divided_stays(name: str) -> None:
    assert allocator_settings({"HOME": "/"}) == {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
    assert allocator_settings({name: "max_split_size_mb:128"}) == {}


def test_a_node_that_gives_fewer_gpus_than_asked_for_is_told_before_ray_starts() -> None:
    refuse_missing_gpus(2, {"CUDA_VISIBLE_DEVICES": ",".join(NEW_SLICES)})
    refuse_missing_gpus(2, {})
    refuse_missing_gpus(0, {"CUDA_VISIBLE_DEVICES": "NoDevFiles"})
    with pytest.raises(MissingGpusError, match=r"asked for 2 GPUs .* has 1 there \(CUDA_VISIBLE_DEVICES=3\): see what"):
        refuse_missing_gpus(2, {"CUDA_VISIBLE_DEVICES": "3"})
