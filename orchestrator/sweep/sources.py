"""Locations of the model and the data, and fingerprints that show when they change."""

import hashlib
import logging
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from finetune.data.data_folder import data_files, is_data
from finetune.errors import DataLoadError
from orchestrator.errors import SourceError
from orchestrator.identity import identity
from orchestrator.spec import Spec
from orchestrator.spec.places import NO_TEXT, is_text
from orchestrator.spec.sections import TaskSection
from orchestrator.store.user_cache import recall, remember
from orchestrator.sweep.adapter_folders import ADAPTER, check_no_adapter
from orchestrator.sweep.missing_places import hint_at_alike

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FileFingerprint:
    """A file's content, and the size and times by which an unchanged file is known without reading it.

    Attributes:
        sha256: checksum of the content.
        size: its bytes.
        modified_ns: time of the last change of its content, which any user may reset.
        changed_ns: time of the last change of content or metadata, which no user may reset.
    """

    sha256: str
    size: int
    modified_ns: int
    changed_ns: int


@dataclass(frozen=True)
class Source:
    """A model or a dataset, found.

    Attributes:
        location: absolute path of a file or folder, or an id on the hub.
        revision: commit on the hub; None for local sources.
        files: fingerprints of the files of a local source, by name.
    """

    location: str
    revision: str | None = None
    files: Mapping[str, FileFingerprint] = field(default_factory=dict)

    @property
    def content_id(self) -> str:
        """Identity of the content, independent of its location."""
        if self.revision is not None:
            return identity([self.location, self.revision])
        return identity({name: file.sha256 for name, file in self.files.items()})

    def to_json(self) -> dict[str, Any]:
        """Return the source as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Source":
        """Return the source that `to_json` wrote."""
        files = {name: FileFingerprint(**file) for name, file in data["files"].items()}
        return cls(data["location"], data["revision"], files)


@dataclass(frozen=True)
class Sources:
    """The model and the data of a sweep.

    Attributes:
        model: the model.
        data: the data of the task; of the first one, where the grid has several.
        tasks: the data of every task of the grid, by its name; empty where the grid has no tasks.
    """

    model: Source
    data: Source
    tasks: Mapping[str, Source] = field(default_factory=dict)

    def named(self) -> dict[str, Source]:
        """Return every source by its name in messages: `model`, `data`, or `data of <task>`."""
        return {"model": self.model, **self.all_data()}

    def all_data(self) -> dict[str, Source]:
        """Return the data of every task by its name in messages."""
        return {f"data of {task}": source for task, source in self.tasks.items()} or {"data": self.data}

    def data_with(self, content_id: str) -> Source:
        """Return the data with that content.

        Raises:
            SourceError: the sweep has no such data.
        """
        for source in self.all_data().values():
            if source.content_id == content_id:
                return source
        raise SourceError(f"no task of the sweep has the data {content_id}; run the spec again")

    def to_json(self) -> dict[str, Any]:
        """Return the sources as JSON."""
        tasks = {name: source.to_json() for name, source in self.tasks.items()}
        return {"model": self.model.to_json(), "data": self.data.to_json()} | ({"tasks": tasks} if tasks else {})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Sources":
        """Return the sources that `to_json` wrote."""
        tasks = {name: Source.from_json(source) for name, source in data.get("tasks", {}).items()}
        return cls(Source.from_json(data["model"]), Source.from_json(data["data"]), tasks)


def spec_with_places(spec: Spec, sources: Sources, folder: Path) -> Spec:
    """Return a spec that names its model and data where they were found, and the results folder that it is in."""

    def task_at(task: TaskSection, source: Source) -> TaskSection:
        return task.model_copy(update={"data": source.location})

    tasks = spec.grid.tasks
    placed = tasks and {name: task_at(task, sources.tasks[name]) for name, task in tasks.items()}
    return spec.model_copy(
        update={
            "model": spec.model.model_copy(update={"path": sources.model.location}),
            "task": task_at(spec.task, sources.data),
            "grid": spec.grid.model_copy(update={"tasks": placed}),
            "results": spec.results.model_copy(update={"folder": folder}),
        }
    )


def find_sources(spec: Spec, folder: Path, *, known: Sources | None = None) -> Sources:
    """Find the model and the data of a spec and fingerprint them.

    Args:
        spec: the spec.
        folder: folder that relative paths start from, which is the spec file's.
        known: fingerprints of an earlier run; a file of the same size and times is not read again.

    Raises:
        SourceError: a path does not exist, or the hub does not know the id or cannot be reached.
    """
    named = {name: task.data for name, task in (spec.grid.tasks or {}).items()}
    # Each place with the first task that names it; none if the grid has no tasks.
    tasks: dict[str, str | None] = {spec.task.data: next(iter(named), None)}
    for name, location in named.items():
        tasks.setdefault(location, name)
    # Local paths are checked before anything is requested from the hub.
    with _of_key("model.path"):
        model = _local(spec.model.path, folder)
    places = {}
    for location, task in tasks.items():
        with _of_key("task.data", task):
            places[location] = _local(location, folder)
    known_model = known.model if known else None
    known_data = {source.location: source for source in known.all_data().values()} if known else {}
    with _of_key("model.path"):
        found_model = (
            _fingerprint(model, _model_files(model), known_model)
            if model
            else hub_source("model", spec.model.path, spec.model.revision, known_model)
        )
    data = {}
    for location, task in tasks.items():
        with _of_key("task.data", task):
            data[location] = _find_data(location, places[location], known_data)
    return Sources(found_model, data[spec.task.data], {name: data[location] for name, location in named.items()})


@contextmanager
def _of_key(key: str, task: str | None = None) -> Iterator[None]:
    """Name the key whose value is the cause of the errors inside this context, but for those that name another."""
    try:
        yield
    except SourceError as error:
        error.key, error.task = error.key or key, task
        raise


def _find_data(location: str, path: Path | None, known: Mapping[str, Source]) -> Source:
    if path is None:
        return hub_source("dataset", location, None, known.get(location))
    return _fingerprint(path, _data_files(path), known.get(str(path)))


def find_again(name: str, before: Source) -> Source:
    """Fingerprint a source of an earlier run where it was then; a commit on the hub never changes.

    Args:
        name: its name in `Sources.named`.
        before: the source as it was found.

    Raises:
        SourceError: it is no longer there.
    """
    if before.revision is not None:
        return before
    path = Path(before.location)
    if not path.exists():
        raise SourceError(f"the {name} of the stored sweep is no longer at {path}; put it back there")
    return _fingerprint(path, _model_files(path) if name == "model" else _data_files(path), before)


def _local(location: str, folder: Path) -> Path | None:
    """Return the path of a local location, in which nothing is a pattern and a leading ~ may be a home folder."""
    path = _absolute(folder / location)
    if not is_text(path):
        raise SourceError(f"{path}: {NO_TEXT}")
    if path.exists():
        return path
    if location.startswith("~"):
        try:
            path = _absolute(Path(location).expanduser())
        except RuntimeError:
            raise SourceError(
                f"there is nothing at {path} (from `{location}`), and no user of that name has a home folder here"
            ) from None
        if path.exists():
            return path
    if path.is_symlink():
        raise SourceError(f"{path} is a broken link to {path.readlink()}; correct the link, or name a file")
    if "://" in location:
        raise SourceError(
            f"`{location}` is an address, not a path here; what is on the hub is named by its id, such as owner/name"
        )
    looks_like_path = location.startswith((".", "/", "~")) or is_data(path)
    if looks_like_path or location.count("/") > 1:
        raise SourceError(
            f"there is nothing at {path} (from `{location}`); paths are relative to the folder of the spec"
            f"{hint_at_alike(path)}"
        )
    return None


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - keeps symbolic links


def _model_files(folder: Path) -> list[Path]:
    check_model_folder(folder)
    hidden_or_prose = (".md", ".gitattributes")
    return [p for p in folder.iterdir() if p.is_file() and not p.name.endswith(hidden_or_prose)]


def check_model_folder(folder: Path) -> None:
    """Check that a path is a folder with the configuration of a model.

    Raises:
        SourceError: it is something else; says what to name instead.
    """
    if (folder / "config.json").is_file():
        return
    if folder.is_file():
        raise SourceError(f"{folder} is a file; name the folder of the model, which holds config.json and the weights")
    check_no_adapter(folder)
    below = sorted(path.parent.name for path in folder.glob("*/config.json"))[:5]
    if not below:
        for inside in sorted(folder.glob(f"*/{ADAPTER}")):
            check_no_adapter(inside.parent)
    advice = f"name one in it that has: {', '.join(below)}" if below else "name what save_pretrained wrote"
    raise SourceError(f"{folder} is not a model folder of transformers: it has no config.json; {advice}")


def _data_files(path: Path) -> list[Path]:
    try:
        return data_files(path)
    except DataLoadError as error:
        raise SourceError(str(error)) from error


def _fingerprint(root: Path, files: list[Path], known: Source | None) -> Source:
    # A single file is identified by its content and its format, not by its name.
    names = [path.relative_to(root).as_posix() if root.is_dir() else f"data{path.suffix.lower()}" for path in files]
    # Size and time tell whether a file has changed, not whether it is a copy of another one.
    earlier = dict(known.files) if known and known.location == str(root) else {}
    before = _remembered(root) | earlier
    began = time.time_ns()
    with ThreadPoolExecutor() as pool:
        prints = pool.map(_file_fingerprint, files, (before.get(name) for name in names))
        found = Source(str(root), files=dict(sorted(zip(names, prints, strict=True))))
    new = [name for name, file in found.files.items() if before.get(name) != file]
    seconds = (time.time_ns() - began) / 1e9
    logger.info("%s: %d files, %d of them read, %.2f s", root, len(found.files), len(new), seconds)
    if found.files != before:
        _remember(root, found, began)
    return found


_CACHE = "fingerprints"

_SETTLED_NS = 2_000_000_000
"""Nanoseconds that a file must be unchanged before it is read; file systems round times by up to two seconds."""


def _remembered(root: Path) -> dict[str, FileFingerprint]:
    """Return fingerprints of a source's files from earlier commands of the user, by name."""
    try:
        return dict(Source.from_json(recall(_CACHE, identity(str(root)))).files)
    except (KeyError, TypeError, AttributeError):
        return {}


def _remember(root: Path, found: Source, began: int) -> None:
    settled = {
        name: file for name, file in found.files.items() if max(file.modified_ns, file.changed_ns) + _SETTLED_NS < began
    }
    remember(_CACHE, identity(str(root)), Source(str(root), files=settled).to_json())


def _file_fingerprint(path: Path, known: FileFingerprint | None) -> FileFingerprint:
    try:
        facts = path.stat()
        if known and _times(known) == (facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns):
            return known
        with path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from None
    return FileFingerprint(content, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


def _times(known: FileFingerprint) -> tuple[int, int, int]:
    return known.size, known.modified_ns, known.changed_ns


HUB_ANSWERS_WITHIN = 20.0
"""Seconds after which the hub counts as out of reach: its client would wait for minutes where packets are dropped."""


def hub_source(kind: str, name: str, revision: str | None, known: Source | None = None) -> Source:
    """Ask the hub once for the commit of a model or of data; where it does not answer, the cache here.

    Args:
        kind: `model` or `dataset`.
        name: its id.
        revision: branch, tag or commit; None for the default branch.
        known: what an earlier run found.

    Raises:
        SourceError: there is no such id, or neither the hub nor the cache could be asked; says what to do.
    """
    from huggingface_hub import HfApi

    try:
        info = HfApi().repo_info(name, repo_type=kind, revision=revision, timeout=HUB_ANSWERS_WITHIN)
    except Exception as error:  # the HTTP library, and so its errors, differ between versions
        if known is not None and known.location == name and known.revision is not None:
            return known  # a cluster node without a network continues with the commit that the sweep started with
        if commit := _cached_commit(kind, name, revision):
            return Source(name, revision=commit)
        raise SourceError(f"there is no local path `{name}`, {_why_no_commit(error, kind, revision)}") from None
    return Source(name, revision=info.sha)


def _why_no_commit(error: Exception, kind: str, revision: str | None) -> str:
    """Say why the hub named no commit of a model or of data, and what to do."""
    from huggingface_hub import errors

    from finetune.libraries.hub import unreachable

    known: tuple[tuple[type[Exception], str], ...] = (
        (errors.HFValidationError, "and it is no id of the hub, such as owner/name; give a folder, or an id"),
        (
            errors.GatedRepoError,
            f"and the hub gives this {kind} only to users who have accepted its terms; accept them, and log in here",
        ),
        (errors.RevisionNotFoundError, f"and what the hub has under that id has no revision `{revision}`; correct it"),
        (
            errors.RepositoryNotFoundError,
            f"and the hub shows no {kind} with that id; correct it, or log in here",
        ),
    )
    for kind_of_error, said in known:
        if isinstance(error, kind_of_error):
            return said
    offline = isinstance(error, errors.OfflineModeIsEnabled)
    why = "HF_HUB_OFFLINE is set" if offline else unreachable(error) or type(error).__name__
    return (
        f"the hub could not be asked for a {kind} with that id ({why}), and the hub's cache here has none; give a "
        "folder, or run where the hub can be reached"
    )


def _cached_commit(kind: str, name: str, revision: str | None) -> str | None:
    """Return the commit of a snapshot in the hub's cache on this machine; None if there is none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, repo_type=kind, revision=revision, local_files_only=True)).name
    except (LocalEntryNotFoundError, HFValidationError):
        return None
