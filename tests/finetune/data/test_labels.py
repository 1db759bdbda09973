"""Labels as people have them: names, numbers that begin at 1, missing ones, words among numbers."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune.data.label_names import name_of, written
from finetune.data.task import Examples, read_examples
from finetune.errors import EmptyTextError, LabelError
from finetune.settings import Labels, TaskSettings


def examples(folder: Path, labels: list[Any], mapped: Labels = (), **options: Any) -> Examples:
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps({"text": f"a {n}", "label": label}) + "\n" for n, label in enumerate(labels)))
    return read_examples(TaskSettings(str(path), "classification", labels=mapped, **options))


@pytest.mark.parametrize(
    ("labels", "classes", "names"),
    [
        (["World", "Sport", "World", " Tech "], [2, 0, 2, 1], ["Sport", "Tech", "World"]),
        (["<script>", "[/b]", "<script>"], [0, 1, 0], ["<script>", "[/b]"]),
        ([True, False, True], [1, 0, 1], []),
        (["1", "0", "1.0"], [1, 0, 1], []),
        ([1.0, 0, "True"], [1, 0, 1], []),
    ],
)
def test_names_are_classes_in_their_order_and_numbers_are_themselves(
    tmp_path: Path, labels: list[Any], classes: list[int], names: list[str]
):
    found = examples(tmp_path, labels)
    assert found.train.labels.tolist() == classes
    assert [name for name, _ in found.labels] == names
    assert [of for _, of in found.labels] == list(range(len(names)))


def test_a_map_says_which_class_a_label_is_and_which_rows_are_left_out(tmp_path: Path):
    mapped = (("5", 1), ("4", 1), ("1", 0), ("3", None), ("", None))
    found = examples(tmp_path, [5, "4", 1.0, 3, None, " 1 ", "5.0"], mapped)
    assert found.train.labels.tolist() == [1, 1, 0, 0, 1]
    assert found.train.rows.tolist() == [0, 1, 2, 5, 6]
    assert found.train.texts == ["a 0", "a 1", "a 2", "a 5", "a 6"]
    assert (found.n_outputs, found.class_sizes) == (2, (2, 3))


def test_the_map_of_both_splits_together_has_labels_that_only_one_has(tmp_path: Path):
    for name, labels in (("train", ["a", "c"]), ("test", ["b", "c"])):
        pq.write_table(pa.table({"text": ["one", "two"], "label": labels}), tmp_path / f"{name}.parquet")
    found = read_examples(TaskSettings(str(tmp_path), "classification", eval_split="test"))
    assert found.labels == (("a", 0), ("b", 1), ("c", 2))
    assert found.class_sizes == (1, 0, 1)
    assert found.evaluation_sizes == (0, 1, 1)


@pytest.mark.parametrize(
    ("labels", "mapped", "said"),
    [
        (["good", "bad", ""], (), r"row 2 .* no label \(the only such row\).*: {bad: 0, good: 1, '': null}"),
        (["good", "bad", float("nan")], (), "row 2 .* no label"),
        (["good", "bad", "N/A"], (), r"'N/A', which often stands for a missing one.*{bad: 0, good: 1, N/A: null}"),
        ([0, 1, 1, "unsure"], (), r"row 3 .*'unsure', where 3 of 4 labels are numbers"),
        (["Good", "bad", "good"], (), r"'Good' and 'good' differ in capital letters alone.*{Good: 1, bad: 0, good: 1}"),
        (["same", "same"], (), "every label is 'same'"),
        ([["a", "b"], ["a"]], (), r"row 0 .*\['a', 'b'\], which is several values"),
        ([f"note {n}" for n in range(30)], (), "30 different labels in 30 rows.*is task.label the column"),
        (
            ["a", "b", "c", "c"],
            (("a", 0), ("b", 1)),
            r"row 2 .*'c' \(2 such rows\), which task.labels lacks; .* a, b. Add it with its class",
        ),
        (
            ["praise", "complaint", "praise"],
            (("complaint", 0), ("prase", 1)),
            r"row 0 .*'praise' .*task.labels lacks; .* No row has 'prase': .*correct it there. Otherwise add it",
        ),
        ([0, 3, 3, 3], (), r"no example of classes 1, 2; .*task.labels: {0: 0, 3: 1}"),
        ([1, 2, 2], (), r"no example of class 0; .*task.labels: {1: 0, 2: 1}"),
        ([-1, 1], (), r"row 0 .* -1; .*task.labels: {-1: 0, 1: 1}"),
        ([0.5, 1.5], (), "row 0 .* 0.5; .*sign_cut.*regression"),
    ],
)
def test_what_cannot_be_told_is_said_with_the_row_and_what_to_write(
    tmp_path: Path, labels: list[Any], mapped: Labels, said: str
):
    with pytest.raises(LabelError, match=said):
        examples(tmp_path, labels, mapped)


def test_rows_without_a_text_are_left_out_where_the_task_says_so(tmp_path: Path):
    path = tmp_path / "data.csv"
    path.write_text('text,more,label\na,b,0\n" ",b,1\nc,,1\nd,e,1\n')
    settings = TaskSettings(str(path), "classification", text_pair="more")
    with pytest.raises(EmptyTextError, match=r"line 3: row 1 .*leave such rows out with task.skip_blank_texts: true"):
        read_examples(settings)
    found = read_examples(TaskSettings(str(path), "classification", text_pair="more", skip_blank_texts=True))
    assert (found.train.texts, found.train.rows.tolist(), found.train.labels.tolist()) == (["a", "d"], [0, 3], [0, 1])


@pytest.mark.parametrize(
    ("value", "name"),
    [(1, "1"), (1.0, "1"), ("1.0", "1"), ("01", "01"), (1.5, "1.5"), (True, "true"), ("TRUE", "true"), (None, ""),
     (float("nan"), ""), (" \t", ""), ("No", "No"), (float("inf"), "inf"), (-0.0, "0")],
)  # fmt: skip
def test_names_do_not_depend_on_the_type_that_a_file_gives(value: Any, name: str):
    assert name_of(value) == name


def test_a_huge_number_has_a_name_too():
    assert "digits" in name_of(10**5000)


def test_labels_are_written_as_yaml_reads_them():
    from orchestrator.documents.composing import compose

    labels = (("it's", 0), ("a: b", 1), ("", None), ("2", 2), ("[/b]", 3), ("x y/z", 4))
    node = compose(written(labels))
    assert node is not None
    assert node.value == dict(labels)


@pytest.mark.parametrize(
    ("labels", "mapped", "names"),
    [
        (["1", 0, 1.0, 0], (("1", 1), ("0", 0)), 0),
        ([1, 0], (("1", 0), ("0", 1)), 2),
        ([1, 0, 1], (("0", 0), ("1", 1), ("2", 2)), 3),
        ([1, 0, None], (("0", 0), ("1", 1), ("", None)), 3),
    ],
)
def test_a_map_of_all_classes_to_themselves_is_no_map(tmp_path: Path, labels: list[Any], mapped: Labels, names: int):
    found = examples(tmp_path, labels, mapped)
    assert len(found.labels) == names
    if not names:
        plain = examples(tmp_path, labels)
        assert plain.labels == found.labels
        assert plain.train.labels.tolist() == found.train.labels.tolist()
        assert plain.n_outputs == found.n_outputs
