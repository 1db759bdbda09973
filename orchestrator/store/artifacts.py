"""Artifacts: the results of stages on disk, named by stage, written once, checksummed."""

import errno
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ntk_dist.device.faults import is_out_of_files
from orchestrator.errors import DamagedArtifactError
from orchestrator.identity import ID_LENGTH, identity
from orchestrator.store.arrays import HEADER, ArrayFile, ArrayReader, Layout, name_of
from orchestrator.store.batched import Array, BatchedLayout, BatchedRows
from orchestrator.store.checksums import ALGORITHM
from orchestrator.store.files import (
    explained,
    gone,
    is_plain,
    link_new,
    make_folder,
    move_aside,
    no_more_files,
    publish_new,
    read_plain,
    temporary_beside,
    visible,
)
from orchestrator.store.sealed import sealed, unsealed
from orchestrator.store.stage import Stage

FORMAT = 3
"""Version of the record beside the arrays of an artifact."""

DAMAGED = "damaged"
"""Folder of artifacts that were set aside, next to the folders of the kinds."""

_OWN = re.compile(rf"[0-9a-f]{{{ID_LENGTH}}}(\.json|\.[0-9a-f]{{12}}\.safetensors)")
_NOTE = ".found"


class Artifact:
    """A finished stage's facts and arrays; each array is compared with its checksum when it is first asked for.

    Attributes:
        facts: the results of the stage other than arrays, as JSON.
        provenance: where, when and by what it was computed.
    """

    def __init__(self, stage: tuple[str, str], record: Mapping[str, Any], arrays: ArrayReader | None) -> None:
        self.facts: Mapping[str, Any] = record["facts"]
        self.provenance: Mapping[str, Any] = record["provenance"]
        self._stage = stage
        self._arrays = arrays
        self._algorithm = str(record["arrays"]["algorithm"]) if arrays else ""
        self._unverified = dict(record["arrays"]["checksums"]) if arrays else {}

    def names(self) -> list[str]:
        """Return the names of its arrays."""
        return self._arrays.names() if self._arrays else []

    @property
    def array_bytes(self) -> int:
        """Bytes of the file of its arrays."""
        return self._arrays.size if self._arrays else 0

    def array(self, name: str) -> Array:
        """Return one array, read-only: read into memory at first use or if written in batches, else mapped into memory.

        The pages of a mapped array are released with it.

        Raises:
            KeyError: there is no such array.
            DamagedArtifactError: its bytes do not match its checksum.
        """
        if name in self._unverified and self._arrays is not None and self._arrays.is_whole(name):
            return self.arrays([name])[name]
        self.verify(name)
        with self._reader(name) as reader:
            return reader.array(name)

    def arrays(self, names: Sequence[str]) -> dict[str, Array]:
        """Return arrays that were written whole, read-only, all read into memory at once.

        Raises:
            KeyError: there is no such array.
            DamagedArtifactError: the bytes of one do not match its checksum.
        """
        with self._reader(*names) as reader:
            read = reader.read(names, self._algorithm)
        for name, (_, checksum) in read.items():
            self._compare(name, checksum)
        return {name: array for name, (array, _) in read.items()}

    def rows(self, name: str) -> Array | BatchedRows:
        """Return one array as `array` does, but an array written in batches as rows that are read later.

        Raises:
            KeyError: there is no such array.
            DamagedArtifactError: its bytes do not match its checksum.
        """
        self.verify(name)
        with self._reader(name) as reader:
            return reader.rows(name)

    @contextmanager
    def _reader(self, *names: str) -> Iterator[ArrayReader]:
        if self._arrays is None:
            raise KeyError(*names)
        try:
            yield self._arrays
        except (OSError, ValueError) as error:  # gone, or cut short, since it was opened
            _raise_shortage(error, self._arrays.path)
            raise self._damaged(str(error)) from None

    def _damaged(self, why: str) -> DamagedArtifactError:
        name = self._arrays.path.name if self._arrays else "its record"
        return DamagedArtifactError(*self._stage, f"{name}: {why}")

    def verify(self, *names: str) -> None:
        """Compare arrays with their checksums, all of them if none is named.

        Raises:
            DamagedArtifactError: the bytes of an array do not match.
        """
        for name in names or list(self._unverified):
            if name not in self._unverified or self._arrays is None:
                continue
            try:
                found = self._arrays.checksum(name, self._algorithm)
            except OSError as error:  # another run may have set it aside in the meantime
                _raise_shortage(error, self._arrays.path)
                found = type(error).__name__
            except ValueError as error:
                raise self._damaged(str(error)) from None
            self._compare(name, found)

    def _compare(self, name: str, found: str) -> None:
        if found != self._unverified.get(name, found):
            raise self._damaged(f"{name} does not match its checksum")
        self._unverified.pop(name, None)


class ArtifactStore:
    """The folder `artifacts` of a results folder.

    A stage is finished when its record `<kind>/<stage_id>.json` exists. The arrays lie beside it in a file whose name
    holds the beginning of its checksum, so that two processes that finish one stage cannot mix their files.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._opened: dict[tuple[str, str], Artifact] = {}

    def record_path(self, kind: str, stage_id: str) -> Path:
        """Return the path of the record of a stage, which exists once the stage is finished."""
        return self.root / kind / f"{stage_id}.json"

    def recorded_at(self, kind: str, stage_id: str) -> float:
        """Return when the record of a stage was written, in seconds since 1970; 0 if there is none."""
        try:
            return self.record_path(kind, stage_id).lstat().st_mtime
        except OSError:
            return 0.0

    def has(self, kind: str, stage_id: str) -> bool:
        """Tell whether a stage is finished."""
        # True for a damaged record too: `read` detects it, and `set_aside` makes room for a new one.
        return os.path.lexists(self.record_path(kind, stage_id))

    def finished(self, kind: str) -> set[str]:
        """Return the identities of all finished stages of a kind, by one listing of a folder."""
        return {entry.name[:-5] for entry in visible(self.root / kind) if entry.name.endswith(".json")}

    def foreign(self, kinds: Collection[str]) -> list[str]:
        """Return the visible entries that no stage of these kinds has written, by their paths below the folder.

        Nothing reads them, and they do no harm.
        """
        folders = {*kinds, DAMAGED}
        beside = [entry.name for entry in visible(self.root) if entry.name not in folders or is_plain(entry)]
        within = [f"{kind}/{entry.name}" for kind in kinds for entry in visible(self.root / kind) if not _is_own(entry)]
        return sorted(beside + within)

    def new_arrays(self, stage: Stage, layout: Layout, batched: BatchedLayout | None = None) -> ArrayFile:
        """Create the array file of a stage; use it in a `with` block, which removes it if it is not published.

        Raises:
            StorageError: there is no space for it, or the folder cannot be written.
        """
        path = self.record_path(stage.kind, stage.stage_id).with_suffix(".safetensors")
        make_folder(path.parent)
        return ArrayFile(temporary_beside(path), layout, batched)

    def publish(
        self,
        stage: Stage,
        facts: Mapping[str, Any],
        provenance: Mapping[str, Any],
        arrays: ArrayFile | None = None,
    ) -> bool:
        """Mark a stage as finished; return False and keep the existing artifact if another process was first.

        Raises:
            StorageError: the disk is full or the folder cannot be written.
        """
        record_path = self.record_path(stage.kind, stage.stage_id)
        record: dict[str, Any] = {
            "format": FORMAT,
            "kind": stage.kind,
            "stage_id": stage.stage_id,
            "stage": stage.facts(),
            "facts": dict(facts),
            "provenance": dict(provenance),
            "arrays": None,
        }
        make_folder(record_path.parent)
        with explained(record_path):
            array_path = None
            if arrays is not None:
                checksums = arrays.finish()
                array_path = record_path.with_name(_arrays_name(stage.stage_id, checksums))
                if not arrays.path.is_file():
                    raise gone(arrays.path)
                record["arrays"] = {
                    "file": array_path.name, "bytes": arrays.path.stat().st_size, "algorithm": ALGORITHM,
                    "checksums": checksums,
                }  # fmt: skip
                if not link_new(arrays.path, array_path):
                    # Bytes left by a process that died just before its record, or by a damaged artifact.
                    if not array_path.is_file() or array_path.is_symlink():
                        move_aside(array_path, self.root / DAMAGED / stage.kind)
                    arrays.path.replace(array_path)
            won = publish_new(record_path, sealed(record))
            if not won and array_path is not None and self._record_of(record_path).get("file") != array_path.name:
                array_path.unlink(missing_ok=True)
        return won

    def _record_of(self, path: Path) -> dict[str, Any]:
        try:
            return dict(unsealed(read_plain(path))["arrays"] or {})
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def open(self, kind: str, stage_id: str) -> Artifact:
        """Return the artifact of a finished stage, kept open by this process.

        Raises:
            DamagedArtifactError: its record or its arrays are missing, another stage's, or do not match.
        """
        key = (kind, stage_id)
        if key not in self._opened:
            self._opened[key] = self.read(kind, stage_id)
        return self._opened[key]

    def read(self, kind: str, stage_id: str) -> Artifact:
        """Return the artifact of a finished stage, read from disk again.

        Raises:
            DamagedArtifactError: its record or its arrays are missing, another stage's, or do not match.
        """
        path = self.record_path(kind, stage_id)
        try:
            record = unsealed(read_plain(path))
            _refuse_another(record, kind, stage_id)
            artifact = Artifact((kind, stage_id), record, _arrays_of(record, path))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            _raise_shortage(error, path)
            raise DamagedArtifactError(kind, stage_id, f"{path.name}: {_why(error)}") from None
        artifact.verify(HEADER)
        return artifact

    def forget(self, kind: str, stage_id: str) -> None:
        """Read the artifact of a stage from disk again when it is next opened."""
        self._opened.pop((kind, stage_id), None)

    def is_intact(self, kind: str, stage_id: str) -> bool:
        """Tell whether a stage is finished and every byte of its artifact is as it was written."""
        try:
            self.read(kind, stage_id).verify()
        except DamagedArtifactError:
            return False
        return True

    def set_aside(self, kind: str, stage_id: str) -> None:
        """Mark a stage as unfinished again, and keep its files under `damaged` for inspection.

        Raises:
            StorageError: the folder cannot be written.
        """
        path = self.record_path(kind, stage_id)
        aside = self.root / DAMAGED / kind
        for file in [path, *path.parent.glob(f"{stage_id}.*.safetensors")]:
            move_aside(file, aside)
        self.forget(kind, stage_id)

    def note_damage(self, kind: str, stage_id: str) -> None:
        """Note for the next run that a command that only reads found a stage damaged.

        Raises:
            StorageError: the folder cannot be written.
        """
        note = self._note(kind, stage_id)
        make_folder(note.parent)
        with explained(note):
            note.touch()

    def noted(self) -> list[tuple[str, str]]:
        """Return kind and identity of the stages that were noted as damaged, even if they no longer are."""
        notes = [entry for kind in visible(self.root / DAMAGED) for entry in visible(Path(kind.path))]
        return sorted(
            (Path(note.path).parent.name, note.name.removesuffix(_NOTE)) for note in notes if note.name.endswith(_NOTE)
        )

    def noted_at(self, kind: str, stage_id: str) -> float:
        """Return when a stage was last noted as damaged, in seconds since 1970; 0 if there is no such note."""
        try:
            return self._note(kind, stage_id).stat().st_mtime
        except OSError:
            return 0.0

    def drop_note(self, kind: str, stage_id: str) -> None:
        """Remove the note that a stage was damaged.

        Raises:
            StorageError: the folder cannot be written.
        """
        with explained(self.root):
            self._note(kind, stage_id).unlink(missing_ok=True)

    def _note(self, kind: str, stage_id: str) -> Path:
        return self.root / DAMAGED / kind / f"{stage_id}{_NOTE}"


def _is_own(entry: os.DirEntry[str]) -> bool:
    return _OWN.fullmatch(entry.name) is not None


def _refuse_another(record: Mapping[str, Any], kind: str, stage_id: str) -> None:
    """Raise a `ValueError` if a record is of another version, or of another stage than its name says."""
    if (record["kind"], record["stage_id"]) != (kind, stage_id):
        raise ValueError(f"it is the record of {record['kind']}/{record['stage_id']}")
    if record["format"] != FORMAT:
        raise ValueError(f"it is of format {record['format']}, and this version reads {FORMAT}")


def _arrays_of(record: Mapping[str, Any], path: Path) -> ArrayReader | None:
    """Return the arrays beside the record at `path`, if it has any; raise a `ValueError` if they are not its own."""
    arrays = record["arrays"]
    if arrays is None:
        return None
    if arrays["file"] != _arrays_name(record["stage_id"], arrays["checksums"]):
        raise ValueError(f"its arrays are in {arrays['file']!r}, which is no name of theirs")
    try:
        reader = ArrayReader(path.with_name(arrays["file"]))
    except OSError as error:
        _raise_shortage(error, path)
        raise ValueError(f"its arrays, {arrays['file']}, cannot be read: {_why(error)}") from None
    if {HEADER, *reader.names()} != set(arrays["checksums"]):
        raise ValueError(f"{arrays['file']} has other arrays than its record names")
    if reader.size != arrays["bytes"]:
        raise ValueError(f"{arrays['file']} has {reader.size} bytes, not {arrays['bytes']}")
    return reader


def _arrays_name(stage_id: str, checksums: Mapping[str, str]) -> str:
    return f"{stage_id}.{identity(checksums)[:12]}.safetensors"


def _raise_shortage(error: Exception, path: Path) -> None:
    """Raise what says nothing about the file: this process lacks memory, or has too many files open."""
    if isinstance(error, OSError):
        if is_out_of_files(error):
            raise no_more_files(path) from error
        if error.errno == errno.ENOMEM:
            raise error


def _why(error: Exception) -> str:
    return f"{error.strerror}" if isinstance(error, OSError) and error.strerror else str(error)


def layout_of(arrays: Mapping[str, Array]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the layout of arrays that are in memory."""
    return {name: (name_of(np.asarray(array).dtype), np.shape(array)) for name, array in arrays.items()}
