"""Where examples are read from: local files, or a data set on the hub."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finetune.errors import DataLoadError, SplitError
from finetune.settings import TaskSettings

_FORMATS = {".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".json": "json"}


def read_split(task: TaskSettings, split: str) -> Any:
    """One split as a `datasets.Dataset`.

    Local files are read anew every time, past the cache of `datasets`, so that a changed file is never
    mistaken for what it was before. Data sets on the hub go through its cache as usual.

    Raises:
        DataLoadError: nothing can be read there.
        SplitError: no such split; lists those that exist.
    """
    path = Path(task.data)
    with _quiet():
        if not path.exists():
            return _load(task, split, task.data, name=task.config, revision=task.revision)
        with tempfile.TemporaryDirectory() as cache:
            if path.is_dir():
                return _load(task, split, str(path), name=task.config, cache_dir=cache, keep_in_memory=True)
            kind = _FORMATS.get(path.suffix.lower())
            if kind is None:
                raise DataLoadError(f"{path} is none of {', '.join(_FORMATS)}; convert it to Parquet, CSV or JSONL")
            options = {"sep": "\t"} if path.suffix.lower() == ".tsv" else {}
            return _load(task, split, kind, data_files=str(path), cache_dir=cache, keep_in_memory=True, **options)


def _load(task: TaskSettings, split: str, *args: str, **options: Any) -> Any:
    from datasets import load_dataset

    try:
        splits = load_dataset(*args, **options)
    except Exception as error:  # datasets raises whatever its readers raise
        raise DataLoadError(
            f"the data {task.data} cannot be read: {type(error).__name__}: {error}. It must be a Parquet, "
            "CSV or JSONL file, a folder of them, or a data set on the hub (with its config where it has "
            "several)"
        ) from error
    if split not in splits:
        raise SplitError(f"{task.data} has no split {split!r}; its splits are: {', '.join(splits)}")
    return splits[split]


@contextmanager
def _quiet() -> Iterator[None]:
    from datasets import disable_progress_bars, enable_progress_bars
    from datasets.utils import are_progress_bars_disabled

    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()
