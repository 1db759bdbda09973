"""The order of classes in a checkpoint's head against that of the data."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune.data.label_names import NamedClass
from finetune.data.task import read_examples
from finetune.errors import HeadError
from finetune.model.class_order import check_class_order
from finetune.settings import HeadSettings, ModelSettings, TaskSettings

NAMES = ["contradiction", "neutral", "entailment"]


def model_of(folder: Path, names: list[str]) -> ModelSettings:
    known = {str(number): name for number, name in enumerate(names)}
    facts = {"model_type": "bert", "id2label": known, "label2id": {name: int(n) for n, name in known.items()}}
    (folder / "config.json").write_text(json.dumps(facts))
    return ModelSettings(str(folder))


def classes_of(
    path: Path, column: list[str] | list[int], metadata: object = None, **task: object
) -> tuple[NamedClass, ...]:
    table = pa.table({"text": [f"text {number}" for number in range(len(column))], "label": column})
    if metadata is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps(metadata)})
    pq.write_table(table, path)
    return read_examples(TaskSettings(**{"data": str(path), "kind": "classification", **task})).class_names  # type: ignore[arg-type]


def features(names: list[str]) -> object:
    return {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}, "text": {"dtype": "string"}}}}


def check(model: ModelSettings, classes: tuple[NamedClass, ...], n_outputs: int = 3) -> None:
    check_class_order(model, HeadSettings("pretrained"), classes, n_outputs=n_outputs)


def test_names_in_another_order_than_the_heads_are_refused_with_the_labels_that_fit(tmp_path: Path):
    model = model_of(tmp_path, [name.upper() for name in NAMES])
    path, labels = tmp_path / "a.parquet", NAMES * 3
    with pytest.raises(HeadError, match=r"'entailment' is class 1 of the task, but output 2") as caught:
        check(model, classes_of(path, labels))
    fit = "{contradiction: 0, entailment: 2, neutral: 1}"
    assert f"set task.labels: {fit}, or use another head" in str(caught.value)
    check(model, classes_of(path, labels, labels=(("contradiction", 0), ("entailment", 2), ("neutral", 1))))
    check_class_order(model, HeadSettings("random"), classes_of(path, labels), n_outputs=3)


def test_numbers_whose_names_come_with_the_data_are_compared_too(tmp_path: Path):
    model, path = model_of(tmp_path, NAMES), tmp_path / "a.parquet"
    mnli = features(["entailment", "neutral", "contradiction"])
    with pytest.raises(HeadError, match=r"'entailment' is class 0 .* task\.labels: \{0: 2, 1: 1, 2: 0\}"):
        check(model, classes_of(path, [0, 1, 2] * 3, mnli))
    check(model, classes_of(path, [0, 1, 2] * 3, mnli, labels=(("0", 2), ("1", 1), ("2", 0))))
    check(model, classes_of(path, [0, 1, 2] * 3, features(NAMES)))


@pytest.mark.parametrize("names", [["LABEL_0", "LABEL_1", "LABEL_2"], ["a", "a", "b"], ["0", "1", "2"]])
def test_names_that_say_nothing_are_no_fault(tmp_path: Path, names: list[str]):
    model, path = model_of(tmp_path, names), tmp_path / "a.parquet"
    check(model, classes_of(path, NAMES * 3))
    check(model, classes_of(path, [0, 1, 2] * 3))
    check(model, classes_of(path, [0, 1, 2] * 3, features(NAMES)))


@pytest.mark.parametrize(
    "metadata", [{}, {"info": []}, {"info": {"features": {"label": {"_type": "ClassLabel"}}}}, [1]]
)
def test_metadata_of_another_form_names_nothing(tmp_path: Path, metadata: object):
    assert classes_of(tmp_path / "a.parquet", [0, 1] * 3, metadata) == ()
