"""Cache of facts about files for the user's later commands; it may be removed at any time.

It lies in the folder that NTKSWEEP_CACHE names, else in `ntksweep` in the user's cache folder ($XDG_CACHE_HOME, or
~/.cache). An empty NTKSWEEP_CACHE keeps nothing. Where the folder is somebody else's, or others may write to it, it is
neither read nor written; where it cannot be written, nothing is kept.
"""

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from orchestrator.errors import StorageError
from orchestrator.identity import identity
from orchestrator.store import files
from orchestrator.store.sealed import sealed, unsealed

MOST_ENTRIES = 200
"""Number of entries of a kind that are kept, the latest ones."""


def recall(kind: str, key: str) -> dict[str, Any]:
    """Return the value that `remember` stored with this kind and key.

    Raises:
        KeyError: nothing is stored there, or the value is damaged.
    """
    folder = _folder(kind)
    if folder is None:
        raise KeyError(key)
    try:
        return dict(unsealed(files.read_plain(folder / f"{key}.json"))["found"])
    except (OSError, ValueError, TypeError):
        raise KeyError(key) from None


def remember(kind: str, key: str, found: Mapping[str, Any]) -> None:
    """Store a value under a key, which must be a valid file name; do nothing if there is no usable cache."""
    folder = _folder(kind)
    if folder is None:
        return
    path = folder / f"{key}.json"
    content = sealed({"found": dict(found)})
    with suppress(OSError, StorageError):
        if os.path.lexists(path) and files.read_plain(path) == content:
            return
        files.replace(path, content)
        _drop_the_oldest(folder)


def _folder(kind: str) -> Path | None:
    """Return the folder of a kind, created if missing; None if there is no usable cache."""
    root = _root()
    if root is None:
        return None
    folder = root / kind
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = [os.lstat(each) for each in (root, folder)]
    except OSError:
        return None
    mine = all(each.st_uid == os.geteuid() and not each.st_mode & 0o022 for each in facts)
    return folder if mine else None


def _root() -> Path | None:
    named = os.environ.get("NTKSWEEP_CACHE")
    if named is not None:
        return Path(named).absolute() if named else None
    caches = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(caches) if caches.startswith("/") else Path.home() / ".cache") / "ntksweep"
    except RuntimeError:  # a user without a home folder
        return None


def _drop_the_oldest(folder: Path) -> None:
    entries = sorted(files.visible(folder), key=lambda entry: entry.stat(follow_symlinks=False).st_mtime)
    for entry in entries[:-MOST_ENTRIES]:
        os.unlink(entry.path)  # noqa: PTH108 - an entry of a listing


@cache
def code_here(*packages: str) -> str:
    """Return a key of the code that runs here, which differs for any other code.

    It has the version of Python, the installed packages, and the names, sizes and times of the files of some packages.

    Args:
        packages: those that may change without a new version.
    """
    installed: set[str] = set()
    for place in sys.path:  # the order of folders in it, and repetitions, do not matter
        if Path(place, "..", "__init__.py").exists():
            continue  # a package's copies of others, which it adds to the path when it is imported
        with suppress(OSError), os.scandir(place or ".") as entries:
            installed |= {entry.name for entry in entries if entry.name.endswith((".dist-info", ".egg-info"))}
    found = [sys.version, *sorted(installed)]
    for package in packages:
        spec = find_spec(package)
        for root in spec.submodule_search_locations or () if spec else ():
            for path in sorted(Path(root).rglob("*.py")):
                facts = path.stat()
                found.append(f"{package}/{path.relative_to(root)} {facts.st_size} {facts.st_mtime_ns}")
    return identity(found)
