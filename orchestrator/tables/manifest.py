"""The manifest of the tables: which plan they hold, how many rows, their checksums."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.folder import ResultsFolder
from orchestrator.store.files import replace
from orchestrator.store.sealed import sealed, unsealed

if TYPE_CHECKING:
    from orchestrator.plan import Plan

PART = "part-0.parquet"
MANIFEST = "manifest.json"


def write_manifest(folder: ResultsFolder, manifest: dict[str, Any]) -> None:
    """Say what the tables hold from now on.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    replace(folder.tables / MANIFEST, sealed(manifest))


def read_manifest(folder: ResultsFolder) -> dict[str, Any] | None:
    """Return what the tables hold; None where there are none, or where a file is not the one that was written."""
    try:
        manifest = unsealed((folder.tables / MANIFEST).read_bytes())
        for name, facts in manifest["tables"].items():
            if (folder.tables / name / PART).stat().st_size != facts["bytes"]:
                return None
    except (OSError, ValueError):
        return None
    return manifest


def cells_in_complete_tables(plan: "Plan", folder: ResultsFolder) -> int | None:
    """Return the number of cells if intact tables hold every cell of a plan, else None."""
    manifest = read_manifest(folder)
    if manifest is None or not manifest["complete"] or manifest["plan"] != plan.plan_id or damaged_tables(folder):
        return None
    return cells_in(manifest)


def cells_in(manifest: dict[str, Any]) -> int:
    """Return how many cells have all their numbers in the tables of a manifest."""
    # Before there was training, every row was such a cell.
    return int(manifest.get("cells", manifest["tables"]["cells"]["rows"]))


def damaged_tables(folder: ResultsFolder) -> list[str]:
    """Return the files of the tables that do not match their checksum."""
    try:
        manifest = unsealed((folder.tables / MANIFEST).read_bytes())
    except FileNotFoundError:
        return []  # nothing was collected yet
    except (OSError, ValueError):
        return [MANIFEST]
    parts = {f"{name}/{PART}": facts["sha256"] for name, facts in manifest["tables"].items()}
    return [part for part, sha256 in parts.items() if sha256_of(folder.tables / part) != sha256]


def sha256_of(path: Path) -> str | None:
    """Return the checksum of a file; None if it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None
