"""Differences between the sweep that a results folder holds and the one that is asked for now."""

import json
from collections.abc import Mapping, Sequence
from typing import Any


def differences(stored: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Return one line for each dotted name whose value differs."""
    lines = []
    for name in sorted(stored.keys() | given.keys()):
        before, now = stored.get(name), given.get(name)
        if before != now:
            if name.endswith(".content"):
                what = name.removesuffix(".content").replace("task", "data", 1)
                lines.append(f"{what}: the files have changed")
            else:
                lines.append(f"{name}: {json.dumps(before)} in the folder, {json.dumps(now)} now")
    return lines


def overrides_apart(stored: Sequence[str], given: Sequence[str]) -> list[str]:
    """Return a line about the overrides of the run before and of this one; none if they are the same."""
    if sorted(stored) == sorted(given):
        return []
    before, now = (" ".join(each) or "no overrides" for each in (stored, given))
    return [f"this folder was last run with {before}; this run has {now}"]
