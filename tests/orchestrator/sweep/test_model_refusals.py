"""Models that cannot be used, each told by `plan` before anything is computed."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification, NystromformerConfig, PerceiverConfig

from orchestrator.errors import ExitCode
from tests.orchestrator.sweeps import make_sweep, ntksweep, results_of
from tests.tiny_models import save_tiny

Change = Callable[[Path], Any]


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep whose model each test makes anew."""
    return make_sweep(tmp_path_factory.mktemp("sweep"))


def refused(spec: Path, *options: str) -> str:
    """Plan; return the message, on one line, with which that is refused."""
    answer = ntksweep("plan", spec, *options)
    assert answer.status == ExitCode.WRONG_INPUT
    assert "error: " in answer.errors
    assert answer.output == ""
    return answer.errors


def configure(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("facts", "method"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes"),
        ({"quant_method": "fp8"}, "fp8"),
        ({"bits": 3}, "in a way that it does not name"),
    ],
)
def test_a_quantized_checkpoint(spec: Path, facts: dict[str, Any], method: str):
    configure(save_tiny("bert", spec.parent / "model"), quantization_config=facts)
    assert f"is quantized ({method}, by quantization_config" in refused(spec)


def test_an_adapter_beside_the_model(spec: Path):
    from peft import LoraConfig, get_peft_model

    folder = save_tiny("bert", spec.parent / "adapted")
    base = AutoModelForSequenceClassification.from_pretrained(folder)
    get_peft_model(base, LoraConfig(target_modules=["query"])).save_pretrained(folder)
    changed = spec.with_name("adapted.yaml")
    changed.write_text(spec.read_text().replace("path: model", "path: adapted"))
    assert "holds an adapter (adapter_config.json) beside the model" in refused(changed)


def test_a_head_whose_classes_are_in_another_order(spec: Path):
    folder = save_tiny("bert", spec.parent / "model")
    AutoModelForSequenceClassification.from_pretrained(folder).save_pretrained(folder)
    configure(folder, id2label={"0": "1", "1": "0"}, label2id={"1": 0, "0": 1})
    options = ("task.labels={'0': 0, '1': 1}", "head.kind=pretrained")
    assert "set task.labels: {0: 1, 1: 0}, or use another head" in refused(spec, *options)


def test_code_that_needs_a_package_which_is_missing_or_trust(spec: Path):
    folder = save_tiny("bert", spec.parent / "model")
    (folder / "modeling.py").write_text("import no_such_package\nfrom transformers import BertModel as Model\n")
    (folder / "configuration.py").write_text(
        "import no_such_package\nfrom transformers import BertConfig\n\n\nclass Config(BertConfig):\n    pass\n"
    )
    configure(folder, model_type="theirs", auto_map={"AutoConfig": "configuration.Config"})
    assert "set model.trust_remote_code: true and give the command --trust-remote-code" in refused(spec)
    trusting = spec.with_name("trusting.yaml")
    trusting.write_text(spec.read_text().replace("path: model", "path: model\n  trust_remote_code: true"))
    message = refused(trusting, "--trust-remote-code")
    assert "pip install no_such_package" in message
    assert "Traceback" not in message
    # the original is below the message for those who ask for it
    assert "ImportError: This modeling file requires" in refused(trusting, "--trust-remote-code", "--traceback")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import sys\n\nsys.exit(3)\n", "its code ends the process (SystemExit: 3); take the call of sys.exit"),
        ("\n1 / 0\n", "its own code (configuration.py, line 2) raises ZeroDivisionError: division by zero; correct it"),
    ],
)
def test_code_that_ends_the_process_or_fails(tmp_path: Path, code: str, said: str):
    folder = save_tiny("bert", tmp_path / "model")
    (folder / "configuration.py").write_text(code)
    configure(folder, model_type="theirs", auto_map={"AutoConfig": "configuration.Config"})
    spec = make_sweep(tmp_path, {"model.trust_remote_code": True}, model=folder)
    assert said in refused(spec, "--trust-remote-code")


OWN_CODE = """
import torch
from torch import nn
from transformers import BertModel, BertPreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class Own(BertPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.bert = BertModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, **kwargs):
        hidden = self.bert(input_ids, attention_mask=attention_mask).last_hidden_state[:, 0]
        query = self.bert.encoder.layer[1].attention.self.query
        {line}
        logits = self.classifier(hidden)
        return SequenceClassifierOutput(logits={logits})
"""


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("hidden = hidden @ query.weight", "layer.1.attention.self.query takes part in the outputs also beside being"),
        ("hidden = query(hidden) + query.forward(hidden)", "self.query takes part in the outputs also beside being"),
        ("hidden = hidden.detach()", "self.query takes part in the outputs, but no gradient goes back to it"),
    ],
)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_code_that_uses_a_weight_in_more_than_one_way(tmp_path: Path, line: str, said: str, checkpointing: bool):
    folder = save_tiny("bert", tmp_path / "model")
    (folder / "own.py").write_text(OWN_CODE.format(line=line, logits="logits"))
    configure(folder, auto_map={"AutoModelForSequenceClassification": "own.Own"})
    changes = {"model.trust_remote_code": True, "adapter.kind": "none", "adapter.target_modules": ["query"]}
    changes |= {"adapter.rank": None, "compute.checkpointing": checkpointing}
    assert said in refused(make_sweep(tmp_path, changes, model=folder), "--trust-remote-code")


def own_code(folder: Path, logits: str, **config: Any) -> Path:
    save_tiny("bert", folder)
    (folder / "own.py").write_text(OWN_CODE.format(line="pass", logits=logits))
    configure(folder, auto_map={"AutoModelForSequenceClassification": "own.Own"}, **config)
    return folder


@pytest.mark.parametrize("changes", [{}, {"task.kind": "regression", "task.label": "rating"}])
def test_code_that_squeezes_its_logits_has_the_numbers_of_code_that_does_not(tmp_path: Path, changes: dict[str, Any]):
    """Of a single text, or of one output, an axis is missing."""
    found = []
    for logits in ("logits", "logits.squeeze()"):
        folder = tmp_path / logits
        model = own_code(tmp_path / logits / "own", logits)
        spec = make_sweep(folder, {"model.trust_remote_code": True, "compute.batch_tokens": 16} | changes, model=model)
        answer = ntksweep("run", spec, "--trust-remote-code")
        assert answer.status == 0, answer.errors
        found.append(results_of(spec).cells.to_pandas()[["trace", "train_loss", "eval_loss"]])
    assert found[0].equals(found[1])


@pytest.mark.parametrize(
    ("logits", "said"), [("logits.T", r"\(2, 3\) for 3 examples, .* \(3, 2\)"), ("logits[:, :1]", r"\(., 1\) for")]
)
def test_code_that_returns_logits_of_another_shape(tmp_path: Path, logits: str, said: str):
    model = own_code(tmp_path / "own", logits)
    message = refused(make_sweep(tmp_path, {"model.trust_remote_code": True}, model=model), "--trust-remote-code")
    assert "the model returns logits of shape" in message
    assert re.search(said, message)


def test_a_head_inside_the_base_model(tmp_path: Path):
    config = PerceiverConfig(
        vocab_size=30, d_model=16, d_latents=16, num_latents=4, num_blocks=1, num_self_attends_per_block=1,
        num_self_attention_heads=2, num_cross_attention_heads=2, max_position_embeddings=32,
    )  # fmt: skip
    folder = save_tiny("bert", tmp_path / "model")
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    spec = make_sweep(tmp_path, {"adapter.target_modules": ["query"]}, model=folder)
    assert "final_layer, which has, is a part of the base model" in refused(spec)


def test_more_layers_than_any_model_has(spec: Path):
    configure(save_tiny("bert", spec.parent / "model"), num_hidden_layers=10**9)
    assert "config.json says 1000000000 layers (num_hidden_layers)" in refused(spec)


def test_an_adapter_alone(spec: Path):
    folder = save_tiny("bert", spec.parent / "alone")
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/base"}')
    changed = spec.with_name("alone.yaml")
    changed.write_text(spec.read_text().replace("path: model", "path: alone"))
    assert "holds an adapter alone (of someone/base), and no model: merge it into its model" in refused(changed)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (
            {"peft_type": "PROMPT_TUNING", "base_model_name_or_path": "a/b"},
            "(of a/b), and no model: of its kind, PROMPT_T",
        ),
        (
            {"config": {}, "model_name": "a/b"},
            "(of a/b), and no model: it is one of the library adapters, which cannot",
        ),
        ([], "holds an adapter alone, and no model: merge it"),
    ],
)
@pytest.mark.parametrize("place", [".", "checkpoint-10"])
def test_an_adapter_alone_of_another_kind_or_below(tmp_path: Path, facts: Any, said: str, place: str):
    folder = tmp_path / "out" / place
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(facts))
    spec = make_sweep(tmp_path, model=tmp_path / "out")
    assert said in refused(spec)


def rename(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def adapted(folder: Path, **options: Any) -> dict[str, Tensor]:
    """Return the weights of a classifier with an adapter, under the names that peft gives them."""
    from peft import LoraConfig, get_peft_model

    base = AutoModelForSequenceClassification.from_pretrained(folder)
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["query"], task_type="SEQ_CLS", **options))
    return {name: value.clone() for name, value in model.state_dict().items()}


INSIDE = len("base_model.model.")
QUERY = "encoder.layer.0.attention.self.query"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder, _held: adapted(folder), f"hold base_model.model.bert.{QUERY}.base_layer"),
        (
            lambda folder, _held: {name[INSIDE:]: value for name, value in adapted(folder, use_dora=True).items()},
            f"hold bert.{QUERY}.base_layer",
        ),
        (
            lambda folder, _held: {name: value for name, value in adapted(folder).items() if "lora" in name},
            f"hold base_model.model.bert.{QUERY}.lora_A",
        ),
        (lambda _folder, held: held | {f"{QUERY}.lora_A": torch.ones(2, 16)}, f"hold {QUERY}.lora_A"),
        (
            lambda _folder, held: held | {"encoder.layer.0.output.adapters.own.adapter_up.weight": torch.ones(2, 16)},
            "hold encoder.layer.0.output.adapters.own",
        ),
    ],
)
def test_weights_with_an_adapter_that_was_not_merged(spec: Path, change: Callable[..., dict[str, Tensor]], said: str):
    folder = save_tiny("bert", spec.parent / "model")
    rename(folder, lambda held: change(folder, held))
    message = refused(spec)
    assert said in message
    assert "an adapter, or of a model with one that was not merged into it" in message


def test_a_head_under_the_names_of_an_adapter_leaves_the_base_model_usable(spec: Path):
    folder = save_tiny("bert", spec.parent / "model")
    rename(folder, lambda held: held | {"classifier.modules_to_save.default.weight": torch.ones(2, 16)})
    assert ntksweep("plan", spec).status == 0


def test_layers_that_cut_texts_into_pieces(spec: Path):
    configure(save_tiny("bert", spec.parent / "model"), chunk_size_feed_forward=2)
    assert "set chunk_size_feed_forward to 0 in its config.json, which changes no number" in refused(spec)


def test_an_embedding_with_tokens_that_config_does_not_have(spec: Path):
    folder = save_tiny("bert", spec.parent / "model")
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    configure(folder, vocab_size=size - 2)
    assert f"an embedding of {size} tokens, and config.json describes {size - 2}: tokens were added" in refused(spec)


def test_an_architecture_that_only_fails_when_it_is_run(spec: Path):
    folder = save_tiny("bert", spec.parent / "model")
    config = NystromformerConfig(
        vocab_size=23, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=64, pad_token_id=0, segment_means_seq_len=64, num_landmarks=4,
    )  # fmt: skip
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    message = refused(spec)
    assert "NystromformerForSequenceClassification cannot be run on these texts" in message
    assert "use another architecture" in message


def test_a_configuration_that_makes_no_model(spec: Path):
    configure(save_tiny("bert", spec.parent / "model"), num_attention_heads=3)
    assert "cannot be loaded: " in refused(spec)


def test_an_architecture_that_is_not_known(spec: Path):
    configure(save_tiny("bert", spec.parent / "model"), model_type="of_tomorrow")
    assert "it needs another version of transformers" in refused(spec)
