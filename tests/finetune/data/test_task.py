import json
import os
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from finetune.data.source import read_split
from finetune.data.task import read_examples
from finetune.errors import (
    DataLoadError,
    EmptyTextError,
    LabelError,
    MissingColumnError,
    SplitError,
)
from finetune.settings import TaskSettings

COLUMNS = {"text": ["one", "two", "three"], "label": [0, 1, 1]}


def parquet(folder, name="data.parquet", **columns):
    path = folder / name
    pyarrow.parquet.write_table(pa.table(columns or COLUMNS), path)
    return str(path)


def task(data, **options) -> TaskSettings:
    return TaskSettings(**{"data": data, "kind": "classification", **options})


# --- reading


@pytest.mark.parametrize("suffix", ["parquet", "csv", "tsv", "jsonl"])
def test_local_files_of_every_format(tmp_path, suffix):
    path = tmp_path / f"data.{suffix}"
    table = pa.table(COLUMNS)
    if suffix == "parquet":
        pyarrow.parquet.write_table(table, path)
    elif suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    else:
        options = pyarrow.csv.WriteOptions(delimiter="\t" if suffix == "tsv" else ",")
        pyarrow.csv.write_csv(table, path, options)
    examples = read_examples(task(str(path)))
    assert examples.train.texts == ["one", "two", "three"]
    assert examples.train.labels.tolist() == [0, 1, 1]
    assert examples.train.rows.tolist() == [0, 1, 2]
    assert examples.held_out
    assert examples.n_outputs == 2


def test_a_folder_has_the_splits_of_its_files(tmp_path):
    parquet(tmp_path, "train.parquet")
    parquet(tmp_path, "validation.parquet", text=["four"], label=[2])
    examples = read_examples(task(str(tmp_path), eval_split="validation"))
    assert not examples.held_out
    assert examples.evaluation.texts == ["four"]
    assert examples.n_outputs == 3
    with pytest.raises(SplitError, match=r"no split 'test'; its files are: train.parquet, validation.parquet"):
        read_examples(task(str(tmp_path), eval_split="test"))


def test_a_changed_file_is_read_again(tmp_path):
    path = parquet(tmp_path)
    before = Path(path).stat()
    assert read_examples(task(path)).train.texts[0] == "one"
    parquet(tmp_path, text=["six", "two", "three"], label=[0, 1, 1])
    # a copy that keeps the times is a changed file too
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert read_examples(task(path)).train.texts[0] == "six"


def test_reading_leaves_nothing_behind_and_prints_nothing(tmp_path, monkeypatch, capfd):
    cache = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    path = parquet(tmp_path)
    capfd.readouterr()
    examples = read_examples(task(path))
    assert examples.train.texts == ["one", "two", "three"]
    assert not cache.exists()
    assert capfd.readouterr() == ("", "")


def test_pairs(tmp_path):
    path = parquet(tmp_path, text=["a", "b"], other=["c", "d"], label=[0, 1])
    assert read_examples(task(path, text_pair="other")).train.pairs == ["c", "d"]
    assert read_examples(task(path)).train.pairs is None


def test_data_that_is_not_there(tmp_path):
    with pytest.raises(DataLoadError, match=r"there is nothing at .*missing\.parquet"):
        read_examples(task(str(tmp_path / "missing.parquet")))


def test_a_file_of_another_format(tmp_path):
    (tmp_path / "data.xlsx").touch()
    with pytest.raises(DataLoadError, match="convert it to Parquet"):
        read_examples(task(str(tmp_path / "data.xlsx")))


def test_a_damaged_file(tmp_path):
    (tmp_path / "data.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataLoadError, match="cannot be read"):
        read_examples(task(str(tmp_path / "data.parquet")))


# --- checks


def test_a_missing_column_lists_those_there_are(tmp_path):
    with pytest.raises(MissingColumnError, match=r"no column 'sentence'.*its columns are: text, label"):
        read_examples(task(parquet(tmp_path), text="sentence"))


@pytest.mark.parametrize("bad", ["", "  \n", None])
def test_an_empty_text_names_its_row(tmp_path, bad):
    path = parquet(tmp_path, text=["a", "b", bad], label=[0, 1, 1])
    with pytest.raises(EmptyTextError, match="row 2 of split train has no text in column 'text'"):
        read_examples(task(path))


@pytest.mark.parametrize("bad", [-1, 0.5, float("inf")])
def test_a_label_that_is_no_class_names_row_and_value(tmp_path, bad):
    path = parquet(tmp_path, text=["a", "b"], label=pa.array([1, bad], pa.float64() if bad != -1 else pa.int64()))
    with pytest.raises(LabelError, match=f"row 1 of split train has label {bad}; classes are whole"):
        read_examples(task(path))


@pytest.mark.parametrize("options", [{}, {"kind": "regression"}, {"sign_cut": 0.1}])
def test_a_label_that_is_not_there(tmp_path, options):
    path = parquet(tmp_path, text=["a", "b"], label=pa.array([1.0, None]))
    with pytest.raises(LabelError, match="row 1 of split train has no label; remove the row, or name a split whose"):
        read_examples(task(path, **options))


def test_whole_numbers_in_a_float_column_are_classes(tmp_path):
    examples = read_examples(task(parquet(tmp_path, text=["a", "b", "c"], label=[0.0, 2.0, 1.0])))
    assert examples.train.labels.tolist() == [0, 2, 1]
    assert examples.train.labels.dtype == np.int64
    assert examples.n_outputs == 3


def test_a_label_outside_the_head(tmp_path):
    path = parquet(tmp_path, text=list("abcdef"), label=[0, 3, 0, 0, 0, 0])
    with pytest.raises(LabelError, match=r"row 1 of split train has label 3, outside a head with 3 outputs"):
        read_examples(task(path), n_outputs=3)
    assert read_examples(task(path), n_outputs=6).n_outputs == 6


@pytest.mark.parametrize(("bad", "said"), [(float("nan"), "has no label"), (float("inf"), "not a finite number")])
def test_a_rating_that_is_no_number(tmp_path, bad, said):
    path = parquet(tmp_path, text=["a", "b"], label=[0.5, bad])
    for options in ({"kind": "regression"}, {"sign_cut": 0.1}):
        with pytest.raises(LabelError, match=f"row 1 of split train.*{said}"):
            read_examples(task(path, **options))


def test_regression_keeps_the_ratings(tmp_path):
    examples = read_examples(task(parquet(tmp_path, text=["a", "b"], label=[-1.5, 2.25]), kind="regression"))
    assert examples.train.labels.tolist() == [-1.5, 2.25]
    assert examples.n_outputs == 1


def test_a_sign_cut_makes_classes_and_leaves_out_what_is_between(tmp_path):
    path = parquet(tmp_path, text=list("abcde"), label=[-1.0, 0.5, 0.6, -0.5, 0.0])
    examples = read_examples(task(path, sign_cut=0.5))
    assert examples.train.texts == ["a", "c"]
    assert examples.train.labels.tolist() == [0, 1]
    assert examples.train.rows.tolist() == [0, 2]


def test_an_empty_text_that_a_sign_cut_leaves_out_is_no_error(tmp_path):
    path = parquet(tmp_path, text=["a", ""], label=[-1.0, 0.0])
    assert read_examples(task(path, sign_cut=0.5)).train.texts == ["a"]


def test_a_hub_data_set_is_read_at_its_commit(monkeypatch):
    """No hub can be reached here: what would be asked of it stands in for the answer."""
    asked = {}

    def load_dataset(*args, **options):
        asked.update(options, name_on_hub=args[0])
        return {"train": datasets.Dataset.from_dict(COLUMNS)}

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    task = TaskSettings("someone/sentences", "classification", config="en", revision="0123abc")
    assert read_split(task, "train").columns == COLUMNS
    assert asked == {"name_on_hub": "someone/sentences", "name": "en", "revision": "0123abc"}


def test_a_hub_that_cannot_be_reached_is_the_cause_that_is_named(monkeypatch):
    """Without a network the library raises this, with the error of the connection below it."""

    class ConnectError(Exception):
        """As httpx has it, which is no error of Python's own."""

    def load_dataset(*args, **options):
        try:
            raise ConnectError("[Errno -3] Temporary failure in name resolution")
        except ConnectError as error:
            raise FileNotFoundError("Dataset someone/sentences is not cached in None") from error

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    with pytest.raises(DataLoadError, match=r"from the hub: [\w.:]+ cannot be reached, and the cache here") as raised:
        read_split(TaskSettings("someone/sentences", "classification"), "train")
    assert "task.config" not in str(raised.value)


def test_the_cause_behind_a_wrapper_is_quoted(monkeypatch):
    """A full disk cannot be had here: it is raised below as the library raises it."""

    def load_dataset(*args, **options):
        try:
            raise OSError(28, "No space left on device", "/cache/part.arrow")
        except OSError as error:
            raise RuntimeError("An error occurred while generating the dataset") from error

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    with pytest.raises(DataLoadError, match=r"No space left on device: '/cache/part.arrow'"):
        read_split(TaskSettings("someone/sentences", "classification"), "train")
