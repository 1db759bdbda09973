"""How far a long stage is, kept beside the artifacts so that a killed worker's successor goes on from there."""

import hashlib
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from orchestrator.store.files import explained, replace

SAVED_EVERY = 30.0
"""Seconds between two checkpoints of a stage: the most work that a kill costs."""

_DIGEST_BYTES = hashlib.sha256().digest_size

Arrays = dict[str, NDArray[Any]]


class FileCheckpoint:
    """The checkpoint of one stage: a file with the checksum of what follows it, replaced in one step.

    One that does not match its checksum counts as none: the stage then begins anew.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = time.monotonic() + SAVED_EVERY

    def load(self) -> Arrays | None:
        """Return what was saved last; None if nothing was, or if it is damaged."""
        try:
            content = self._path.read_bytes()
            digest, body = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
            return dict(load(body)) if hashlib.sha256(body).digest() == digest else None
        except (OSError, SafetensorError):
            return None

    def due(self) -> bool:
        """Tell whether it is time to save."""
        return time.monotonic() >= self._next

    def save(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep arrays in the place of those before.

        Raises:
            StorageError: the disk is full or the folder cannot be written.
        """
        body = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        with explained(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
        replace(self._path, hashlib.sha256(body).digest() + body)
        self._next = time.monotonic() + SAVED_EVERY

    def remove(self) -> None:
        """Remove it, if it may: the stage is finished."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
