"""Workers that share a device choose their batches by their part of its memory, whatever is free now."""

from pathlib import Path

import pytest

from ntk_dist.device.share import CONTEXT_BYTES
from orchestrator.stages.batches.memory import SHARE_OF_FREE
from tests.devices.conftest import Pretending
from tests.devices.runs import batches_of
from tests.orchestrator.sweeps import make_sweep
from tests.pretended_device import MEMORY

pytestmark = pytest.mark.xdist_group("pretended device")


def test_batches_are_chosen_by_a_part_of_the_memory(pretending: Pretending, tmp_path: Path, tiny_model: Path):
    limits = []
    for workers in (1, 4):
        changes = {"compute.device": "cuda", "compute.workers_per_gpu": workers, "compute.batch_tokens": "auto"}
        (found,) = pretending(batches_of, make_sweep(tmp_path / str(workers), changes, model=tiny_model))
        limits.append(found["limit_bytes"])
    assert limits[0] == int(SHARE_OF_FREE * MEMORY)
    assert limits[1] == pytest.approx(SHARE_OF_FREE * (MEMORY / 4 - CONTEXT_BYTES), abs=8)
