"""Values that are given beside a spec's file, and specs that are given as dictionaries."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pytest
import yaml
from datasets import Dataset

from orchestrator.errors import SpecError
from orchestrator.spec import make_spec, parse_spec, read_spec
from tests.orchestrator.sweeps import SPEC, changed, spec_of, write_spec

TEXT = yaml.safe_dump(dict(SPEC), sort_keys=False)


def refused(*overrides: str) -> str:
    with pytest.raises(SpecError) as raised:
        parse_spec(TEXT, name="sweep.yaml", overrides=overrides)
    return str(raised.value)


def test_a_value_is_yaml_and_takes_the_place_of_the_files():
    given = ("grid.seeds=[0,1]", "finetune.learning_rate=1e-3", "finetune.epochs=2", "grid.layer_sets.1=prefixes")
    spec = parse_spec(TEXT, overrides=given)
    assert spec.overrides == given
    assert spec.model_dump() == spec_of({
        "grid.seeds": [0, 1], "finetune": {"learning_rate": 1e-3, "epochs": 2},
        "grid.layer_sets": ["each_layer", "prefixes"],
    }).model_dump()  # fmt: skip
    assert parse_spec(TEXT).overrides == ()


def test_a_mapping_gives_the_same_as_texts():
    by_text = parse_spec(TEXT, overrides=["grid.seeds=[0, 1]", "name=other"])
    assert parse_spec(TEXT, overrides={"grid.seeds": range(2), "name": "other"}) == by_text


def test_null_takes_a_section_away():
    text = yaml.safe_dump(changed(SPEC, {"finetune": {"learning_rate": 0.1, "epochs": 2}}))
    assert parse_spec(text, overrides=["finetune=null"]).finetune is None
    assert parse_spec(text, overrides=["finetune="]).finetune is None


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("grid.sed=[1]", "  grid.sed: unknown key `sed`; did you mean `seeds`?"),
        ("finetun.learning_rate=1", "  finetun: unknown key `finetun`; did you mean `finetune`?"),
        ("lr=1", "  lr: unknown key `lr`; the key for this is `finetune.learning_rate`"),
        ("grid.lambdas.values.1=-3", "  grid.lambdas.values.1: `-3` must be greater than 0"),
        ("grid.seeds=[0", "`grid.seeds=[0`: the value is not YAML: a list in brackets lacks a comma"),
        ("model.path.x=1", "`model.path.x=1`: model.path is 'model' there and has no keys; override model.path"),
        ("grid.layer_sets.2=x", "`grid.layer_sets.2=x`: grid.layer_sets has 2 items, counted from 0; override it"),
        ("grid.seeds.first=1", "`grid.seeds.first=1`: grid.seeds is a list there; override it as a whole, or"),
        ("grid.seeds", "`grid.seeds` overrides nothing; write KEY=VALUE"),
        ("grid.seeds ", "`grid.seeds ` overrides nothing; write KEY=VALUE with the dotted key of the spec and no"),
        ("task.template={text} was", "within them a text that begins with { in double ones"),
        ("grid.seeds=0,1,2", "grid.seeds: `0,1,2` cannot be used here; write [0,1,2]"),
        ("grid.layer_sets=[0-2]", "for these layers together write {layers: [[0, 1, 2]]}"),
        ("model=examples/m", "model: `examples/m` is a path or an id, and stands under the key path: write "
                             "model.path=examples/m, in a file model: {path: examples/m}"),
        ("=1", "`=1` overrides nothing; write KEY=VALUE"),
    ],
)  # fmt: skip
def test_a_mistake_is_answered_as_one_in_the_file(override: str, said: str):
    assert said in refused(override)


def test_messages_name_the_overrides_and_lines_of_the_file_alone():
    with pytest.raises(SpecError) as raised:
        parse_spec("nam: x\n" + TEXT, name="sweep.yaml", overrides=["grid.sed=1"])
    heading, *faults = str(raised.value).splitlines()
    assert heading == "sweep.yaml with grid.sed=1 is not a valid spec (2 faults):"
    assert sorted(faults) == [
        "  grid.sed: unknown key `sed`; did you mean `seeds`?",
        "  line 1, nam: unknown key `nam`; did you mean `name`?",
    ]
    assert "overridden twice" in refused("grid.seeds=[0]", "grid.seeds=[1]")


def test_a_file_is_read_with_overrides(tmp_path: Path):
    path = write_spec(tmp_path)
    assert read_spec(path, overrides=["name=other"]).name == "other"


# --- dictionaries


def test_a_dictionary_is_the_spec_of_its_file():
    tree = changed(SPEC, {
        "model.path": Path("model"), "grid.seeds": range(3), "grid.n_train": (np.int64(10),),
        "grid.lambdas.values": np.array([0.01, 1.0]),
    })  # fmt: skip
    assert make_spec(tree) == spec_of({"grid.seeds": [0, 1, 2]})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"grid.sed": 1}, "the dictionary is not a valid spec (1 fault):\n  grid.sed: unknown key `sed`; did you mean"),
        ({"grid.n_train": ["ten"]}, "grid.n_train.0: `ten`"),
        ({"model.path": object()}, "the dictionary: model.path: a value of the type object; give a text, a number"),
        ({"grid.seeds": {1: 2}}, "the dictionary: grid.seeds.1: a key is a text, and this one is of the type int"),
        ({"model.path": "a\x00b"}, "the dictionary: model.path: a text holds U+0000"),
        ({"grid.seeds": [10**50]}, "the dictionary: grid.seeds.0: this whole number is larger"),
        ({"grid.n_train": None}, "grid: the key `n_train` is missing"),
    ],
)
def test_messages_about_a_dictionary_name_the_key_and_no_line(changes: dict[str, Any], said: str):
    with pytest.raises(SpecError) as raised:
        make_spec(changed(SPEC, changes), name="the dictionary")
    assert said in str(raised.value)
    assert "line" not in str(raised.value)


FRAME = pd.DataFrame({"text": ["a film"], "label": [0]})


@pytest.mark.parametrize(
    ("table", "kind", "written"),
    [
        (FRAME, "pandas.DataFrame", 'frame.to_parquet("data.parquet")'),
        (polars.from_pandas(FRAME), "polars.DataFrame", 'frame.write_parquet("data.parquet")'),
        (pa.table(FRAME), "pyarrow.Table", 'pyarrow.parquet.write_table(table, "data.parquet")'),
        (Dataset.from_pandas(FRAME), "datasets.Dataset", 'dataset.to_parquet("data.parquet")'),
    ],
    ids=["pandas", "polars", "pyarrow", "datasets"],
)
def test_a_table_in_memory_is_told_how_it_becomes_a_file(table: Any, kind: str, written: str):
    with pytest.raises(SpecError) as raised:
        make_spec(changed(SPEC, {"task.data": table}), name="the dictionary")
    assert str(raised.value) == (
        f"the dictionary: task.data: this is a {kind} in memory, and the path of a file is needed, for other processes "
        f'read it too; write it with {written}, and give "data.parquet"'
    )


def test_a_dictionary_that_holds_itself_is_refused():
    tree: dict[str, Any] = dict(SPEC)
    tree["grid"] = tree
    with pytest.raises(SpecError, match="more than 30 levels deep"):
        make_spec(tree)
