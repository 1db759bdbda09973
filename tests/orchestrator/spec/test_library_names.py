"""Keys as transformers and peft call them are answered with those of the spec."""

from typing import Any

import pytest
import yaml

from orchestrator.errors import SpecError
from orchestrator.spec import Spec, parse_spec
from orchestrator.spec.library_names import LIBRARY_NAMES
from tests.orchestrator.sweeps import SPEC, changed

SECTIONS = ("model", "task", "adapter", "head", "grid", "finetune", "compute", "sharding", "results")


def fault(changes: dict[str, Any]) -> str:
    with pytest.raises(SpecError) as raised:
        parse_spec(yaml.safe_dump(changed(SPEC, changes), sort_keys=False))
    return str(raised.value)


@pytest.mark.parametrize(
    ("place", "key"),
    [
        ("finetune.per_device_train_batch_size", "batch_size"),
        ("finetune.num_train_epochs", "epochs"),
        ("finetune.Max-Steps", "epochs"),
        ("finetune.weight_decay", "grid.lambdas"),
        ("adapter.r", "rank"),
        ("compute.gradient_checkpointing", "checkpointing"),
        ("model.max_seq_length", "task.max_length"),
        ("output_dir", "results.folder"),
        ("train", "finetune"),
        ("training", "finetune"),
        ("fine-tuning", "finetune"),
        ("lr", "finetune.learning_rate"),
        ("num_epochs", "finetune.epochs"),
    ],
)
def test_a_key_of_another_library_is_answered_with_the_key_here(place: str, key: str):
    named = place.rpartition(".")[2]
    assert f"{place}: unknown key `{named}`; the key for this is `{key}`" in fault({place: 1})


@pytest.mark.parametrize(
    ("place", "key"),
    [
        ("finetune.optimiser", "optimizer"),
        ("finetune.accumulation", "gradient_accumulation_steps"),
        ("adapter.alpha", "lora_alpha"),
        ("adapter.target", "target_modules"),
        ("head.penalty", "l2_penalty"),
    ],
)
def test_a_part_of_a_key_finds_the_key(place: str, key: str):
    assert f"{place}: unknown key `{place.rpartition('.')[2]}`; did you mean `{key}`?" in fault({place: 1})


def test_a_key_of_training_at_the_left_margin_is_sent_into_its_section():
    for key in ("epochs", "learning_rate"):
        assert f"{key}: unknown key `{key}`; `{key}` is a key of `finetune`: put it there" in fault({key: 1})


@pytest.mark.parametrize("place", ["finetune.models", "head.training", "compute.train"])
def test_a_key_that_is_like_no_other_gets_the_keys_that_there_are(place: str):
    told = fault({place: 1})
    assert f"{place}: unknown key `{place.rpartition('.')[2]}`; valid keys: " in told
    assert "did you mean" not in told


def test_names_of_other_libraries_stand_for_keys_and_are_none():
    schema = Spec.model_json_schema()
    sections = {"": schema, **{part: schema["$defs"][f"{part.title()}Section"] for part in SECTIONS}}
    keys = {key for section in sections.values() for key in section["properties"]}
    for name, dotted in LIBRARY_NAMES.items():
        section, _, key = dotted.rpartition(".")
        assert key in sections[section]["properties"], dotted
        assert name not in keys, f"{name} is a key, which no message about unknown keys is for"
