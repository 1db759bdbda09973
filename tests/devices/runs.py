"""Runs of a sweep in this process, with what they moved between the devices and waited for."""

from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from finetune.model.scorer import Scorer
from orchestrator.spec import read_spec
from orchestrator.stages.context.work import Product, Work
from orchestrator.store.stage import Stage, StageKind
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


def moved_by(spec: Path, kind: str) -> dict[str, int]:
    """Run a spec; return the waits, copies and bytes of the stages of a kind, and the batches that they computed."""
    found: Counter[str] = Counter()
    compute, rows_here = StageKind.compute, Scorer.rows_here

    def counting(self: StageKind, stage: Stage, work: Work) -> Product:
        before = COUNTED.copy()
        product = compute(self, stage, work)
        if self.name == kind:
            found.update(COUNTED - before)
        return product

    def one_batch(*args: Any, **options: Any) -> Any:
        found["batches"] += 1
        return rows_here(*args, **options)

    with (
        mock.patch.object(StageKind, "compute", counting),
        mock.patch.object(Scorer, "rows_here", one_batch),
    ):
        run_spec(spec)
    return dict(found)
