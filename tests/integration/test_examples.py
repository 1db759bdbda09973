"""The specs of `examples/`: valid, and of the kind that their names say."""

from pathlib import Path

import pytest

from orchestrator.spec import read_spec
from tests.root import ROOT

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


def test_few_shot_draws_as_many_examples_of_each_class():
    spec = read_spec(FOLDER / "few-shot.yaml")
    assert spec.grid.n_train == (16 * len(spec.head.words),)
