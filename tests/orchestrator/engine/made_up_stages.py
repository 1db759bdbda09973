"""Stages that take no time, that take long, that end their worker, and that break its GPU the first time."""

import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.engine.executors import ray_teams
from orchestrator.engine.executors.ray_actor import Introduction
from orchestrator.stages.context.failures import FailureClass, Outcome, Status
from orchestrator.stages.context.work import Product, Work
from orchestrator.store.stage import Stage, StageKind


@dataclass(frozen=True)
class MadeUp:
    """Parameters of a stage that computes nothing: its number, and where GPUs are to break."""

    number: int = 0
    gpus: str = ""


QUICK, SLOW, DEADLY, BREAKING = (
    StageKind(name=name, parameters=MadeUp, version=1, meaning="nothing", module=__name__)
    for name in ("quick", "slow", "deadly", "breaking")
)


def compute(stage: Stage[MadeUp], work: Work) -> Product:
    if stage.of == SLOW:
        time.sleep(0.1)
    if stage.of == DEADLY:
        os.kill(os.getpid(), signal.SIGKILL)
    if stage.of == BREAKING:
        _break(Path(stage.parameters.gpus), os.environ["CUDA_VISIBLE_DEVICES"])
    seen = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "PYTORCH_ALLOC_CONF")}
    return Product({"process": os.getpid(), **seen})


def _break(folder: Path, gpu: str) -> None:
    """Say what CUDA says of a GPU that fails, unless none is to fail any more."""
    if left := sorted(folder.glob("to break *")):
        left[0].rename(folder / f"{os.getpid()} broke {gpu}")
        raise RuntimeError("CUDA error: uncorrectable ECC error encountered\nCUDA kernel errors might be ...")


class Worker(ray_teams.Worker):
    """A worker whose GPU may be another one than it should be."""

    def introduce(self) -> Introduction:
        found = super().introduce()
        if os.environ.get("UNFIT_GPU", "none") != os.environ.get("CUDA_VISIBLE_DEVICES", ""):
            return found
        return replace(found, unfit=Outcome(Status.FAILED, FailureClass.NODE, "of another kind", spent=True))
