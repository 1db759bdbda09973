"""Refusals: stages that failed because of wrong input or code, and would fail in the same way everywhere.

Runs that share a sweep share them, so that one error costs one attempt and not one for every allocation. They hold
until the user starts the sweep again, because the fault may have been corrected by then.
"""

from pathlib import Path

from orchestrator.store.files import explained, is_plain, make_folder, publish_new, read_plain, visible
from orchestrator.store.sealed import sealed, unsealed


class Refusals:
    """The folder of refusals: one small file `<stage_id>.json` a stage."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(self, stage_id: str, failure: str, message: str) -> None:
        """Refuse a stage to all runs, with the class of its failure and the message for the user.

        Raises:
            StorageError: the folder cannot be written.
        """
        path = self._path(stage_id)
        make_folder(path.parent)
        publish_new(path, sealed({"stage_id": stage_id, "failure": failure, "message": message}))

    def of(self, stage_id: str) -> tuple[str, str] | None:
        """Return class and message of the failure for which a stage is refused; None if it may be tried."""
        try:
            record = unsealed(read_plain(self._path(stage_id)))
        except (OSError, ValueError):
            return None
        if record["stage_id"] != stage_id:
            return None  # a copy of another stage's refusal
        return str(record["failure"]), str(record["message"])

    def clear(self) -> None:
        """Allow every stage to be tried again; called when the user starts the sweep, never when an allocation joins.

        Raises:
            StorageError: the folder cannot be written.
        """
        with explained(self.root):
            for entry in visible(self.root):
                if entry.name.endswith(".json") and is_plain(entry):
                    Path(entry.path).unlink(missing_ok=True)

    def _path(self, stage_id: str) -> Path:
        return self.root / f"{stage_id}.json"
