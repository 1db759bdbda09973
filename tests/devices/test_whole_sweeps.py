"""Whole sweeps on a device that keeps its tensors apart from the host's give the tables of a processor."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.devices.conftest import Pretending
from tests.devices.runs import counted
from tests.orchestrator.sweeps import make_sweep, results_of, run_spec, write_data, write_spec
from tests.tiny_models import save_tiny

pytestmark = pytest.mark.xdist_group("pretended device")

Changes = Mapping[str, Any]

KERNELS: Mapping[str, Changes] = {
    "eigenvectors": {"kernel.eigenvectors": True},
    "single precision": {"model.dtype": "float32", "compute.gram_dtype": "float32"},
    "half precision": {"model.dtype": "bfloat16"},
    "ridge probe of a margin, its eigenvectors": {
        "kernel.outputs": "margin",
        "kernel.eigenvectors": True,
        "head.kind": "ridge",
    },
    "logistic probe of a trace": {"kernel.outputs": "trace", "head.kind": "logistic"},
    "signs": {"kernel.kind": "sign"},
    "signs of one side": {"kernel.kind": "asymmetric_sign"},
    "iterative": {"kernel.decomposition": "iterative"},
    "additions": {"kernel.additions": True},
    "checkpointing, batches by memory": {"compute.checkpointing": True, "compute.batch_tokens": "auto"},
    "weights themselves": {"adapter.kind": "none", "adapter.rank": None},
}

TRAINED: Changes = {
    "finetune.learning_rate": 0.01,
    "finetune.epochs": 1,
    "finetune.num_evaluations": 1,
    "finetune.batch_size": 4,
    "grid.layer_sets": ["all_layers"],
    "compute.shard_examples": 16,
}

TRAININGS: Mapping[str, Changes] = {
    "adamw, patience": {"finetune.early_stopping_patience": 1, "finetune.epochs": 2, "finetune.num_evaluations": 2},
    "gradient descent, by products": {"finetune.optimizer": "gradient_descent", "finetune.linearization": "products"},
    "sgd, selective, without a cache, checkpointing": {
        "finetune.optimizer": "sgd",
        "finetune.momentum": 0.9,
        "finetune.max_grad_norm": 1.0,
        "finetune.regularizer": "selective",
        "finetune.prefix_cache": False,
        "compute.checkpointing": True,
    },
    "decoupled, seeds side by side": {
        "finetune.regularizer": "decoupled",
        "finetune.stacked_across": ["seeds"],
        "grid.seeds": [0, 1],
    },
    "projected, cross-entropy": {
        "finetune.regularizer": "spd",
        "finetune.loss": "cross_entropy",
        "grid.lambdas.scale": "absolute",
    },
    "learning rates side by side, a head outside the kernel": {
        "finetune.stacked_across": ["learning_rates"],
        "grid.learning_rates": [0.01, 0.001],
        "finetune.train_head": True,
        "head.in_kernel": False,
    },
    "weights themselves, single precision": {
        "adapter.kind": "none",
        "adapter.rank": None,
        "model.dtype": "float32",
    },
    "tasks combined": {
        "task.data": None,
        "grid.tasks": {"films": {"data": "films.parquet"}, "books": {"data": "data.parquet"}},
        "finetune.combinations": {"coefficients": [0.25, 1.0]},
        "finetune.kernel_examples": 0,
    },
}

CLOSE = {"single precision": 1e-4, "weights themselves, single precision": 1e-3, "half precision": 0.05}
"""Relative tolerance where the precision of the model is not double, for numbers that rounding changes little."""

STABLE = ("sigma_max", "trace", "train_loss", "eval_loss", "linearized_eval_loss", "finetune_eval_loss")

CASES = [pytest.param(changes, CLOSE.get(name), id=name) for name, changes in KERNELS.items()] + [
    pytest.param({**TRAINED, **changes}, CLOSE.get(name), id=f"trained: {name}") for name, changes in TRAININGS.items()
]


@pytest.mark.parametrize(("changes", "close"), CASES)
def test_tables_are_those_of_a_processor(
    changes: Changes, close: float | None, pretending: Pretending, tmp_path: Path, tiny_model: Path
):
    compare(changes, close, pretending, tmp_path, tiny_model)


def test_label_words_have_the_numbers_of_a_processor(pretending: Pretending, tmp_path: Path):
    save_tiny("bert", tmp_path / "masked", masked=True)
    words = {"kind": "label_words", "words": ["bad", "good"], "in_kernel": False}
    changes = {"head": words, "task.template": "{text} it was {mask}", **TRAINED}
    compare(changes, None, pretending, tmp_path, tmp_path / "masked")


def compare(changes: Changes, close: float | None, pretending: Pretending, folder: Path, model: Path) -> None:
    """Run a spec on a processor and on the device, and compare their tables."""
    here = make_sweep(folder / "here", changes, model=model)
    write_data(folder / "here" / "films.parquet", seed=1)
    there = write_spec(
        folder / "here",
        {
            **changes,
            "model.path": str(model),
            "compute.device": "cuda",
            "results.folder": str(folder / "there"),
        },
        name="there.yaml",
    )
    run_spec(here)
    assert pretending(counted, there)["bytes to the device"]
    expected, found = (results_of(spec) for spec in (here, there))
    same(found.cells.to_pandas(), expected.cells.to_pandas(), close)
    if "finetune.combinations" in changes:
        same(found.combinations.to_pandas(), expected.combinations.to_pandas(), close)


def same(found: pd.DataFrame, expected: pd.DataFrame, close: float | None) -> None:
    numbers = [name for name in expected.select_dtypes("floating") if "seconds" not in name]
    assert len(expected)
    for name in numbers if close is None else set(STABLE) & set(numbers):
        rtol, atol = (1e-9, 1e-12) if close is None else (close, 0.0)
        np.testing.assert_allclose(found[name], expected[name], rtol=rtol, atol=atol, err_msg=name)
