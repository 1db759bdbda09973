"""The examples of a task, read and checked."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from finetune.data.classes import MOST_NAMES, classes_of, labels_of
from finetune.data.columns import MOST_LISTED, real_labels, rows_with_text, sign_labels, texts_of
from finetune.data.label_names import NamedClass, name_of, written
from finetune.data.left_out import LeftOut
from finetune.data.reading.table import Table
from finetune.data.repeats import first_places
from finetune.data.source import read_split
from finetune.errors import DataLoadError, EmptyTextError, LabelError
from finetune.settings import Labels, TaskSettings

_LISTED = 8


@dataclass(frozen=True, eq=False)
class Pool:
    """N examples to draw from.

    Attributes:
        texts: their sentences.
        pairs: their second sentences, if the task has them.
        labels: (N,) int64 classes or float64 numbers.
        rows: (N,) int64 row of each in its split, since a sign cut leaves rows out.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: NDArray[np.int64] | NDArray[np.float64]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.texts)

    def at(self, positions: NDArray[np.int64]) -> "Pool":
        """Return the examples at `positions`, in that order."""
        return Pool(
            [self.texts[i] for i in positions],
            None if self.pairs is None else [self.pairs[i] for i in positions],
            self.labels[positions],
            self.rows[positions],
        )


@dataclass(frozen=True, eq=False)
class Examples:
    """Everything that a task can draw.

    Attributes:
        train: where training examples come from.
        evaluation: where evaluation examples come from; the same pool if they are held out from it.
        n_outputs: number of classes, or 1 for regression.
        labels: the class of each label by its name; empty where labels are the classes themselves.
        class_names: what the labels mean, where they are names or the data bring the names of their classes.
        left_out: rows of both that are no examples.
    """

    train: Pool
    evaluation: Pool
    n_outputs: int
    labels: Labels = ()
    class_names: tuple[NamedClass, ...] = ()
    left_out: LeftOut = field(default_factory=LeftOut)

    @property
    def held_out(self) -> bool:
        """True if evaluation examples are taken from the training pool."""
        return self.evaluation is self.train

    @property
    def class_sizes(self) -> tuple[int, ...]:
        """Number of training examples of each class; empty for regression."""
        return self._sizes(self.train)

    @property
    def evaluation_sizes(self) -> tuple[int, ...]:
        """Number of evaluation examples of each class; empty for regression."""
        return self._sizes(self.evaluation)

    def _sizes(self, pool: Pool) -> tuple[int, ...]:
        if not np.issubdtype(pool.labels.dtype, np.integer):
            return ()
        return tuple(np.bincount(pool.labels, minlength=self.n_outputs).tolist())


def read_examples(task: TaskSettings, *, n_outputs: int | None = None) -> Examples:
    """Read and check both splits of a task.

    Args:
        task: what to read.
        n_outputs: number of classes; None takes those of `task.labels`, as many as there are names, or the largest
            label plus one, and then every class up to it must occur.

    Raises:
        DataLoadError, SplitError: no such data or split, or no rows there.
        MissingColumnError: a column does not exist; lists those that do.
        EmptyTextError, TextError: a row without text, or with one that cannot be encoded; names the row.
        LabelError: a label that is not a class or a number, or is outside the head; names row and value. Classes that
            never occur although no number of classes is given, or more classes than rows.
    """
    names = [task.train_split] + ([] if task.eval_split in (None, task.train_split) else [str(task.eval_split)])
    splits = [_Split(name, read_split(task, name)) for name in names]
    labels = task.labels
    if task.kind == "classification" and task.sign_cut is None and not labels:
        columns = [(split.table.columns[task.label], split.place) for split in splits]
        labels = labels_of(columns, f"{task.data}, column {task.label!r}")
    read = [_pool(task, split, labels) for split in splits]
    train, evaluation = read[0][0], read[-1][0]
    left_out = LeftOut(_by_label(task, splits, labels), sum(blank for _, blank in read))
    if task.kind == "regression":
        return _once(task, Examples(train, evaluation, 1, left_out=left_out))
    if n_outputs is None and labels:
        n_outputs = max(of for _, of in labels if of is not None) + 1
    pools = [(train, task.train_split)] + ([] if evaluation is train else [(evaluation, str(task.eval_split))])
    classes = _number_of_classes(task, pools, n_outputs)
    if n_outputs is None and task.sign_cut is None:
        found = np.concatenate([pool.labels for pool, _ in pools])
        _check_every_class_occurs(task, found, classes)
        _check_classes_are_meant(task, len(found), classes)
    class_names = _class_names(labels, splits[0].table.class_names.get(task.label, ()) if task.sign_cut is None else ())
    if _is_redundant(labels, [pool for pool, _ in pools]):
        labels = ()
    return _once(task, Examples(train, evaluation, classes, labels, class_names, left_out))


def _by_label(task: TaskSettings, splits: "Sequence[_Split]", labels: Labels) -> tuple[tuple[str, int], ...]:
    """Return how many rows each label has that is given null; those without any are not listed."""
    null = [name for name, of in labels if of is None]
    if not null:
        return ()
    counts = Counter(name_of(value) for split in splits for value in split.table.columns[task.label])
    return tuple((name, counts[name]) for name in null if counts[name])


def _number_of_classes(task: TaskSettings, pools: Sequence[tuple[Pool, str]], n_outputs: int | None) -> int:
    """Return the number of classes: `n_outputs`, or as many as the labels of the pools, with their splits, count.

    Raises:
        LabelError: there are more classes than rows, or a label is outside the head.
    """
    largest = max(int(pool.labels.max()) for pool, _ in pools)
    classes = max(largest + 1, 2) if n_outputs is None else n_outputs
    n_rows = sum(len(pool) for pool, _ in pools)
    if classes > max(n_rows, 2):
        pool, split = next((pool, split) for pool, split in pools if n_outputs or pool.labels.max() == largest)
        row = pool.rows[pool.labels.argmax()]
        why = "task.classes says" if n_outputs else f"row {row} of split {split} has label {largest}, which makes"
        raise LabelError(
            f"{task.data}: {why} {classes} classes, but there are {n_rows} rows; classes count from 0: correct the "
            f"labels{' or task.classes' if n_outputs else ''}",
            setting="task.classes" if n_outputs else "task.label",
        )
    for pool, split in pools:
        outside = np.flatnonzero(pool.labels >= classes)
        if len(outside):
            raise LabelError(
                f"{task.data}: row {pool.rows[outside[0]]} of split {split} has label {pool.labels[outside[0]]}, "
                f"outside a head with {classes} outputs (labels 0 to {classes - 1}); raise `classes` or correct the "
                "label",
                setting="task.classes",
            )
    return classes


def _class_names(labels: Labels, of_data: Sequence[str]) -> tuple[NamedClass, ...]:
    """Return what labels mean: those of the data by their number, others by their own name."""
    meanings = {str(number): name for number, name in enumerate(of_data)}
    classes = labels or tuple((label, number) for number, label in enumerate(meanings))
    return tuple(NamedClass(label, meanings.get(label, label), of) for label, of in classes if of is not None)


def _is_redundant(labels: Labels, pools: Sequence[Pool]) -> bool:
    """Tell whether a map of labels changes nothing: it maps 0, 1, ... to themselves, and all of them occur."""
    themselves = {str(number): number for number in range(len(labels))}
    if len(labels) < 2 or dict(labels) != themselves:
        return False
    return set(themselves.values()) == set(np.concatenate([pool.labels for pool in pools]).tolist())


def _check_every_class_occurs(task: TaskSettings, labels: NDArray[np.generic], classes: int) -> None:
    found = np.unique(labels).tolist()
    missing = sorted(set(range(classes)) - set(found))
    if not missing:
        return
    if len(found) < 2:
        fix = "give rows of two classes"
    elif len(found) > MOST_LISTED:
        fix = f"code the {len(found)} labels as 0 to {len(found) - 1}"
    else:
        fix = f"say which classes they are, as in task.labels: {written((str(n), i) for i, n in enumerate(found))}"
    raise LabelError(
        f"{task.data}: there is no example of {_plural('class', missing)} {_listed(missing)}; the labels are "
        f"{_listed(found)}, and classes count from 0. {fix[0].upper()}{fix[1:]}, or set task.classes: {classes} if a "
        "class has no example here"
    )


def _check_classes_are_meant(task: TaskSettings, n_rows: int, classes: int) -> None:
    """Refuse numbers that seem to count the rows: with names the same is refused."""
    if classes > MOST_NAMES and 2 * classes > n_rows:
        raise LabelError(
            f"{task.data}: there are {classes:,} different labels in {n_rows:,} rows: is task.label the column of the "
            f"classes? If it is, set task.classes: {classes}",
            setting="task.label",
        )


def _plural(word: str, things: Sequence[int]) -> str:
    return word if len(things) == 1 else f"{word}es"


def _listed(labels: Sequence[int]) -> str:
    return ", ".join(map(str, labels[:_LISTED])) + (", ..." if len(labels) > _LISTED else "")


def _once(task: TaskSettings, examples: Examples) -> Examples:
    """Return the examples without repeated texts, and without training texts that are evaluated on, if the task asks.

    Of several rows with the same text the first one stays. Evaluation splits keep all their texts.
    """
    if not task.distinct_texts:
        return examples
    train, evaluation = examples.train, examples.evaluation
    if examples.held_out:
        kept = _first_of_each(train)
        left_out = replace(examples.left_out, repeated=len(train) - len(kept))
        return replace(examples, train=kept, evaluation=kept, left_out=left_out)
    kept_evaluation = _first_of_each(evaluation)
    within = first_places(kept_evaluation, train)
    kept = _first_of_each(train.at(np.flatnonzero(within < 0)))
    if not len(kept):
        raise DataLoadError(
            f"{task.data}: every text of split {task.train_split} stands in split {task.eval_split} too, so that "
            "task.distinct_texts leaves none to train on"
        )
    repeated = len(train) - len(kept) + len(evaluation) - len(kept_evaluation)
    left_out = replace(examples.left_out, repeated=repeated)
    return replace(examples, train=kept, evaluation=kept_evaluation, left_out=left_out)


def _first_of_each(pool: Pool) -> Pool:
    return pool.at(np.flatnonzero(first_places(pool, pool) == np.arange(len(pool))))


@dataclass(frozen=True, eq=False)
class _Split:
    """A split as it was read."""

    name: str
    table: Table

    def place(self, row: int) -> str:
        return f"{self.table.place(row)}: row {row} of split {self.name}"


def _pool(task: TaskSettings, split: _Split, labels_by_name: Labels) -> tuple[Pool, int]:
    """Return the examples of a split, and how many rows were left out for a blank text."""
    table, place = split.table, split.place
    if not table.n_rows:
        raise DataLoadError(f"split {split.name} of {task.data} has no rows; give data with examples")
    values = table.columns[task.label]
    labels: NDArray[np.int64] | NDArray[np.float64]
    rows = np.arange(len(values))
    if task.kind == "regression":
        labels = real_labels(values, place)
    elif task.sign_cut is not None:
        rows, labels = sign_labels(values, place, task.sign_cut)
        if not len(rows):
            raise LabelError(
                f"{task.data}: no rating of split {split.name} is beyond task.sign_cut {task.sign_cut:g} on either "
                "side; lower it",
                setting="task.sign_cut",
            )
    else:
        rows, labels = classes_of(values, place, labels_by_name)
        if not len(rows):
            said = f"task.labels leaves out every row of split {split.name}; give one of its labels a class"
            raise LabelError(said, setting="task.labels")
    labelled = len(rows)
    if task.skip_blank_texts:
        of_texts = [table.columns[name] for name in (task.text, task.text_pair) if name is not None]
        kept = np.isin(rows, rows_with_text(of_texts, rows))
        rows, labels = rows[kept], labels[kept]
        if not len(rows):
            raise EmptyTextError(f"{task.data}: no row of split {split.name} has a text in column {task.text!r}")
    pool = Pool(
        texts=texts_of(table.columns[task.text], rows, task.text, place),
        pairs=None if task.text_pair is None else texts_of(table.columns[task.text_pair], rows, task.text_pair, place),
        labels=labels,
        rows=rows,
    )
    return pool, labelled - len(rows)
