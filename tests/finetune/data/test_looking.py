"""A first look at data: which columns hold texts and labels, and what labels need to become classes."""

from pathlib import Path
from typing import Any

import pytest

from finetune.data.looking import (
    are_ratings,
    label_columns,
    look_at,
    second_text,
    suggested_labels,
    text_columns,
)
from finetune.errors import DataLoadError

LONG = ["a long sentence about a film", "another one of the same kind", "and a third of them, too", "a last one"]


@pytest.mark.parametrize(
    ("columns", "texts", "pair", "labels"),
    [
        ({"text": LONG, "label": [0, 1, 1, 0]}, ["text"], None, ["label"]),
        ({"id": [1, 2, 3, 4], "Review": LONG, "Stars": [1, 5, 1, 5]}, ["Review"], None, ["Stars"]),
        ({"idx": [0, 1, 2, 3], "premise": LONG, "hypothesis": LONG, "label": list("abab")}, ["premise"], "hypothesis",
         ["label"]),
        ({"what": LONG, "who": list("aabb"), "kind": list("xyxy")}, ["what"], None, ["who", "kind"]),
        ({"one": LONG, "other": LONG[::-1], "label": [0, 1, 1, 0]}, ["one", "other"], None, ["label"]),
        ({"text": LONG, "n": [1, 2, 3, 4]}, ["text"], None, []),
        ({"text": LONG, "label": ["same"] * 4}, ["text"], None, ["label"]),
    ],
)  # fmt: skip
def test_columns_are_told_by_their_names_or_by_what_they_hold(
    columns: dict[str, list[Any]], texts: list[str], pair: str | None, labels: list[str]
):
    found = text_columns(columns)
    assert sorted(found) == sorted(texts)
    assert second_text(columns, found[0]) == pair
    assert label_columns(columns, [found[0], pair or found[0]]) == labels if len(texts) == 1 else True


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0, 1, 2, 1], ()),
        (["a", "b"], ()),
        ([1, 2, "5"], (("1", 0), ("2", 1), ("5", 2))),
        ([0, 1, None], (("0", 0), ("1", 1), ("", None))),
        ([1, 0, "unsure"], (("0", 0), ("1", 1), ("unsure", None))),
        (["Yes", "no", "yes", "N/A"], (("no", 0), ("Yes", 1), ("yes", 1), ("N/A", None))),
        (["+", "-", "0"], (("+", 0), ("-", 1), ("0", 2))),
        (["same", "N/A"], ()),
    ],
)
def test_labels_that_are_no_classes_yet_get_a_map(values: list[Any], labels: Any):
    assert suggested_labels(values) == labels


def test_ratings_are_fractions_or_many_numbers():
    assert are_ratings([0.5, 1, None])
    assert are_ratings([str(n) for n in range(30)])
    assert not are_ratings([1, 2, 5, "3"])
    assert not are_ratings(["a", 0.5])
    assert not are_ratings([None])


def test_a_folder_is_looked_into_by_the_names_of_its_splits(tmp_path: Path):
    (tmp_path / "dev.csv").write_text("text;label\nc;1\n")
    with pytest.raises(DataLoadError, match="has dev, and none is called train"):
        look_at(str(tmp_path))
    (tmp_path / "train.tsv").write_text("text\tlabel\na\t0\nb\t1\n")
    look = look_at(str(tmp_path))
    assert (look.train_split, look.eval_split, look.n_rows, look.n_eval) == ("train", "dev", 2, 1)
    assert look.columns == {"text": ["a", "b"], "label": ["0", "1"]}


def test_files_of_every_kind_tell_their_columns(tmp_path: Path):
    (tmp_path / "a.csv").write_text("\ufeff,text,label\n0,a,1\n", encoding="utf-8")
    assert list(look_at(str(tmp_path / "a.csv")).columns) == ["text", "label"]
    (tmp_path / "b.json").write_text('[{"text": "a", "label": 1}, {"text": "b", "other": [1]}]')
    assert look_at(str(tmp_path / "b.json")).columns == {"text": ["a", "b"], "label": [1, None], "other": [None, [1]]}
    (tmp_path / "c.csv").write_text("text,label\n")
    with pytest.raises(DataLoadError, match="has no rows"):
        look_at(str(tmp_path / "c.csv"))
    with pytest.raises(DataLoadError, match="there is nothing at"):
        look_at(str(tmp_path / "d.csv"))
    (tmp_path / "e.xlsx").write_text("")
    with pytest.raises(DataLoadError, match="convert it"):
        look_at(str(tmp_path / "e.xlsx"))
