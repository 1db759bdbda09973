"""The specs of `examples/`: valid, and of the kind that their names say."""

from pathlib import Path

import pytest
import yaml

from orchestrator.spec import read_spec
from tests.orchestrator.sweeps import ntksweep, write_data
from tests.root import ROOT
from tests.tiny_models import WORDS, save_tiny

FOLDER = ROOT / "examples"
SPECS = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_an_example_is_valid(path: Path):
    assert read_spec(path).name == path.stem


def test_the_spec_of_the_reference_results_is_valid():
    assert read_spec(ROOT / "results/reference/paper-minilm/spec.yaml").name == "paper-minilm"


def test_both_forms_of_the_published_switches_differ_in_model_and_data_alone():
    hub, local = (read_spec(FOLDER / f"{name}.yaml") for name in ("as-published", "as-published-minilm"))
    assert (hub.adapter, hub.head, hub.kernel, hub.grid) == (local.adapter, local.head, local.kernel, local.grid)
    assert hub.task.sampling == local.task.sampling == "first"


def test_the_papers_protocol_is_that_and_no_other():
    spec = read_spec(FOLDER / "paper-protocol.yaml")
    assert spec.model.path == "FacebookAI/roberta-base"
    assert (spec.adapter.rank, spec.adapter.lora_alpha) == (8, 8)
    assert spec.adapter.target_modules == ("query", "key", "value")
    assert (spec.kernel.kind, spec.kernel.outputs, spec.grid.n_train) == ("sgd", "full", (32,))
    assert spec.head_trained and not spec.head.in_kernel
    assert (spec.grid.lambdas.scale, spec.grid.lambdas.numbers()[1:]) == ("absolute", (0.5, 5.0, 50.0))
    assert spec.grid.tasks is not None
    assert {name: task.n_eval for name, task in spec.grid.tasks.items()} == {
        "cola": 1043, "sst2": 872, "mrpc": 408, "qnli": 5463, "rte": 277,
    }  # fmt: skip
    training = spec.finetune
    assert training is not None and (training.n_train, training.loss) == ("all", "cross_entropy")
    assert (training.batch_size, training.gradient_accumulation_steps, training.epochs) == (16, 4, 10)
    assert (training.learning_rate, training.lr_scheduler_type, training.warmup_ratio) == (4e-3, "linear", 0.06)


def test_the_papers_protocol_is_planned_and_so_is_the_kernel_of_its_script(tmp_path: Path):
    tree = yaml.safe_load((FOLDER / "paper-protocol.yaml").read_text())
    save_tiny("roberta", tmp_path / "model")
    tree["model"]["path"], tree["task"]["max_length"] = "model", 16
    del tree["task"]["data"]
    for name, task in tree["grid"]["tasks"].items():
        for seed, split in enumerate(("train", "validation")):
            texts = [f"{WORDS[i % len(WORDS)]} {WORDS[i // len(WORDS) % len(WORDS)]}" for i in range(40 + seed)]
            columns = {task["text"]: texts} | ({task["text_pair"]: texts} if "text_pair" in task else {})
            write_data(tmp_path / name / f"{split}.parquet", n=40 + seed, **columns)
        del task["config"]
        task["data"], task["n_eval"] = name, 41
    path = tmp_path / "paper-protocol.yaml"
    path.write_text(yaml.safe_dump(tree))
    planned = ntksweep("plan", path)
    assert planned.status == 0, planned.errors
    said = " ".join(planned.output.split())
    assert "cells are trained on 40 examples" in said and "fitted to the first 32" in said
    beside = ntksweep("plan", path, "kernel.kind=asymmetric_sign", "finetune=null", "results.folder=beside")
    assert beside.status == 0, beside.errors


def test_few_shot_draws_as_many_examples_of_each_class():
    spec = read_spec(FOLDER / "few-shot.yaml")
    assert spec.grid.n_train == (16 * len(spec.head.words),)
