"""Small sweeps whose cells are trained."""

from pathlib import Path
from typing import Any

from tests.orchestrator.sweeps import make_sweep

TRAINING: dict[str, Any] = {
    "learning_rate": 0.05, "epochs": 6, "batch_size": 4, "num_evaluations": 3, "stacked_cells": 2, "kernel_examples": 4,
}  # fmt: skip

DESCENT = TRAINING | {"optimizer": "gradient_descent", "learning_rate": 0.02, "epochs": 12}


def training(folder: Path, model: Path, settings: dict[str, Any] = TRAINING, **changes: Any) -> Path:
    return make_sweep(folder, {"finetune": settings} | changes, model=model)
