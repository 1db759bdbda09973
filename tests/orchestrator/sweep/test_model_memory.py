"""Sentences of a plan about models that fit or do not: weights of each process, activations, and what would fit."""

from dataclasses import replace
from typing import Any

import pytest

from finetune.model.inspection import inspect_model
from finetune.settings import AdapterSettings, HeadSettings, ModelSettings
from orchestrator.errors import BudgetError
from orchestrator.sweep.model_memory import Device, fitting_notes, model_memory, refuse_model_that_cannot_fit
from orchestrator.sweep.survey_facts import Survey
from tests.orchestrator.sweeps import spec_of, survey_of, sweep_of
from tests.tiny_models import ALL_TARGETS, save_tiny

GB = 10**9
EIGHT_BILLION = {"n_layers": 32, "hidden_size": 4096, "weight_bytes": 32 * GB, "largest_layer_bytes": 2 * GB}


def survey(**facts: Any) -> Survey:
    found = survey_of()
    return replace(found, model=replace(found.model, **EIGHT_BILLION | {"linear_width": 2_000_000} | facts))


def test_a_sharded_model_leaves_each_process_its_part_and_one_layer():
    whole = model_memory(spec_of({"model.dtype": "float32"}), survey())
    assert (whole.own, whole.gathered, whole.on_device) == (32 * GB, 0, 32 * GB + 2048 * 2_000_000 * 4)
    sharded = model_memory(spec_of({"model.dtype": "float32", "sharding.group_size": 4}), survey())
    assert (sharded.own, sharded.gathered) == (8 * GB, 2 * GB)
    left = model_memory(spec_of({"sharding.group_size": 4, "sharding.stage": 0}), survey())
    assert left.own == 32 * GB
    offloaded = model_memory(
        spec_of({"model.dtype": "float32", "sharding": {"group_size": 1, "offload": "cpu"}, "compute.device": "cuda"}),
        survey(),
    )
    assert offloaded.certain == 2 * GB


def test_layers_that_run_again_keep_little():
    once = model_memory(spec_of({"model.dtype": "float32"}), survey())
    again = model_memory(spec_of({"model.dtype": "float32", "compute.checkpointing": True}), survey())
    assert again.activations < once.activations / 8


def test_the_largest_layer_is_that_of_the_model(tmp_path: Any):
    path = save_tiny("llama", tmp_path / "model")
    adapter = AdapterSettings("lora", 2, 4.0, ALL_TARGETS["llama"])
    facts = inspect_model(ModelSettings(str(path)), adapter, HeadSettings("random"), n_outputs=2)
    assert facts.weight_bytes / 4 < facts.largest_layer_bytes < facts.weight_bytes


def test_a_model_that_cannot_fit_is_refused_with_what_would():
    sweep = sweep_of({"model.dtype": "float32", "compute.device": "cuda"})
    with pytest.raises(BudgetError) as error:
        refuse_model_that_cannot_fit(sweep, survey(), Device(24 * GB, "GPU"))
    said = str(error.value)
    assert "32.0 GB for weights alone and has 24.0 GB" in said
    assert "sharding.group_size: 2 or more, and as many processes, with compute.checkpointing: true" in said
    assert "sharding.offload: cpu" in said
    refuse_model_that_cannot_fit(sweep, survey(), Device(48 * GB, "GPU"))
    with pytest.raises(BudgetError, match="no group of processes makes its largest layer fit"):
        refuse_model_that_cannot_fit(sweep, survey(), Device(GB, "GPU"))


def test_nothing_that_is_set_is_advised():
    sweep = sweep_of({"model.dtype": "float32", "compute.device": "cuda", "compute.checkpointing": True})
    with pytest.raises(BudgetError, match=r"sharding\.group_size: 2 or more, and as many processes; ") as error:
        refuse_model_that_cannot_fit(sweep, survey(), Device(24 * GB, "GPU"))
    assert "checkpointing" not in str(error.value)
    with pytest.raises(BudgetError) as error:
        refuse_model_that_cannot_fit(sweep, survey(), Device(GB, "GPU"))
    assert "checkpointing" not in str(error.value)
    sharded = sweep_of({"model.dtype": "bfloat16", "sharding.group_size": 4, "compute.checkpointing": True})
    facts = survey(weight_bytes=16 * GB, largest_layer_bytes=GB)
    assert fitting_notes(sharded, facts, Device(5 * GB + 1, "GPU"))[1].endswith("lower compute.batch_tokens")


def test_a_plan_says_what_each_process_holds():
    sweep = sweep_of({"model.dtype": "bfloat16", "sharding.group_size": 4})
    facts = survey(weight_bytes=16 * GB, largest_layer_bytes=GB)
    holds, takes = fitting_notes(sweep, facts, Device(80 * GB, "GPU"))
    assert holds == (
        "the model has 16.0 GB in bfloat16; each of 4 processes of a group keeps 4.0 GB of it, and has 1.0 GB more "
        "while the largest layer computes"
    )
    assert takes == "with about 8.2 GB of activations for 2048 tokens, a process takes 13.2 GB of 80.0 GB (GPU)"
    assert "too much, if the estimate holds" in fitting_notes(sweep, facts, Device(8 * GB, "GPU"))[1]
    assert "compute.device_memory says" in fitting_notes(sweep, facts, None)[1]
