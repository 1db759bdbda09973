"""The benchmark of GPUs runs without one, on tiny shapes, and compares passes that compute the same."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, gpu_capture
from ntk_dist.jacobian.capture import jacobian_rows
from tests.faults.driving import call

CPU = torch.device("cpu")


def test_every_part_runs_and_is_written(tmp_path: Path):
    # DeepSpeed makes a group of the process.
    call(gpu.main, ["--small", "--output", str(tmp_path), "--repeats", "1"])
    facts = json.loads((tmp_path / "gpu.json").read_text())
    assert facts.keys() == {"machine", "peak", "capture", "gram", "eigh"}
    assert len(facts["capture"]) == 6
    assert "DeepSpeed" in facts["capture"][-1]["name"]
    assert not [each["failed"] for each in [*facts["capture"], *facts["eigh"]] if each["failed"]]
    text = (tmp_path / "gpu.md").read_text()
    assert "| tiny Llama | capture |" in text
    assert "at least 0.8" in text


def test_without_a_gpu_large_shapes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="--small"):
        gpu.main(["--output", str(tmp_path)])


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_functional_transforms_give_the_rows_that_they_are_timed_against():
    scorer, batch = gpu_capture.build(gpu_capture.SMALL[0], CPU, 2, 2), gpu_capture.SMALL[0].batch()
    scorer.model.float()
    _, rows = jacobian_rows(lambda: scorer.logits(batch), scorer.groups)
    found = gpu_capture.by_vmap(scorer, batch)
    for group, linears in scorer.groups.items():
        (name,) = [linear.name.removeprefix("model.") + ".default.weight" for linear in linears]
        for output in range(2):
            assert torch.allclose(found[output][name].flatten(1), rows[group][:, output], rtol=1e-3, atol=1e-6)
