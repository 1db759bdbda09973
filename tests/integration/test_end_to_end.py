"""A whole sweep against the definition: one example at a time, plain autograd, dense float64 solves."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file

import orchestrator
from finetune.data.targets import arrange, code_targets, kernel_outputs
from finetune.data.tokens import tokenize
from finetune.scorers import build_scorer
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from orchestrator.engine.run import run
from orchestrator.spec import Spec
from orchestrator.sweep.folder import ResultsFolder
from tests.single_example import reference_rows
from tests.tiny_models import ALL_TARGETS, WORDS, save_tiny

N_TRAIN, N_EVAL, SEED = 14, 5, 3
LIMIT = {"float64": 1e-10, "float32": 2e-5}


class Silent:
    """Progress that nobody watches."""

    def begin(self, totals: dict[str, int], finished: dict[str, int]) -> None: ...
    def advance(self, kind: str) -> None: ...
    def note(self, message: str) -> None: ...


def write_data(path: Path, n_classes: int) -> list[str]:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, size=rng.integers(1, 9))) for _ in range(30)]
    labels = rng.integers(0, n_classes, size=30) if n_classes > 1 else rng.normal(size=30)
    pq.write_table(pa.table({"text": texts, "label": labels}), path)
    return texts


CASES: dict[str, dict[str, Any]] = {
    "encoder, margin": {"kind": "bert", "classes": 2, "outputs": "margin"},
    "encoder, six classes, full": {"kind": "bert", "classes": 6, "outputs": "full"},
    "encoder, six classes, trace": {"kind": "bert", "classes": 6, "outputs": "trace", "eigenvectors": True},
    "encoder, float32": {"kind": "bert", "classes": 2, "outputs": "margin", "dtype": "float32"},
    "encoder, float32, full": {"kind": "roberta", "classes": 2, "outputs": "full", "dtype": "float32"},
    "decoder, regression, both matrices": {"kind": "llama", "classes": 1, "outputs": "full", "init": "random"},
    "decoder, two classes": {"kind": "gpt2", "classes": 2, "outputs": "full", "target_modules": ["c_attn"]},
    "decoder, float32, margin": {"kind": "mistral", "classes": 2, "outputs": "margin", "dtype": "float32"},
    "decoder, every module": {"kind": "qwen3", "classes": 2, "outputs": "full", "target_modules": ALL_TARGETS["qwen3"]},
    "decoder, plain attention": {"kind": "gemma2", "classes": 2, "outputs": "full", "init": "random"},
    "encoder of two parts": {"kind": "t5_gated", "classes": 3, "outputs": "trace", "target_modules": ["q", "wi_0"]},
    "encoder of two parts, ridge head": {
        "kind": "t5", "classes": 2, "outputs": "full", "target_modules": ["v", "wo"], "head": "ridge",
    },
    "dense groups": {"kind": "bert", "classes": 2, "outputs": "full", "adapter": "none"},
    "primal": {
        "kind": "bert", "classes": 2, "outputs": "full", "rank": 1, "target_modules": ["value"],
        "head_in": False,
    },
    "primal, trace": {
        "kind": "bert", "classes": 3, "outputs": "trace", "rank": 1, "hidden": 4, "target_modules": ["value"],
        "head_in": False,
    },
    "primal, eigenvectors": {
        "kind": "bert", "classes": 6, "outputs": "full", "rank": 1, "head_in": False, "eigenvectors": True,
    },
    "primal, head, sign": {
        "kind": "bert", "classes": 6, "outputs": "full", "rank": 1, "hidden": 4, "target_modules": ["value"],
        "kernel": "sign",
    },
    "sign": {"kind": "bert", "classes": 2, "outputs": "full", "kernel": "sign"},
    "asymmetric sign": {"kind": "bert", "classes": 2, "outputs": "margin", "kernel": "asymmetric_sign"},
    "label words": {
        "kind": "gpt2", "classes": 2, "outputs": "margin", "target_modules": ["c_attn", "c_fc"], "head": "label_words",
        "words": ["bad", "good"], "head_in": False, "template": "{text} it was",
    },
    "logistic head": {"kind": "llama", "classes": 3, "outputs": "full", "head": "logistic"},
    "ridge head": {"kind": "bert", "classes": 2, "outputs": "margin", "head": "ridge"},
}  # fmt: skip


def sweep(tmp_path: Path, case: dict[str, Any]) -> tuple[Spec, list[str]]:
    encoders = {"bert": ["query", "value"], "roberta": ["key", "value"]}
    targets = case.get("target_modules") or encoders.get(case["kind"], ["q_proj", "up_proj"])
    hidden = case.get("hidden", 8)
    save_tiny(case["kind"], tmp_path / "model", layers=2, hidden=hidden)
    texts = write_data(tmp_path / "data.parquet", case["classes"])
    spec = Spec.model_validate({
        "name": "exact",
        "model": {"path": "model", "dtype": case.get("dtype", "float64")},
        "task": {
            "data": "data.parquet", "kind": "regression" if case["classes"] == 1 else "classification",
            "n_eval": N_EVAL, "max_length": 16, "template": case.get("template"),
        },
        "adapter": {
            "kind": case.get("adapter", "lora"), "rank": case.get("rank", 2), "lora_alpha": 5,
            "target_modules": targets, "initialization": case.get("init", "zero"),
        },
        "head": {
            "kind": case.get("head", "random"), "in_kernel": case.get("head_in", True), "l2_penalty": 0.5,
            "words": case.get("words", []),
        },
        "kernel": {
            "kind": case.get("kernel", "sgd"), "outputs": case["outputs"],
            "eigenvectors": case.get("eigenvectors", False),
        },
        "grid": {
            "lambdas": {"values": [0.01, 0.3, 7.0], "scale": "trace"},
            "layer_sets": ["each_layer", "all_layers"], "seeds": [SEED], "n_train": [N_TRAIN, 6]
            if case.get("head") is None else [N_TRAIN],
        },
        "compute": {"executor": "inline", "shard_examples": 4, "batch_tokens": 24},
        "results": {"folder": str(tmp_path / "results"), "predictions": True},
    })  # fmt: skip
    return spec, texts


class Reference:
    """Jacobian, targets and initial outputs by the definition, in float64."""

    def __init__(self, spec: Spec, folder: Path, texts: list[str], rows: dict[str, np.ndarray]) -> None:
        model = ModelSettings(str(folder / "model"), dtype=spec.model.dtype)
        head, weights = spec.head.model_dump(exclude={"seed"}), None
        if spec.head.kind in ("ridge", "logistic"):
            weights = load_file(next((spec.folder / "artifacts" / "head").glob("*.safetensors")))
        labels = np.array(pq.read_table(folder / "data.parquet")["label"])
        self.n_outputs = 1 if spec.task.kind == "regression" else int(labels.max()) + 1
        scorer = build_scorer(
            model, AdapterSettings(**spec.adapter.model_dump(exclude={"seed"})), HeadSettings(**head),
            n_outputs=self.n_outputs, adapter_seed=SEED, head_seed=SEED, head_weights=weights, groups=None,
        )  # fmt: skip
        if spec.model.dtype == "float32":
            scorer.model.double()  # the same weights, without the rounding of float32
        self.mode, self.kernel = spec.kernel.outputs, spec.kernel.kind
        self.jacobian, self.initial, self.targets = {}, {}, {}
        for split, chosen in rows.items():
            tokens = tokenize(model, [texts[i] for i in chosen], template=spec.task.template, max_length=16)

            def outputs(i: int, tokens: Any = tokens) -> torch.Tensor:
                return kernel_outputs(scorer.logits(tokens.batch([i])), self.mode)

            self.jacobian[split] = reference_rows(outputs, len(tokens), scorer.groups)
            with torch.no_grad():
                scores = torch.cat([outputs(i) for i in range(len(tokens))]).double().numpy()
            self.initial[split] = arrange(scores, self.mode)
            self.targets[split] = code_targets(
                labels[chosen], kind=spec.task.kind, n_outputs=self.n_outputs, outputs=self.mode
            )

    def features(self, split: str, groups: list[str], *, sign: bool) -> np.ndarray:
        rows = [self.jacobian[split][g].double().numpy() for g in groups]  # (n, R, p) each
        joined = np.concatenate([np.sign(r) if sign else r for r in rows], axis=2)
        if self.mode == "trace":
            return joined.reshape(len(joined), -1) / np.sqrt(self.n_outputs)
        return joined.reshape(-1, joined.shape[2])


@pytest.mark.parametrize("name", CASES)
def test_spectra_and_predictions_match_the_definition(tmp_path, name):
    case = CASES[name]
    spec, texts = sweep(tmp_path, case)
    ending = run(spec, tmp_path, Silent())
    assert not ending.report.failures
    methods = {solve.stage.parameters.method for solve in ending.plan.solves}
    assert ("primal" in methods) == name.startswith("primal")
    results = orchestrator.load(spec.folder)
    (dataset_stage,) = ending.plan.solves[0].stage.inputs["dataset"]
    dataset = ResultsFolder(spec.folder).artifacts().open(*dataset_stage)
    rows = {split: np.array(dataset.array(f"{split}.rows")) for split in ("train", "eval")}
    assert not set(rows["train"]) & set(rows["eval"])
    reference = Reference(spec, tmp_path, texts, rows)
    cells, spectra = results.cells.to_pandas(), results.spectra.to_pandas()
    predictions = results.predictions.to_pandas()
    assert len(cells) == ending.plan.n_cells
    for _, cell in cells.iterrows():
        spectrum = spectra[(spectra.layer_set == cell.layer_set) & (spectra.n_train == cell.n_train)].iloc[0]
        check_cell(cell, spectrum, predictions[predictions.cell_id == cell.cell_id], reference, case)


def check_cell(cell: Any, spectrum: Any, predictions: Any, reference: Reference, case: dict[str, Any]) -> None:
    limit = LIMIT[case.get("dtype", "float64")]
    groups, kernel = list(spectrum.groups), reference.kernel
    M = cell.n_train * (reference.n_outputs if reference.mode == "full" else 1)
    J = reference.features("train", groups, sign=kernel == "sign")[:M]
    right = reference.features("train", groups, sign=kernel != "sgd")[:M]
    J_eval = reference.features("eval", groups, sign=kernel == "sign")
    K = J @ right.T
    r = (reference.targets["train"] - reference.initial["train"])[:M]

    expected = np.linalg.svd(K, compute_uv=False)
    assert np.abs(spectrum.eigenvalues - expected[: len(spectrum.eigenvalues)]).max() < limit * expected[0]
    assert close(cell.trace, np.trace(K), limit)
    check_split(cell, K, J_eval @ right.T, reference, limit)
    strength = cell.lambda_given * np.trace(K) / M
    assert close(cell["lambda"], strength, limit)

    # (J'J + lambda I) d = J' r: the primal system, whatever the sweep itself solved
    d = np.linalg.solve(right.T @ J + strength * np.eye(J.shape[1]), right.T @ r)
    expected_fit = reference.initial["eval"] + J_eval @ d
    assert np.abs(predictions.prediction.to_numpy() - expected_fit.ravel()).max() < limit * np.abs(expected_fit).max()
    residual = r - J @ d
    assert close(cell.train_loss, (residual**2).sum() / (2 * cell.n_train), 4 * limit)
    assert close(cell.eval_loss, ((reference.targets["eval"] - expected_fit) ** 2).sum() / (2 * N_EVAL), 4 * limit)
    if kernel == "asymmetric_sign":
        return
    assert close(cell.parameter_distance, np.linalg.norm(d), 4 * limit)
    assert cell.parameter_distance <= cell.parameter_distance_bound
    hat = K @ np.linalg.inv(K + strength * np.eye(M))
    assert close(cell.degrees_of_freedom, np.trace(hat), 4 * limit)


def check_split(cell: Any, K: np.ndarray, K_eval: np.ndarray, reference: Reference, limit: float) -> None:
    names = ["feature_share_train", "feature_share_eval", "feature_trace_share"]
    if not cell.head_in_kernel:
        assert cell[names].isna().all()
        return
    M = len(K)
    left, left_eval = (reference.features(s, ["head"], sign=reference.kernel == "sign") for s in ("train", "eval"))
    right = reference.features("train", ["head"], sign=reference.kernel != "sgd")[:M]
    r = (reference.targets["train"] - reference.initial["train"])[:M]
    F, F_eval = K - left[:M] @ right.T, K_eval - left_eval @ right.T
    norm = np.linalg.norm
    expected = [norm(F @ r) / norm(K @ r), norm(F_eval @ r) / norm(K_eval @ r), np.trace(F) / np.trace(K)]
    for name, value in zip(names, expected, strict=True):
        assert close(cell[name], value, 8 * limit), name


def close(value: float, expected: float, limit: float) -> bool:
    return abs(value - expected) <= limit * max(abs(expected), 1e-3)
