"""Stages that take no time, that take long, and that end their worker."""

import os
import signal
import time
from typing import Any

import orchestrator.stage
from orchestrator.executors import ray_teams
from orchestrator.stage import Stage
from orchestrator.stages import registry
from orchestrator.stages.work import Product, Work

QUICK, SLOW, DEADLY = "quick", "slow", "deadly"


def compute(stage: Stage, work: Work) -> Product:
    if stage.kind == SLOW:
        time.sleep(0.1)
    if stage.kind == DEADLY:
        os.kill(os.getpid(), signal.SIGKILL)
    return Product({})


def register() -> None:
    for kind in (QUICK, SLOW, DEADLY):
        orchestrator.stage.NUMERICS_VERSION = {**orchestrator.stage.NUMERICS_VERSION, kind: 1}
        registry._MODULES[kind] = __name__


class Worker(ray_teams.Worker):
    """A worker that knows the kinds of this module."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        register()
        super().__init__(*arguments, **options)
