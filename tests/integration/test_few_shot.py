"""Few-shot kernel solutions: k examples of each class behind a prompt, label words, and each of the three kernels."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import orchestrator
from orchestrator.engine.run import Ending, run
from orchestrator.spec import Spec
from orchestrator.sweep.folder import ResultsFolder
from tests.integration.test_end_to_end import Reference, Silent
from tests.tiny_models import WORDS, save_tiny

K, N_EVAL, SEED = 16, 6, 3
GOOD, BAD = ("great", "good", "bright"), ("terrible", "bad", "dull")
MODELS: dict[str, dict[str, Any]] = {
    "masked": {"kind": "roberta", "target_modules": ["query", "value"], "template": "{text} it was {mask}"},
    "causal": {"kind": "gpt2", "target_modules": ["c_attn"], "template": "{text} it was"},
}


def write_data(path: Path) -> list[str]:
    """Sentences of which two thirds are bad, so that a random draw would not be balanced."""
    draw = np.random.default_rng(0)
    labels = [int(i % 3 == 0) for i in range(90)]
    texts = [" ".join([*draw.choice(WORDS, draw.integers(1, 6)), draw.choice(GOOD if y else BAD)]) for y in labels]
    pq.write_table(pa.table({"text": texts, "label": labels}), path)
    return texts


def few_shot(folder: Path, model: str, **sections: Any) -> tuple[Spec, list[str], Ending]:
    case = MODELS[model]
    save_tiny(case["kind"], folder / "model", hidden=8, masked=model == "masked")
    texts = write_data(folder / "data.parquet")
    spec = Spec.model_validate({
        "name": "few-shot",
        "model": {"path": "model", "dtype": "float64"},
        "task": {
            "data": "data.parquet", "kind": "classification", "template": case["template"], "sampling": "balanced",
            "max_length": 16, "n_eval": N_EVAL,
        },
        "adapter": {"rank": 2, "lora_alpha": 4, "target_modules": case["target_modules"]},
        "head": {"kind": "label_words", "words": ["terrible", "great"], "in_kernel": False},
        "grid": {
            "lambdas": {"values": [0.01, 1.0], "scale": "trace"}, "layer_sets": ["all_layers"], "seeds": [SEED],
            "n_train": [2 * K],
        },
        "compute": {"executor": "inline", "shard_examples": 16, "batch_tokens": 100},
        "results": {"folder": str(folder / "results"), "predictions": True},
    } | sections)  # fmt: skip
    ending = run(spec, folder, Silent())
    assert not ending.report.failures
    return spec, texts, ending


@pytest.mark.parametrize("kernel", ["sgd", "sign", "asymmetric_sign"])
@pytest.mark.parametrize("model", list(MODELS))
def test_predictions_are_those_of_the_kernel_system(tmp_path, model, kernel):
    spec, texts, ending = few_shot(tmp_path, model, kernel={"kind": kernel, "outputs": "full"})
    (reference,) = ending.plan.solves[0].stage.inputs["dataset"]
    dataset = ResultsFolder(spec.folder).artifacts().open(*reference)
    rows = {split: np.array(dataset.array(f"{split}.rows")) for split in ("train", "eval")}
    labels = np.array(dataset.array("train.labels"))
    assert Counter(labels[:K].tolist()) == Counter(labels[K:].tolist()) == {0: K // 2, 1: K // 2}
    assert not set(rows["train"]) & set(rows["eval"])

    definition = Reference(spec, tmp_path, texts, rows)
    groups = list(definition.jacobian["train"])
    J, J_eval = (definition.features(split, groups, sign=kernel == "sign") for split in ("train", "eval"))
    right = definition.features("train", groups, sign=kernel != "sgd")
    K_train, K_eval = J @ right.T, J_eval @ right.T
    assert np.allclose(K_train, K_train.T) == (kernel != "asymmetric_sign")
    residual = definition.targets["train"] - definition.initial["train"]

    results = orchestrator.load(spec.folder)
    predictions = results.predictions.to_pandas()
    for _, cell in results.cells.to_pandas().iterrows():
        strength = cell.lambda_given * np.trace(K_train) / len(K_train)
        alpha = np.linalg.solve(K_train + strength * np.eye(len(K_train)), residual)
        expected = definition.initial["eval"] + K_eval @ alpha
        found = predictions[predictions.cell_id == cell.cell_id].prediction.to_numpy()
        assert np.abs(found - expected.ravel()).max() < 1e-9 * np.abs(expected).max()
        singular = np.linalg.svd(K_train, compute_uv=False)
        assert np.isclose(
            cell.condition_number_fixed_sigma,
            (singular[0] + spec.kernel.sigma) / (singular[-1] + spec.kernel.sigma),
            rtol=1e-6,
        )


@pytest.mark.parametrize("model", list(MODELS))
def test_a_prompted_model_is_trained_beside_its_linearization(tmp_path, model):
    finetune = {"optimizer": "gradient_descent", "learning_rate": 1e-3, "epochs": 3}
    spec, _, _ = few_shot(tmp_path, model, finetune=finetune)
    cells = orchestrator.load(spec.folder).cells.to_pandas()
    assert len(cells) == 2
    assert (cells.finetune_status == "finished").all()
    # three small steps: the model moves, and as its linearization does
    assert (cells.finetune_distance > 1e-3).all()
    assert (cells.difference_eval_relative_to_change < 0.05).all()
