"""Hints for users who name a file that is not there, or a folder that holds no sweep."""

import difflib
import os
import shlex
import unicodedata
from collections.abc import Callable
from pathlib import Path

_MOST_NAMED = 5
"""Results folders that a message names."""


def hint_at_alike(path: Path) -> str:
    """Return a hint at a file beside a missing one whose name looks the same; empty where there is none."""
    try:
        others = sorted(each.name for each in path.parent.iterdir())
    except OSError:
        return ""
    seen = unicodedata.normalize("NFC", path.name).casefold()
    near = next((each for each in others if unicodedata.normalize("NFC", each).casefold() == seen), None)
    if near is None:
        return ""
    if near.casefold() == path.name.casefold():
        return f"; {near!r} is there, which differs in capital letters"
    return f"; {near!a} is there, which has its accents written in another way: copy the name from there"


def named_alike(path: Path, fits: Callable[[Path], bool]) -> Path | None:
    """Return what fits beside a missing path and has the nearest name; None if none is near."""
    try:
        names = os.listdir(path.parent)  # noqa: PTH208 - entries may be as many as there are files
    except OSError:
        return None
    near = map(path.with_name, difflib.get_close_matches(path.name, names, n=3, cutoff=0.8))
    return next((each for each in near if fits(each)), None)


def holds_spec(folder: Path) -> bool:
    """Tell whether a folder has a file where the spec of results stands."""
    return os.path.isfile(folder / "spec.yaml")  # noqa: PTH113 - a folder of others may not be entered


def sweeps_below(folder: Path) -> str:
    """Return advice to name one of the results folders in a folder; where there is none, to name another folder."""
    below = sorted(path.parent for path in folder.glob("*/spec.yaml"))[:_MOST_NAMED]
    return f"name one of those in it: {', '.join(map(str, below))}" if below else "name the results folder of a sweep"


def run_again(root: Path) -> str:
    """Return what to type to go on with a sweep: its results folder, or a spec where the folder has lost its own."""
    return f"ntksweep run {shlex.quote(str(root)) if os.path.lexists(root / 'spec.yaml') else 'SPEC'}"
