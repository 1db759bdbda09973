"""What `init` finds out about data and a model, asks, and writes into a spec to start from."""

import difflib
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.cli.classes_view import short
from orchestrator.cli.misspelled_labels import misspelled_said
from orchestrator.errors import SourceError, SpecError
from orchestrator.literal import printable
from orchestrator.spec.starting import Start

if TYPE_CHECKING:
    from finetune.data.looking import Look
    from finetune.data.task import Examples
    from finetune.settings import Labels, TaskSettings

MOST_WRITTEN = 20
"""Labels up to which their classes are written out where the data say them too."""

MANY_CLASSES = 10
"""Classes beyond which the kernel averages over outputs: its rows would be as many times as many."""

MOST_ROWS = 200
"""Training examples of a spec to start from, so that a first run takes minutes."""

MOST_EVALUATED = 300

MOST_DISTINCT = 0.9
"""Share of different texts from which on repeated ones are left out."""

FEWEST_OF_A_CLASS = 3
"""Training examples of the smallest class, on average, below which examples are not drawn at random."""

MEASURED_TEXTS = 1000
_LISTED = 6
_LENGTHS = (16, 32, 64, 128, 256, 512, 1024, 2048)

Ask = Callable[[str, Sequence[str]], str]
"""Returns the answer to a question; possible answers, if there are any. Raises an error where nobody can be asked."""


@dataclass(frozen=True)
class Given:
    """What the user of `init` says; None where it is to be found out.

    Attributes:
        data: the data.
        model: the model.
        config: configuration of data on the hub.
        text: column of the texts.
        text_pair: column of the second texts.
        label: column of the labels.
    """

    data: str
    model: str
    config: str | None = None
    text: str | None = None
    text_pair: str | None = None
    label: str | None = None


def start_from(given: Given, path: Path, name: str, ask: Ask) -> Start:
    """Return the content of a spec for some data and a model, which `plan` accepts.

    Args:
        given: what is known.
        path: the file that it will be written to, from whose folder relative paths start.
        name: name of the sweep.
        ask: asks the user for a column that cannot be told.

    Raises:
        SourceError: data or model cannot be used; the message names column, row or module.
        SpecError: a column that is given does not exist.
    """
    from finetune.errors import FinetuneError

    try:
        return _start(given, path, name, ask)
    except FinetuneError as error:
        raise SourceError(str(error)) from error


def _start(given: Given, path: Path, name: str, ask: Ask) -> Start:
    from finetune.data.looking import look_at

    revision = _model_revision(given.model)
    look = look_at(given.data, given.config)
    settings, examples, repeats = _read(given, look, ask)

    from orchestrator.loading import load_model_libraries

    load_model_libraries()  # they take seconds, in which what is wrong with the data is said already
    from finetune.model.suggestion import suggest
    from finetune.settings import ModelSettings

    model = ModelSettings(given.model, revision=revision)
    found = suggest(model)
    length, about_length = _length(model, examples, found.room)
    task = _task(given, path, look, examples, replace(settings, max_length=length), repeats=repeats)
    task.about["max_length"] = about_length
    return Start(
        name=name,
        model=_relative(given.model, path),
        about_model=f"{found.model_type}, {found.n_layers} layers",
        task=task.values,
        about_task=task.about,
        targets=found.targets,
        about_targets=f"the model also has: {', '.join(found.others)}" if found.others else "",
        n_train=_Sizes.of(examples).n_train,
        kernel={"outputs": "trace"} if examples.n_outputs > MANY_CLASSES else {},
        doubts=_doubts(examples),
    )


def _doubts(examples: "Examples") -> tuple[str, ...]:
    """Return what the labels make one ask."""
    pools = [examples.class_sizes] if examples.held_out else [examples.class_sizes, examples.evaluation_sizes]
    said = misspelled_said(examples.labels, tuple(map(sum, zip(*pools, strict=True))))
    return (said,) if said else ()


def _read(given: Given, look: "Look", ask: Ask) -> "tuple[TaskSettings, Examples, int]":
    """Return how the data are to be read so that all of them can be used, what is then there, and repeated texts."""
    from finetune.data.looking import are_ratings, second_text, suggested_labels
    from finetune.data.repeats import count_repeats
    from finetune.data.task import read_examples
    from finetune.errors import EmptyTextError
    from finetune.settings import TaskSettings

    text, label = _columns(given, look, ask)
    pair = _existing(given.text_pair, look, "--text-pair") if given.text_pair else second_text(look.columns, text)
    _refuse_row_as_names(given.data, look, label)
    ratings = are_ratings(look.columns[label])
    settings = TaskSettings(
        given.data,
        "regression" if ratings else "classification",
        config=given.config,
        train_split=look.train_split,
        eval_split=look.eval_split,
        text=text,
        text_pair=pair,
        label=label,
        labels=() if ratings else suggested_labels(look.columns[label]),
    )
    try:
        examples = read_examples(settings)
    except EmptyTextError:
        settings = replace(settings, skip_blank_texts=True)
        examples = read_examples(settings)
    once = replace(settings, distinct_texts=True)
    distinct = read_examples(once)
    # Where most texts stand several times they are what was measured, not copies.
    if MOST_DISTINCT * len(examples.train) <= len(distinct.train) < len(examples.train):
        return once, distinct, len(examples.train) - len(distinct.train)
    return settings, examples, count_repeats(examples.train)


def _model_revision(model: str) -> str | None:
    """Return the commit of a model on the hub; None for a folder.

    The hub is asked once, here: transformers would ask it for one file after the other, and again after each error.

    Raises:
        SourceError: there is no such folder or id, or the hub cannot be reached; says what to do.
    """
    from orchestrator.sweep.sources import check_model_folder, hub_source

    path = Path(model)
    if path.exists():
        check_model_folder(path)
        return None
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise SourceError(f"there is nothing at {path}; name the folder of a model, or its id on the hub")
    return hub_source("model", model, None).revision


def _refuse_row_as_names(data: str, look: "Look", label: str) -> None:
    """Raise an error if the first line of a file of delimited fields seems to be an example."""
    from finetune.data.label_names import name_of

    if Path(data).suffix.lower() in (".csv", ".tsv") and name_of(label) in map(name_of, look.columns[label]):
        raise SourceError(
            f"the first line of {data} should name its columns, and seems to be an example: `{label}` stands there and "
            "below it; write a line with names, such as text,label, above it"
        )


def _columns(given: Given, look: "Look", ask: Ask) -> tuple[str, str]:
    """Return the columns of texts and labels: those that are given, that have usual names, or that are asked for."""
    from finetune.data.looking import label_columns, text_columns

    text = _existing(given.text, look, "--text") if given.text else None
    label = _existing(given.label, look, "--label") if given.label else None
    if text is None:
        columns = {name: values for name, values in look.columns.items() if name != label}
        text = _only(text_columns(columns), columns, "texts", "--text", ask)
    if label is None:
        columns = {name: values for name, values in look.columns.items() if name != text}
        candidates = label_columns(columns, {text, given.text_pair or text})
        if not candidates and len(columns) == 1 and all(_are_same(each) for each in columns.values()):
            candidates = list(columns)  # that all labels are the same says more than a question
        label = _only(candidates, columns, "labels", "--label", ask)
    return text, label


def _are_same(values: Sequence[Any]) -> bool:
    return all(value == values[0] for value in values)


def _only(candidates: list[str], columns: Mapping[str, Any], what: str, option: str, ask: Ask) -> str:
    if len(candidates) == 1:
        return candidates[0]
    if not columns:
        raise SpecError(f"the data have no further column, which could hold the {what}; bring both together")
    unlike = "" if candidates else f"no column looks like {what}; "
    return ask(f"{unlike}which column holds the {what} ({option} COLUMN)", candidates or list(columns))


def _existing(name: str, look: "Look", option: str) -> str:
    if name in look.columns:
        return name
    nearest = difflib.get_close_matches(name, look.columns, n=1, cutoff=0.5)
    hint = f"did you mean `{nearest[0]}`? " if nearest else ""
    raise SpecError(f"{option}: there is no column `{name}`; {hint}there are: {', '.join(look.columns)}")


def _length(model: Any, examples: "Examples", room: int | None) -> tuple[int, str]:
    """Return the tokens to keep of a text, and what that rests on."""
    from finetune.model.suggestion import token_lengths

    pool = examples.train
    lengths = sorted(token_lengths(model, pool.texts[:MEASURED_TEXTS], pool.pairs and pool.pairs[:MEASURED_TEXTS]))
    most = lengths[min(len(lengths) - 1, int(0.95 * len(lengths)))]
    length = next((each for each in _LENGTHS if each >= most), _LENGTHS[-1])
    if room is not None and length > room:
        return room, f"tokens that are kept of a text: 95 % have {most} or fewer, and the model takes {room}"
    return length, f"tokens that are kept of a text: 95 % have {most} or fewer"


@dataclass(frozen=True)
class _Sizes:
    """Numbers of examples that are there and are computed in minutes, and whether classes are drawn equally often."""

    n_train: int
    n_eval: int
    balanced: bool

    @classmethod
    def of(cls, examples: "Examples") -> "_Sizes":
        there = len(examples.train)
        if there + (0 if examples.held_out else len(examples.evaluation)) < 4:
            raise SourceError(f"there are {there} examples to train on and evaluate; give at least 4")
        n_eval = min(MOST_EVALUATED, max(1, there // 4) if examples.held_out else len(examples.evaluation))
        n_train = min(MOST_ROWS, there - n_eval if examples.held_out else there)
        equal, smallest = n_train // examples.n_outputs, min(examples.class_sizes, default=0)
        # Held-out examples are drawn first, and may take some of the smallest class.
        if 0 < smallest * n_train < FEWEST_OF_A_CLASS * there and smallest >= 2 * equal > 0:
            return cls(equal * examples.n_outputs, n_eval, balanced=True)
        return cls(n_train - n_train % 10 if n_train > 20 else n_train, n_eval, balanced=False)


class _Keys:
    """Keys of the section `task` in their order, with comments on some."""

    def __init__(self) -> None:
        self.values: dict[str, object] = {}
        self.about: dict[str, str] = {}

    def add(self, key: str, value: object, about: str = "") -> None:
        """Add a key, unless its value is None."""
        if value is not None:
            self.values[key], self.about[key] = value, about


def _task(
    given: Given, path: Path, look: "Look", examples: "Examples", settings: "TaskSettings", *, repeats: int
) -> _Keys:
    """Return the keys of the section `task`."""
    used = (settings.text, settings.text_pair, settings.label)
    others = [name for name in look.columns if name not in used]
    keys = _Keys()
    said = _rows(look.n_rows) + (f"; other columns: {_some(others)}" if others else "")
    keys.add("data", _relative(given.data, path), said)
    keys.add("config", given.config)
    keys.add("train_split", look.train_split if look.train_split != "train" else None)
    keys.add("eval_split", look.eval_split, _rows(look.n_eval))
    repeated = f"{_rows(repeats)} {'repeat' if repeats > 1 else 'repeats'} a text of an earlier one" if repeats else ""
    keys.add("text", settings.text, "" if settings.distinct_texts else repeated)
    keys.add("text_pair", settings.text_pair, "the second of each pair")
    _add_labels(keys, look, examples, settings)
    if settings.distinct_texts:
        keys.add("distinct_texts", True, f"takes each text once: {repeated}")
    sizes = _Sizes.of(examples)
    keys.add("max_length", settings.max_length)
    held = "which are never trained on" if examples.held_out else f"of split {look.eval_split}"
    keys.add("n_eval", sizes.n_eval, f"examples to evaluate on, {held}")
    if sizes.balanced:
        keys.add("sampling", "balanced", "as many training examples of each class, for some are rare")
    return keys


def _add_labels(keys: _Keys, look: "Look", examples: "Examples", settings: "TaskSettings") -> None:
    from finetune.data.columns import number_in
    from finetune.data.label_names import MISSING, name_of

    values = look.columns[settings.label]
    if settings.kind == "regression":
        numbers = [number for value in values if (number := number_in(value)) is not None]
        keys.add("label", settings.label, f"numbers from {min(numbers):g} to {max(numbers):g}")
        keys.add("kind", settings.kind)
    else:
        keys.add("label", settings.label)
        keys.add("kind", settings.kind, _balance(examples))
        if settings.labels or 0 < len(examples.labels) <= MOST_WRITTEN:
            keys.add("labels", dict(examples.labels), _left_out(values, examples.labels))
    if settings.skip_blank_texts:
        blank = [name_of(value) for value in look.columns[settings.text]].count(MISSING)
        keys.add("skip_blank_texts", True, f"leaves {_rows(blank)} out" if blank else "")


def _balance(examples: "Examples") -> str:
    """Return the classes with the numbers of their training examples."""
    titles = {of: str(of) for of in range(examples.n_outputs)}
    for name, of in reversed(examples.labels):
        if of is not None:
            titles[of] = short(name)
    sizes = [f"{titles[of]} {size:,}" for of, size in enumerate(examples.class_sizes)]
    return f"{examples.n_outputs} classes: {_some(sizes)}"


def _left_out(values: Sequence[Any], labels: "Labels") -> str:
    from finetune.data.label_names import name_of

    counts = Counter(map(name_of, values))
    rows = sum(counts[name] for name, of in labels if of is None)
    return f"null leaves {_rows(rows)} out" if rows else ""


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _some(names: Sequence[str]) -> str:
    return printable(", ".join(names[:_LISTED])) + (", ..." if len(names) > _LISTED else "")


def _relative(place: str, path: Path) -> str:
    """Return a path as the spec in the file `path` names it; an id on the hub, or an absolute path, as it is."""
    if not os.path.lexists(place) or os.path.isabs(place):  # noqa: PTH117
        return place
    return os.path.relpath(place, path.parent)


def sweep_name(path: Path) -> str:
    """Return a name for the sweep of a spec in some file."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._") or "sweep"
