"""A first look at data of which nothing is known: its splits, its columns, and which of them may hold what."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.data.classes import stands_for_nothing
from finetune.data.columns import number_in
from finetune.data.data_folder import is_data, split_files, split_names
from finetune.data.label_names import MISSING, name_of
from finetune.data.reading.delimited import delimited_names
from finetune.data.reading.json_file import json_names
from finetune.data.reading.parquet import parquet_names
from finetune.data.source import hub_splits, read_file
from finetune.errors import DataLoadError
from finetune.settings import Labels, TaskSettings

_EVALUATION = ("validation", "valid", "val", "dev", "eval", "evaluation", "test")
"""Names of splits for evaluation; the first that is there is taken."""

_TEXTS = (
    "text", "sentence", "content", "review", "body", "message", "comment", "tweet", "headline", "title", "utterance",
    "document", "description", "question", "query", "abstract", "post", "input",
)  # fmt: skip
_PAIRS = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("question", "sentence"),
    ("text1", "text2"), ("text_a", "text_b"), ("sentence_a", "sentence_b"), ("query", "passage"),
)  # fmt: skip
_LABELS = (
    "label", "labels", "class", "category", "target", "sentiment", "intent", "topic", "rating", "stars", "score",
    "gold_label", "polarity", "emotion", "y", "output", "tag",
)  # fmt: skip
_NUMBERS = frozenset({"", "id", "idx", "index", "unnamed: 0", "guid", "row", "example_id"})
"""Names, in small letters, of columns that number the rows."""

MOST_CLASSES = 20
"""Different whole numbers in a column up to which they are taken for classes."""


@dataclass(frozen=True)
class Look:
    """Data as they are.

    Attributes:
        train_split: the split to train on.
        eval_split: the split to evaluate on; None where there is none of its own.
        columns: values of all columns of the training split, by name.
        n_rows: its rows.
        n_eval: rows of the evaluation split; 0 where there is none.
    """

    train_split: str
    eval_split: str | None
    columns: Mapping[str, Sequence[Any]]
    n_rows: int
    n_eval: int


def look_at(data: str, config: str | None = None) -> Look:
    """Return what a file, a folder or a data set on the hub holds.

    Raises:
        DataLoadError: nothing can be read there, or it does not say which split is for training.
    """
    path = Path(data)
    if not path.exists() and not is_data(path) and not path.is_absolute():
        splits = hub_splits(TaskSettings(data, "classification", config=config))
        train, evaluation = _chosen_splits(data, list(splits))
        rows = splits[train]
        columns = {name: list(rows[name]) for name in rows.column_names}
        return Look(train, evaluation, columns, len(rows), len(splits[evaluation]) if evaluation else 0)
    if not path.exists():
        raise DataLoadError(f"there is nothing at {path}")
    if path.is_file():
        return _look(path, "train", [path], None, [])
    names = split_names(path)
    train, evaluation = _chosen_splits(data, names)
    others = split_files(path, evaluation) if evaluation else []
    return _look(path, train, split_files(path, train), evaluation, others)


def _chosen_splits(data: str, names: Sequence[str]) -> tuple[str, str | None]:
    train = next((name for name in ("train", "training") if name in names), None)
    if train is None:
        raise DataLoadError(
            f"{data} has {', '.join(names)}, and none is called train: name one of its files as the data, or call the "
            "one to train on train"
        )
    return train, next((name for name in _EVALUATION if name in names), None)


def _look(path: Path, train: str, files: Sequence[Path], evaluation: str | None, others: Sequence[Path]) -> Look:
    columns: dict[str, list[Any]] = {}
    n_rows = 0
    for file in files:
        names = [name for name in _names(file) if name]
        table = read_file(file, names)
        if not names or not table.n_rows:
            raise DataLoadError(f"{file} has no rows; give data with examples")
        for name in names:
            columns.setdefault(name, [None] * n_rows).extend(table.columns[name])
        n_rows += table.n_rows
    first = next(iter(columns))
    n_eval = sum(read_file(file, [first]).n_rows for file in others)
    return Look(train, evaluation, columns, n_rows, n_eval)


def _names(path: Path) -> list[str]:
    """Return the names of a file's columns."""
    match path.suffix.lower():
        case ".parquet":
            return parquet_names(path)
        case ".jsonl" | ".json":
            return json_names(path)
        case ".csv" | ".tsv":
            return delimited_names(path)
    read_file(path, [])  # says which formats there are
    return []


def text_columns(columns: Mapping[str, Sequence[Any]]) -> list[str]:
    """Return the columns that may hold the texts: those with a usual name, else those with texts, the longest first."""
    texts = {name: values for name, values in columns.items() if _are_texts(values)}
    for pair in _PAIRS:
        if len(found := _called(pair, texts)) == 2:
            return found[:1]
    if named := _called(_TEXTS, texts):
        return named[:1]
    candidates = [name for name in texts if name.lower() not in _NUMBERS and name.lower() not in _LABELS]
    # texts differ from row to row, and labels come again
    candidates = [
        name for name in candidates if 2 * len(set(map(name_of, columns[name]))) > len(texts[name])
    ] or candidates
    lengths = {name: sum(len(str(value)) for value in columns[name] if value is not None) for name in candidates}
    ordered = sorted(candidates, key=lambda name: -lengths[name])
    # one that is several times as long as the next is the text, and the others are titles or names
    return ordered[:1] if len(ordered) > 1 and lengths[ordered[0]] > 3 * lengths[ordered[1]] else ordered


def second_text(columns: Mapping[str, Sequence[Any]], text: str) -> str | None:
    """Return the column of the second text of a pair, by its usual name; None if there is none."""
    for first, second in _PAIRS:
        if text.lower() == first and (found := _called([second], columns)):
            return found[0]
    return None


def label_columns(columns: Mapping[str, Sequence[Any]], texts: Iterable[str]) -> list[str]:
    """Return the columns that may hold the labels: one with a usual name, else all with values that come again."""
    others = {name: values for name, values in columns.items() if name not in texts}
    several = {name: values for name, values in others.items() if len({name_of(value) for value in values}) > 1}
    if named := _called(_LABELS, several) or _called(_LABELS, others):
        return named[:1]
    found = {name: len({name_of(value) for value in values} - {MISSING}) for name, values in several.items()}
    return [name for name, count in found.items() if name.lower() not in _NUMBERS and 2 * count <= len(several[name])]


def suggested_labels(values: Sequence[Any]) -> Labels:
    """Return classes for labels that do not say them: numbers but 0, 1, 2, ..., or with some missing or misspelt.

    Names that differ in capital letters alone are one class. Rows without a label, or with a word among numbers, are
    left out. Nothing is returned for labels that need no such map, or that none makes two classes.
    """
    names = {name: number_in(name) for name in map(name_of, values)}
    numbers = {name: number for name, number in names.items() if number is not None}
    nothing = [name for name in names if stands_for_nothing(name)]
    if len(numbers) > 1:
        ordered = sorted(numbers, key=lambda name: numbers[name])
        if [numbers[name] for name in ordered] == list(range(len(ordered))) and len(numbers) == len(names):
            return ()
        return (*_one_each(ordered), *((name, None) for name in names if name not in numbers))
    there = sorted(names.keys() - nothing, key=lambda name: (name.casefold(), name))
    classes = {small: number for number, small in enumerate(dict.fromkeys(name.casefold() for name in there))}
    needs_none = not nothing and not numbers and len(classes) == len(there)
    if needs_none or len(classes) < 2:
        return ()
    return (*((name, classes[name.casefold()]) for name in there), *((name, None) for name in nothing))


def _one_each(names: Sequence[str]) -> Labels:
    return tuple((name, number) for number, name in enumerate(names))


def are_ratings(values: Sequence[Any]) -> bool:
    """Tell whether labels are numbers to predict rather than classes: fractions, or many different ones."""
    numbers = [number_in(value) for value in values if name_of(value) != MISSING]
    known = {number for number in numbers if number is not None}
    if None in numbers or not known:
        return False
    return any(number != int(number) for number in known) or len(known) > MOST_CLASSES


def _are_texts(values: Sequence[Any]) -> bool:
    """Tell whether most values are texts that are no numbers."""
    there = [value for value in values if name_of(value) != MISSING]
    texts = sum(isinstance(value, str) and number_in(value) is None for value in there)
    return 2 * texts > len(there)


def _called(usual: Iterable[str], columns: Iterable[str]) -> list[str]:
    """Return the columns with these names, whatever their capital letters, in the order of the names."""
    by_small = {name.lower(): name for name in columns}
    return [by_small[name] for name in usual if name in by_small]
