"""Advice for a folder that is named in the place of a results folder."""

from pathlib import Path

_MOST_NAMED = 5
"""Results folders that a message names."""


def sweeps_below(folder: Path) -> str:
    """Return advice to name one of the results folders that lie in a folder, or another one where there are none."""
    below = sorted(path.parent for path in folder.glob("*/spec.yaml"))[:_MOST_NAMED]
    return f"name one of those in it: {', '.join(map(str, below))}" if below else "name the results folder of a sweep"
