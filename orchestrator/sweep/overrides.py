"""What was given beside the file of a spec, in a results folder and now."""

from collections.abc import Sequence


def overrides_apart(stored: Sequence[str], given: Sequence[str]) -> list[str]:
    """Return a line about the overrides of the run before and of this one; none if they are the same."""
    if sorted(stored) == sorted(given):
        return []
    before, now = (" ".join(each) or "no overrides" for each in (stored, given))
    return [f"this folder was last run with {before}; this run has {now}"]
