"""Stages that take no time, that take long, that end their worker, and that break its GPU the first time."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import orchestrator.stage
from orchestrator.executors import ray_teams
from orchestrator.stage import Stage
from orchestrator.stages import registry
from orchestrator.stages.work import Product, Work

QUICK, SLOW, DEADLY, BREAKING = "quick", "slow", "deadly", "breaking"


def compute(stage: Stage, work: Work) -> Product:
    if stage.kind == SLOW:
        time.sleep(0.1)
    if stage.kind == DEADLY:
        os.kill(os.getpid(), signal.SIGKILL)
    if stage.kind == BREAKING:
        _break(Path(stage.parameters["gpus"]), os.environ["CUDA_VISIBLE_DEVICES"])
    return Product({"gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "process": os.getpid()})


def _break(folder: Path, gpu: str) -> None:
    """Say what CUDA says of a GPU that fails, unless none is to fail any more."""
    if left := sorted(folder.glob("to break *")):
        left[0].rename(folder / f"{os.getpid()} broke {gpu}")
        raise RuntimeError("CUDA error: uncorrectable ECC error encountered\nCUDA kernel errors might be ...")


def register() -> None:
    for kind in (QUICK, SLOW, DEADLY, BREAKING):
        orchestrator.stage.NUMERICS_VERSION = {**orchestrator.stage.NUMERICS_VERSION, kind: 1}
        registry._MODULES[kind] = __name__


class Worker(ray_teams.Worker):
    """A worker that knows the kinds of this module."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        register()
        super().__init__(*arguments, **options)
