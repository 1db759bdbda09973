"""Sources of examples: local files, or a data set on the hub."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finetune.data.data_folder import DATA_SUFFIXES, is_data, split_files
from finetune.data.reading.delimited import read_csv, read_tsv
from finetune.data.reading.json_file import read_json, read_json_lines
from finetune.data.reading.parquet import read_parquet
from finetune.data.reading.table import Table, check_names, joined
from finetune.errors import DataLoadError, MissingColumnError, SplitError
from finetune.libraries.hub import unreachable
from finetune.settings import TaskSettings

_READERS = {
    ".parquet": read_parquet,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".jsonl": read_json_lines,
    ".json": read_json,
}


def read_split(task: TaskSettings, split: str) -> Table:
    """Return the columns that a task names of one split.

    Local files are read again every time, without a cache. A single file is the split `train`. Data sets on the hub go
    through the library `datasets` and its cache.

    Raises:
        DataLoadError: nothing can be read there.
        SplitError: no such split; lists those that exist.
        MissingColumnError: a column does not exist; lists those that do.
    """
    try:
        return _split(task, split)
    except (SplitError, MissingColumnError) as error:
        error.setting = _setting_of(error, task, split)
        raise


def _setting_of(error: SplitError | MissingColumnError, task: TaskSettings, split: str) -> str:
    """Return the key of the spec whose value is the cause of an error; empty where no key is."""
    if isinstance(error, SplitError):
        return "task.train_split" if split == task.train_split else "task.eval_split"
    return next((f"task.{key}" for key in ("text", "label", "text_pair") if getattr(task, key) in error.columns), "")


def _split(task: TaskSettings, split: str) -> Table:
    wanted = list(dict.fromkeys(name for name in (task.text, task.label, task.text_pair) if name is not None))
    path = Path(task.data)
    if path.is_dir():
        return joined([read_file(file, wanted) for file in split_files(path, split, task.config)])
    if not path.exists():
        if path.is_absolute() or is_data(path):
            raise DataLoadError(f"there is nothing at {path}: it cannot be read")
        return _from_hub(task, split, wanted)
    if split != "train":
        raise SplitError(f"{path} has no split {split!r}; a single file has only the split train")
    return read_file(path, wanted)


def read_file(path: Path, wanted: Sequence[str]) -> Table:
    """Return columns of one file.

    Raises:
        DataLoadError: its format is none of those that are read, or the file is not what its ending says.
        MissingColumnError: a column does not exist; lists those that do.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataLoadError(
            f"{path} does not end with one of {', '.join(DATA_SUFFIXES)}; convert it to Parquet, CSV or JSONL"
        )
    return reader(path, wanted)


def hub_splits(task: TaskSettings) -> Mapping[str, Any]:
    """Return the splits of a data set on the hub, by name.

    Raises:
        DataLoadError: it cannot be read.
    """
    from datasets import load_dataset

    with _quiet():
        try:
            splits: Mapping[str, Any] = load_dataset(task.data, name=task.config, revision=task.revision)
        except Exception as error:  # datasets passes on any error of its readers
            if said := unreachable(error):
                raise DataLoadError(
                    f"the data set {task.data} cannot be read from the hub: {said}, and the cache here has none of it; "
                    "give a file or a folder, or run where there is a network"
                ) from error
            raise DataLoadError(
                f"the data set {task.data} cannot be read from the hub: {_cause(error)}; set "
                "task.config if it has several configurations, or check the hub, its cache and the disk"
            ) from error
        return splits


def _from_hub(task: TaskSettings, split: str, wanted: Sequence[str]) -> Table:
    splits = hub_splits(task)
    with _quiet():
        if split not in splits:
            raise SplitError(f"{task.data} has no split {split!r}; its splits are: {', '.join(splits)}")
        rows = splits[split]
        check_names(f"{task.data}, split {split}", rows.column_names, wanted)
        named = {name: getattr(rows.features[name], "names", None) for name in wanted}
        return Table(
            {name: list(rows[name]) for name in wanted},
            len(rows),
            lambda row: task.data,
            {name: tuple(names) for name, names in named.items() if names},
        )


def _cause(error: BaseException) -> str:
    """Return the message of an error, followed by that of its first cause, which wrappers often leave out."""
    first = error
    seen = {id(error)}
    while (below := first.__cause__ or first.__context__) is not None and id(below) not in seen:
        first = below
        seen.add(id(below))
    told = [f"{type(each).__name__}: {each}" for each in dict.fromkeys((error, first))]
    return ", because of ".join(told)


@contextmanager
def _quiet() -> Iterator[None]:
    from datasets import disable_progress_bars, enable_progress_bars
    from datasets.utils import are_progress_bars_disabled

    shown: Any = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()
