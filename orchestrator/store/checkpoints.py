"""Checkpoints of long stages, kept beside the artifacts, from which a killed worker's successor continues."""

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from orchestrator.store.checksums import DIGEST_BYTES, checksum_of
from orchestrator.store.files import make_folder, read_plain, replace

SAVED_EVERY = 30.0
"""Seconds between two checkpoints of a stage: the most work that a kill costs."""

Arrays = dict[str, NDArray[Any]]


class FileCheckpoint:
    """The checkpoint of one stage: a file that begins with the checksum of its name and content, replaced in one step.

    A checkpoint that does not match its checksum is ignored: the stage then starts from the beginning.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = time.monotonic() + SAVED_EVERY

    def load(self) -> Arrays | None:
        """Return the arrays that were saved last; None if there are none, or if they are damaged."""
        try:
            content = read_plain(self._path, largest=None)
            digest, body = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
            return dict(load(body)) if self._digest(body) == digest else None
        except (OSError, SafetensorError):
            return None

    def due(self) -> bool:
        """Tell whether it is time to save."""
        return time.monotonic() >= self._next

    def save(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Save arrays in place of the previous ones.

        Raises:
            StorageError: the disk is full or the folder cannot be written.
        """
        body = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        make_folder(self._path.parent)
        replace(self._path, self._digest(body) + body)
        self._next = time.monotonic() + SAVED_EVERY

    def _digest(self, body: bytes) -> bytes:
        # The name is included because the state of another stage would be valid as well.
        return bytes.fromhex(checksum_of([self._path.name.encode(), body]))

    def remove(self) -> None:
        """Remove the checkpoint of the finished stage, if permissions allow it."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
