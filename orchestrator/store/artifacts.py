"""Artifacts: what stages leave on disk, named by stage, written once, checksummed."""

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.errors import DamagedArtifactError
from orchestrator.identity import identity
from orchestrator.stage import Stage
from orchestrator.store.arrays import HEADER, Array, ArrayFile, ArrayReader, Layout
from orchestrator.store.files import explained, link_new, publish_new, temporary_beside
from orchestrator.store.sealed import sealed, unsealed

FORMAT = 1
"""Version of the record that stands beside the arrays of an artifact."""


class Artifact:
    """A finished stage's facts and arrays; each array is compared with its checksum when it is first asked for.

    Attributes:
        facts: what the stage found, as JSON.
        provenance: where, when and by what it was computed.
    """

    def __init__(self, stage: tuple[str, str], record: Mapping[str, Any], arrays: ArrayReader | None) -> None:
        self.facts: Mapping[str, Any] = record["facts"]
        self.provenance: Mapping[str, Any] = record["provenance"]
        self._stage = stage
        self._arrays = arrays
        self._unverified = dict(record["arrays"]["sha256"]) if arrays else {}

    def names(self) -> list[str]:
        """Return the names of its arrays."""
        return self._arrays.names() if self._arrays else []

    def array(self, name: str) -> Array:
        """Map one array into memory, read-only; its pages are released with the returned array.

        Raises:
            KeyError: there is no such array.
            DamagedArtifactError: its bytes do not match its checksum.
        """
        if self._arrays is None:
            raise KeyError(name)
        self.verify(name)
        try:
            return self._arrays.array(name)
        except (OSError, ValueError) as error:  # gone, or cut short, since it was verified
            if isinstance(error, OSError) and error.errno == errno.ENOMEM:
                raise  # it is this process that has too little memory
            raise DamagedArtifactError(*self._stage, f"{self._arrays.path.name}: {error}") from None

    def verify(self, *names: str) -> None:
        """Compare arrays with their checksums, all of them if none is named.

        Raises:
            DamagedArtifactError: the bytes of an array do not match.
        """
        for name in names or list(self._unverified):
            if name not in self._unverified or self._arrays is None:
                continue
            try:
                found = self._arrays.sha256(name)
            except OSError as error:  # another run may have set it aside in the meantime
                found = type(error).__name__
            if found != self._unverified[name]:
                raise DamagedArtifactError(*self._stage, f"{self._arrays.path.name}: {name} does not match")
            del self._unverified[name]


class ArtifactStore:
    """The folder `artifacts` of a results folder.

    A stage is finished when its record `<kind>/<stage_id>.json` exists. The arrays lie beside it in a file whose name
    holds the beginning of its checksum, so that two processes that finish one stage cannot mix their files.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._opened: dict[tuple[str, str], Artifact] = {}

    def record_path(self, kind: str, stage_id: str) -> Path:
        """Return where the record of a stage lies once it is finished."""
        return self.root / kind / f"{stage_id}.json"

    def has(self, kind: str, stage_id: str) -> bool:
        """Tell whether a stage is finished."""
        return self.record_path(kind, stage_id).exists()

    def finished(self, kind: str) -> set[str]:
        """Return the identities of all finished stages of a kind, by one listing of a folder."""
        try:
            with os.scandir(self.root / kind) as entries:
                names = [entry.name for entry in entries]
        except FileNotFoundError:
            return set()
        return {name[:-5] for name in names if name.endswith(".json") and not name.startswith(".")}

    def new_arrays(self, stage: Stage, layout: Layout) -> ArrayFile:
        """Create the array file of a stage; use it in a `with` block, which removes it if it is not published.

        Raises:
            StorageError: there is no space for it, or the folder cannot be written.
        """
        path = self.record_path(stage.kind, stage.stage_id).with_suffix(".safetensors")
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return ArrayFile(temporary_beside(path), layout)

    def publish(
        self,
        stage: Stage,
        facts: Mapping[str, Any],
        provenance: Mapping[str, Any],
        arrays: ArrayFile | None = None,
    ) -> bool:
        """Make a stage finished; return False, keeping what is there, if another process was first.

        Raises:
            StorageError: the disk is full or the folder cannot be written.
        """
        record_path = self.record_path(stage.kind, stage.stage_id)
        record: dict[str, Any] = {
            "format": FORMAT,
            "stage": stage.facts(),
            "facts": dict(facts),
            "provenance": dict(provenance),
            "arrays": None,
        }
        with explained(record_path):
            record_path.parent.mkdir(parents=True, exist_ok=True)
            array_path = None
            if arrays is not None:
                checksums = arrays.finish()
                array_path = record_path.with_name(f"{stage.stage_id}.{identity(checksums)[:12]}.safetensors")
                record["arrays"] = {
                    "file": array_path.name, "bytes": arrays.path.stat().st_size, "sha256": checksums,
                }  # fmt: skip
                if not link_new(arrays.path, array_path):
                    # Bytes left by a process that died just before its record, or by a damaged artifact.
                    arrays.path.replace(array_path)
            won = publish_new(record_path, sealed(record))
            if not won and array_path is not None and self._record_of(record_path).get("file") != array_path.name:
                array_path.unlink(missing_ok=True)
        return won

    def _record_of(self, path: Path) -> dict[str, Any]:
        try:
            return dict(unsealed(path.read_bytes())["arrays"] or {})
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def open(self, kind: str, stage_id: str) -> Artifact:
        """Return the artifact of a finished stage, kept open by this process.

        Raises:
            DamagedArtifactError: its record is missing or does not match its checksum.
        """
        key = (kind, stage_id)
        if key not in self._opened:
            self._opened[key] = self.read(kind, stage_id)
        return self._opened[key]

    def read(self, kind: str, stage_id: str) -> Artifact:
        """Return the artifact of a finished stage, read afresh.

        Raises:
            DamagedArtifactError: its record is missing or does not match its checksum.
        """
        path = self.record_path(kind, stage_id)
        try:
            record = unsealed(path.read_bytes())
            if record["arrays"] is None:
                return Artifact((kind, stage_id), record, None)
            artifact = Artifact((kind, stage_id), record, ArrayReader(path.with_name(record["arrays"]["file"])))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedArtifactError(kind, stage_id, f"{path.name}: {error}") from None
        artifact.verify(HEADER)
        return artifact

    def forget(self, kind: str, stage_id: str) -> None:
        """Read the artifact of a stage afresh when it is next opened."""
        self._opened.pop((kind, stage_id), None)

    def is_intact(self, kind: str, stage_id: str) -> bool:
        """Tell whether a stage is finished and every byte of its artifact is as it was written."""
        try:
            self.read(kind, stage_id).verify()
        except DamagedArtifactError:
            return False
        return True

    def set_aside(self, kind: str, stage_id: str) -> None:
        """Make a stage unfinished again, keeping what it left under `damaged` for whoever wants to look.

        Raises:
            StorageError: the folder cannot be written.
        """
        path = self.record_path(kind, stage_id)
        aside = self.root / "damaged" / kind
        with explained(aside):
            aside.mkdir(parents=True, exist_ok=True)
            for file in [path, *path.parent.glob(f"{stage_id}.*.safetensors")]:
                if file.exists():
                    file.replace(aside / file.name)
        self.forget(kind, stage_id)


def layout_of(arrays: Mapping[str, Array]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the layout of arrays that are in memory."""
    return {name: (np.asarray(array).dtype.name, np.asarray(array).shape) for name, array in arrays.items()}
