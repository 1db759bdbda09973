"""Runs of a sweep in this process, with what they moved between the devices and waited for."""

from pathlib import Path

import torch

from orchestrator.spec import read_spec
from orchestrator.sweep.folder import ResultsFolder
from tests.orchestrator.sweeps import run_spec
from tests.pretended_device import COUNTED, WAITED_AT


def counted(spec: Path) -> dict[str, int]:
    """Run a spec; return the waits, copies and bytes of the whole run."""
    COUNTED.clear()
    run_spec(spec)
    return dict(COUNTED)


def batches_of(spec: Path) -> list[dict[str, int]]:
    """Run a spec; return what each stage found of the batches that fit, and leave the device to the next run."""
    run_spec(spec)
    store = ResultsFolder(read_spec(spec).folder).artifacts()
    torch.get_device_module("pretend").set_per_process_memory_fraction(1.0)
    return [dict(store.open("batches", stage_id).facts) for stage_id in sorted(store.finished("batches"))]


def waited_in(spec: Path, part: str) -> list[str]:
    """Run a spec; return where the host waited in files whose paths contain `part`."""
    WAITED_AT.clear()
    run_spec(spec)
    return [place for place in WAITED_AT if part in place]
