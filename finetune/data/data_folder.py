"""The files of a data folder, and those that form a split."""

import re
from collections.abc import Sequence
from pathlib import Path

from finetune.errors import DataLoadError, SplitError

DATA_SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".json")

_ABOUT_DATA = frozenset({
    "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "package.json", "config.json",
})  # fmt: skip
"""Names of files that libraries put beside the files of a data set."""

_PART = re.compile(r"(?P<name>.+?)-(?P<number>\d{5})-of-(?P<count>\d{5})")
_EVALUATION = frozenset({"validation", "valid", "val", "dev", "test", "eval", "evaluation"})
_LISTED = 12


def is_data(path: Path) -> bool:
    """Tell whether a file's name is that of a format that is read."""
    return path.suffix.lower() in DATA_SUFFIXES


def data_files(path: Path) -> list[Path]:
    """Return the data files of a folder and those below it, in the order of their names; of a file, the file itself.

    Hidden files and folders, those that begin with an underscore, and descriptions of data sets are left out.

    Raises:
        DataLoadError: there is none, or the folder cannot be listed.
    """
    if path.is_file():
        return [path]
    if path.exists() and not path.is_dir():
        raise DataLoadError(f"{path} is neither a file nor a folder, but a pipe, a socket or a device; name a file")
    try:
        found = sorted(file for file in path.rglob("*") if is_data(file) and _counts(file.relative_to(path)))
        files = [file for file in found if file.is_file()]
    except OSError as error:
        raise DataLoadError(f"{error.filename or path} cannot be read: {error.strerror or error}") from error
    if not files:
        saved = any(path.rglob("*.arrow"))
        hint = "; it seems to be written by `save_to_disk`: write it with `to_parquet`" if saved else ""
        raise DataLoadError(f"{path} holds no {', '.join(DATA_SUFFIXES)} file{hint}")
    return files


def _counts(relative: Path) -> bool:
    return not any(part.startswith((".", "_")) for part in relative.parts) and relative.name not in _ABOUT_DATA


def split_files(folder: Path, split: str, config: str | None = None) -> list[Path]:
    """Return the files of one split of a folder: those of exactly that name, and no others.

    A split is a file (`train.csv`), all the numbered parts of one (`train-00000-of-00002.parquet`), or a folder of that
    name with one file or the parts of one, in the folder or in `data/` there. A folder with one file altogether, or the
    parts of one, has it as the split `train`, unless its name says that it is for evaluation. A path below the folder
    names a file too.

    Args:
        folder: the folder.
        split: name of the split.
        config: name of a folder in it that is taken instead.

    Raises:
        DataLoadError: there are no data files, or a part is missing.
        SplitError: no file has the name, or several that do not belong together; lists the files.
    """
    root = folder if config is None else folder / config
    if not root.is_dir():
        said = f"{folder} has no folder {config!r}, which task.config names; leave task.config out"
        raise DataLoadError(said, setting="task.config")
    files = data_files(root)
    named = [found for found in (_named(root, files, split), _named(root / "data", files, split)) if found]
    alone = len({_family(file) for file in files}) == 1 and not _is_for_evaluation(files[0])
    if not named and split == "train" and alone:
        named = [files]
    chosen = [file for found in named for file in found]
    families = {_family(file) for file in chosen}
    if not chosen:
        raise SplitError(
            f"{root} has no split {split!r}; its files are: {_listed(root, files)}. A split has the name of its "
            "file, with or without the ending: name one in task.train_split or task.eval_split"
        )
    if len(families) > 1:
        raise SplitError(
            f"{root} has several files for the split {split!r}: {_listed(root, chosen)}; name one of them with its "
            "folder and ending, or rename the others"
        )
    _check_parts(chosen)
    return chosen


def split_names(folder: Path) -> list[str]:
    """Return the names of a folder's splits: those of its files and folders, or `train` where there is one alone.

    Raises:
        DataLoadError: as `data_files`.
    """
    files = data_files(folder)
    if len({_family(file) for file in files}) == 1 and not _is_for_evaluation(files[0]):
        return ["train"]
    inside = [file.relative_to(folder) for file in files]
    below = [file.relative_to("data") if file.parts[0] == "data" and len(file.parts) > 1 else file for file in inside]
    return list(dict.fromkeys(file.parts[0] if len(file.parts) > 1 else _without_ending(file).name for file in below))


def _is_for_evaluation(file: Path) -> bool:
    return not _EVALUATION.isdisjoint(re.split(r"[^a-z]+", file.stem.lower()))


def _named(root: Path, files: Sequence[Path], split: str) -> list[Path]:
    """Return the files whose name, or whose folder's name, is `split`."""
    place = root / split
    exact = [file for file in files if file == place]
    return exact or [file for file in files if _without_ending(file) == place or place in file.parents]


def _without_ending(file: Path) -> Path:
    part = _PART.fullmatch(file.stem)
    return file.parent / (part["name"] if part else file.stem)


def _family(file: Path) -> tuple[str, str, str]:
    """Return the key shared by the parts of one split: their folder, their names without numbers, their format."""
    part = _PART.fullmatch(file.stem)
    name = f"{part['name']} of {part['count']}" if part else file.stem
    if re.match(r"part-\d+", file.stem):
        name = re.sub(r"part-\d+", "part", file.stem)
    return str(file.parent), name, file.suffix.lower()


def _check_parts(files: Sequence[Path]) -> None:
    part = _PART.fullmatch(files[0].stem)
    if part is None:
        return
    there = {int(found["number"]) for file in files if (found := _PART.fullmatch(file.stem))}
    count = int(part["count"])
    missing = next((number for number in range(count) if number not in there), None)
    if missing is not None:
        name = f"{part['name']}-{missing:05d}-of-{count:05d}{files[0].suffix}"
        raise DataLoadError(f"{files[0].parent} has {len(there)} of {count} parts; {name} is missing: add it")


def _listed(root: Path, files: Sequence[Path]) -> str:
    names = [file.relative_to(root).as_posix() for file in files]
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
