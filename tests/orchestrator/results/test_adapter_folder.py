"""Trained cells as folders of peft: loaded as their page says, they give the logits that training ended with."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from safetensors.torch import load_file

import ntksweep
from finetune.errors import AdapterExportError
from finetune.model.adapted import ScorerSettings
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from finetune.training.peft_folder import write_peft_folder
from ntk_dist.jacobian.batches import Batch
from orchestrator.errors import ResultsError
from orchestrator.plan.plan import make_plan
from orchestrator.stages.context.tokenized import read_tokens
from orchestrator.stages.finetune.trained_cells import TrainedCells
from orchestrator.sweep.survey import kept_surveys
from tests.orchestrator.stages.trained_sweeps import TRAINING
from tests.orchestrator.sweeps import make_sweep, run_spec
from tests.orchestrator.sweeps import ntksweep as command
from tests.tiny_models import save_tiny

SHORT = TRAINING | {"epochs": 3, "num_evaluations": 1, "kernel_examples": 0}

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # the checkpoint is a language model without a pooler, which is drawn, and the head is trained
    "trained head, drawn pooler": ({"kind": "bert", "masked": True}, {"grid.seeds": [0, 1]}),
    "fitted head without a place for its bias": (
        {"kind": "gpt2"},
        {"adapter.target_modules": ["c_attn"], "head": {"kind": "ridge", "in_kernel": False}, "adapter.lora_alpha": 3},
    ),
    "label words": (
        {"kind": "bert", "masked": True},
        {
            "head": {"kind": "label_words", "in_kernel": False, "words": ["good", "bad"]},
            "task.template": "{text} is {mask}",
        },
    ),
    "random B": ({"kind": "bert"}, {"adapter.initialization": "random", "adapter.rank": 3}),
}


def ended_with(results: ntksweep.Results, cell: str) -> tuple[list[Batch], np.ndarray[Any, Any]]:
    """Return the evaluation examples of a cell, and the outputs (m, R) that its training ended with."""
    store, sweep = results.folder.artifacts(), results.folder.existing()
    (row,) = results.cells.to_arrow(where=pc.field("cell_id") == cell).to_pylist()
    plan = make_plan(sweep, kept_surveys(sweep, store), store)
    (comparison,) = [
        each
        for solve in plan.solves
        for each in solve.comparisons
        if solve.seed == row["seed"] and solve.layer_sets[each.layer_set].name == row["layer_set"]
    ]
    stage = comparison.stage
    trained = TrainedCells(store.open(*stage.inputs["trained"][0]), stage.parameters.run)
    place = comparison.lambdas.index(plan.lambdas.index(row["lambda_given"]))
    outputs = trained.array("eval_outputs")[trained.array("kept")[place], place]
    tokens = read_tokens(store.open(*stage.inputs["dataset"][0]), "eval", 0, len(outputs))
    return [tokens.batch(np.array([number])) for number in range(len(outputs))], outputs


def loaded_as_its_page_says(folder: Path) -> Any:
    (code,) = re.findall("```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code.replace("THIS FOLDER", str(folder)), names)
    return names["model"]


@pytest.mark.parametrize("case", CASES)
def test_an_adapter_gives_the_logits_that_the_cell_ended_with(tmp_path: Path, case: str):
    model, changes = CASES[case]
    save_tiny(folder=tmp_path / "model", **model)
    path = make_sweep(
        tmp_path, {"model.dtype": "float32", "finetune": SHORT, "grid.lambdas.values": [1e-3],
                   "grid.layer_sets": ["each_layer"]} | changes,
        model=tmp_path / "model",
    )  # fmt: skip
    assert not run_spec(path).report.failures
    results = ntksweep.load(tmp_path / "results")
    cells = results.cells.to_pandas()
    cell = cells[cells["layer_set"] == "layers:1"]["cell_id"].iloc[-1]
    answer = command("export", tmp_path / "results", "--adapter", cell[:10], "--output", tmp_path / "adapter")
    assert answer.status == 0, answer.errors
    assert "README.md says how peft loads it" in answer.output
    adapter = loaded_as_its_page_says(tmp_path / "adapter")
    batches, outputs = ended_with(results, cell)
    for batch, wanted in zip(batches, outputs, strict=True):
        logits = logits_of(adapter, batch)
        if case == "label words":
            logits = at_the_mask(logits, batch.input_ids[0], tmp_path / "model")
        assert float((logits - torch.from_numpy(wanted)).abs().max()) <= 1e-6 * max(1.0, np.abs(wanted).max())
    adapted = logits_of(adapter, batches[0])
    with adapter.disable_adapter():  # an adapter that changes nothing would not be one
        assert float((logits_of(adapter, batches[0]) - adapted).abs().max()) > 1e-3
    names = load_file(tmp_path / "adapter/adapter_model.safetensors")
    layers = {re.sub(r".*\.(\d+)\..*", r"\1", name) for name in names if ".lora_" in name}
    # with a random B the layers outside the set have one too
    assert layers == ({"0", "1"} if case == "random B" else {"1"})
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert config["r"] == (3 if case == "random B" else 2)


@torch.no_grad()
def logits_of(model: Any, example: Batch) -> torch.Tensor:
    types = {} if example.token_type_ids is None else {"token_type_ids": example.token_type_ids}
    logits: torch.Tensor = model(input_ids=example.input_ids, attention_mask=example.attention_mask, **types).logits[0]
    return logits


def at_the_mask(logits: torch.Tensor, ids: torch.Tensor, model: Path) -> torch.Tensor:
    """Return the logits of the two words at the mask, by the model's own tokenizer."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(model))
    (place,) = torch.nonzero(ids == tokenizer.mask_token_id).flatten()
    return logits[place][tokenizer.convert_tokens_to_ids(["good", "bad"])]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> ntksweep.Results:
    """A sweep whose cells were trained in double precision."""
    path = make_sweep(
        tmp_path_factory.mktemp("adapters"), {"finetune": SHORT, "grid.layer_sets": ["all_layers"]}, model=tiny_model
    )
    run_spec(path)
    return ntksweep.load(path.parent / "results")


def test_what_cannot_be_exported_is_told(finished: ntksweep.Results, tmp_path: Path):
    cell = finished.cells.to_pandas()["cell_id"][0]
    with pytest.raises(ResultsError, match="there is no cell `zzzzzzzz`"):
        finished.save_adapter("zzzzzzzz", tmp_path / "adapter")
    with pytest.raises(ResultsError, match="there is no cell ``"):
        finished.save_adapter("", tmp_path / "adapter")
    (tmp_path / "adapter").write_text("mine")
    with pytest.raises(ResultsError, match="adapter exists; name another folder"):
        finished.save_adapter(cell, tmp_path / "adapter")
    (tmp_path / "adapter").unlink()
    assert finished.save_adapter(cell, tmp_path / "adapter") == tmp_path / "adapter"
    assert "dtype=torch.float64" in (tmp_path / "adapter/README.md").read_text()


def test_a_sweep_without_training_has_no_adapters(tmp_path: Path, tiny_model: Path):
    path = make_sweep(tmp_path, {"grid.layer_sets": ["all_layers"]}, model=tiny_model)
    run_spec(path)
    answer = command("export", tmp_path / "results", "--adapter", "123456", "-o", tmp_path / "adapter")
    assert (answer.status, "no section `finetune`" in answer.errors) == (2, True)


@pytest.mark.parametrize(
    ("adapter", "weights", "moved", "said"),
    [
        ("none", "pretrained", 0.0, "adapter.kind: none trains weights of the model itself"),
        ("lora", "random", 0.0, "model.weights: random has no checkpoint"),
        ("lora", "pretrained", float("nan"), "x.lora_B.weight of the cell is not finite"),
    ],
)
def test_what_no_adapter_holds_is_refused(
    tmp_path: Path, tiny_model: Path, adapter: Any, weights: Any, moved: float, said: str
):
    settings = ScorerSettings(
        ModelSettings(str(tiny_model), weights=weights), AdapterSettings(adapter, 2, 4.0, ("query",)),
        HeadSettings("random"), n_outputs=2, adapter_seed=0, head_seed=0,
    )  # fmt: skip
    with pytest.raises(AdapterExportError, match=said):
        write_peft_folder(settings, {"x.lora_B.weight": torch.tensor([moved])}, tmp_path / "adapter", [])
