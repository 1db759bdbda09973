"""The manifest of the tables: their plan, number of rows and checksums."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import ResultsError
from orchestrator.store.checksums import ALGORITHM, checksum_of
from orchestrator.store.files import is_plain, open_plain, read_plain, replace, visible
from orchestrator.store.sealed import sealed, unsealed
from orchestrator.sweep.folder import ResultsFolder
from orchestrator.sweep.missing_places import run_again

if TYPE_CHECKING:
    from orchestrator.plan.plan import Plan

PART = "part-0.parquet"
MANIFEST = "manifest.json"
CLAIM = "tables"
"""Name of the claim that a process holds while it writes the tables."""

TABLES_NOTED = "tables"
"""The kind under which the store of artifacts notes damaged tables."""

WRITTEN_WITHIN = 30.0
"""Seconds for which a reader waits for a run that is replacing the tables, which takes a moment."""

_PIECE = 1 << 20


def write_manifest(folder: ResultsFolder, manifest: dict[str, Any]) -> None:
    """Write the manifest of the tables.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    replace(folder.tables / MANIFEST, sealed(manifest))


def facts_of(path: Path, n_rows: int) -> dict[str, Any]:
    """Return the entry of a manifest for the file of a table."""
    size = path.stat().st_size
    return {"rows": n_rows, "bytes": size, "algorithm": ALGORITHM, "checksum": _checksum(path, ALGORITHM)}


def read_manifest(folder: ResultsFolder) -> dict[str, Any] | None:
    """Return the manifest; None if there are no tables, or if a file is not the one that was written."""
    manifest = _manifest(folder)
    if manifest is None:
        return None
    for name, facts in manifest["tables"].items():
        parts = {entry.name: entry for entry in visible(folder.tables / name)}
        if PART not in parts or not is_plain(parts[PART]) or parts[PART].stat().st_size != facts["bytes"]:
            return None
    return manifest


def written_at(folder: ResultsFolder) -> float:
    """Return when the tables were last written, in seconds since 1970; 0 if there are none."""
    try:
        return (folder.tables / MANIFEST).stat().st_mtime
    except OSError:
        return 0.0


def _manifest(folder: ResultsFolder) -> dict[str, Any] | None:
    try:
        manifest = unsealed(read_plain(folder.tables / MANIFEST))
    except (OSError, ValueError):
        return None
    return manifest if _is_manifest(manifest) else None


def _is_manifest(found: dict[str, Any]) -> bool:
    """Tell whether a record has all that a manifest has; files are looked up by the names of its tables."""
    tables = found.get("tables")
    return (
        isinstance(found.get("plan"), str)
        and isinstance(found.get("complete"), bool)
        and isinstance(found.get("cells", 0), int)
        and isinstance(tables, dict)
        and ("cells" in found or "cells" in tables)
        and all(name.isidentifier() and _is_entry(entry) for name, entry in tables.items())
    )


_ENTRY = {"rows": int, "bytes": int, "algorithm": str, "checksum": str}


def _is_entry(found: Any) -> bool:
    return isinstance(found, dict) and all(isinstance(found.get(name), of) for name, of in _ENTRY.items())


def cells_in_complete_tables(plan: "Plan", folder: ResultsFolder) -> int | None:
    """Return the number of cells if intact tables hold every cell of a plan, else None."""
    manifest = read_manifest(folder)
    if manifest is None or not manifest["complete"] or manifest["plan"] != plan.plan_id or damaged_tables(folder):
        return None
    return cells_in(manifest)


def tables_are_complete(folder: ResultsFolder) -> bool:
    """Tell whether the tables have every row of the plan that they were written for."""
    manifest = _manifest(folder)
    return manifest is not None and bool(manifest["complete"])


def cells_in(manifest: dict[str, Any]) -> int:
    """Return how many cells have all their numbers in the tables of a manifest."""
    # Before there was training, every row was such a cell.
    return int(manifest.get("cells", manifest["tables"]["cells"]["rows"]))


def damaged_tables(folder: ResultsFolder) -> list[str]:
    """Return the files of the tables that do not match their checksum, byte for byte."""
    manifest = _manifest(folder)
    if manifest is None:
        return [MANIFEST] if os.path.lexists(folder.tables / MANIFEST) else []  # nothing was collected yet
    return [f"{name}/{PART}" for name, facts in manifest["tables"].items() if not _matches(folder, name, facts)]


def foreign_in_tables(folder: ResultsFolder) -> list[str]:
    """Return the visible entries of the folder of tables that ntksweep did not write, by their paths below it.

    Nothing reads them here, but readers of Parquet that are given a table's folder may.
    """
    entries = [entry for entry in visible(folder.tables) if entry.name != MANIFEST]
    folders = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    beside = [entry.name for entry in entries if entry not in folders]
    within = [
        f"{entry.name}/{part.name}" for entry in folders for part in visible(Path(entry.path)) if part.name != PART
    ]
    return sorted(beside + within)


def table_names(folder: ResultsFolder) -> list[str]:
    """Return the names of the existing tables."""
    from orchestrator.results.tables.schema import TABLES  # loads pyarrow, which a look at a sweep does without

    there = names_in_manifest(folder)
    return [name for name in TABLES if name in there]


def names_in_manifest(folder: ResultsFolder) -> list[str]:
    """Return the names of the tables that the manifest has, in its order."""
    manifest = _manifest(folder)
    return list(manifest["tables"]) if manifest else []


def verified_part(folder: ResultsFolder, table: str) -> Path | None:
    """Return the file of a table, every byte of it as it was written; None if there is no such table.

    Raises:
        ResultsError: the file or the manifest is damaged or gone.
    """
    give_up = time.monotonic() + WRITTEN_WITHIN
    tries = 0
    while True:
        tries += 1
        manifest = _manifest(folder)
        if manifest is not None:
            facts = manifest["tables"].get(table)
            if facts is None:
                return None
            if _matches(folder, table, facts):
                return folder.tables / table / PART
        being_written = CLAIM in folder.claims().held()
        if tries > 1 and (not being_written or time.monotonic() > give_up):  # it may have ended in between
            damaged = folder.tables / (MANIFEST if manifest is None else f"{table}/{PART}")
            there = os.path.lexists(damaged)
            how = "is damaged: it is not, byte for byte, what was written" if there else "is gone"
            raise ResultsError(f"{damaged} {how}; `{run_again(folder.root)}` writes the tables again")
        if being_written:
            time.sleep(0.05)


def _matches(folder: ResultsFolder, table: str, facts: dict[str, Any]) -> bool:
    found = _checksum(folder.tables / table / PART, str(facts["algorithm"]))
    return found is not None and found == facts["checksum"]


def _checksum(path: Path, algorithm: str) -> str | None:
    """Return the checksum of a file; None if it is not a regular file, or cannot be read."""
    try:
        with open_plain(path) as stream:
            return checksum_of(iter(lambda: stream.read(_PIECE), b""), algorithm)
    except (OSError, ValueError):
        return None
