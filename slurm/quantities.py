"""Durations, sizes and folders as people who know Slurm write them."""

import os
import re
from pathlib import Path
from typing import Any

_UNITS = re.compile(r"(?:(?P<d>\d+)d)?\s*(?:(?P<h>\d+)h)?\s*(?:(?P<m>\d+)m(?:in)?)?\s*(?:(?P<s>\d+)s)?", re.ASCII)
_CLOCK = re.compile(r"(?:(?P<d>\d+)-(?=\d))?(?P<h>\d+):(?P<m>\d+):(?P<s>\d+)", re.ASCII)
_DAYS = re.compile(r"(?P<d>\d+)-(?P<h>\d+)(?::(?P<m>\d+))?", re.ASCII)
_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}

_SLURM_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT])\s*", re.IGNORECASE)


def minutes_of(text: str) -> int:
    """Return a duration in minutes, rounded up as Slurm does.

    Accepts 4h, 90m, 1d12h, 1h30m and Slurm's hours:minutes:seconds, days-hours, days-hours:minutes and
    days-hours:minutes:seconds. Refuses numbers without a unit and `12:30`, which Slurm takes for minutes and seconds
    and most people do not.

    Raises:
        ValueError: the text is no duration, or shorter than a second.
    """
    for form in (_UNITS, _CLOCK, _DAYS):
        if found := form.fullmatch(text.strip()):
            break
    if not text.strip() or found is None:
        raise ValueError(f"`{text}` is no duration with a unit: write 4h, 90m, 1d12h, 12:30:00 or 1-12:00:00")
    seconds = sum(int(number) * _SECONDS[unit] for unit, number in found.groupdict().items() if number)
    if seconds == 0:
        raise ValueError("a time limit of 0 would end the allocation before it begins")
    return -(-seconds // 60)


def duration(minutes: float) -> str:
    """Return minutes as people write them: 90 → 1h30m, 2160 → 1d12h."""
    whole = round(minutes)
    days, hours, rest = whole // 1440, whole // 60 % 24, whole % 60
    parts = [f"{number}{unit}" for number, unit in ((days, "d"), (hours, "h"), (rest, "m")) if number]
    return "".join(parts) or "0m"


def slurm_bytes(value: Any) -> Any:
    """Return `64G`, as Slurm writes 64 GiB, with the unit that pydantic reads; anything else unchanged."""
    if isinstance(value, str) and (found := _SLURM_SIZE.fullmatch(value)):
        return f"{found[1]}{found[2].upper()}iB"
    return value


def expanded_folder(folder: Path) -> Path:
    """Return a folder with ~ and variables filled in.

    Raises:
        ValueError: a variable is not set here, or the path is relative.
    """
    expanded = Path(os.path.expandvars(folder)).expanduser()
    if unset := re.search(r"\$\{?(\w+)", str(expanded)):
        raise ValueError(f"the variable ${unset[1]} in `{folder}` is not set here; write the path out")
    if not expanded.is_absolute():
        raise ValueError(f"`{folder}` must begin with /: a relative folder is another one on every node")
    return expanded


def counted(count: int, noun: str) -> str:
    """Write a number of things: `1 node`, `2 nodes`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
