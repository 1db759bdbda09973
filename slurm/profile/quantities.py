"""Durations, sizes and folders as people who know Slurm write them."""

import math
import os
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

_UNITS = re.compile(r"(?:(?P<d>\d+)d)?\s*(?:(?P<h>\d+)h)?\s*(?:(?P<m>\d+)m(?:in)?)?\s*(?:(?P<s>\d+)s)?", re.ASCII)
_CLOCK = re.compile(r"(?:(?P<d>\d+)-(?=\d))?(?P<h>\d+):(?P<m>\d+):(?P<s>\d+)", re.ASCII)
_DAYS = re.compile(r"(?P<d>\d+)-(?P<h>\d+)(?::(?P<m>\d+))?", re.ASCII)
_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}

_SIZE = re.compile(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([KMGTP]?)(i?B|)\s*", re.IGNORECASE | re.ASCII)
_POWER = {unit: power for power, unit in enumerate("KMGTP", start=1)}

LONGEST_NAME, LONGEST_PATH = 255, 4000
"""Most bytes of a file's name and of a whole path; the latter leaves room for paths below it."""

MOST_DIGITS = 9
"""Most digits of a number in a duration; 10^9 seconds are thirty years."""


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
        raise ValueError(f"`{text[:60]}` is no duration with a unit: write 4h, 90m, 1d12h, 12:30:00 or 1-12:00:00")
    parts = {unit: number for unit, number in found.groupdict().items() if number}
    if any(len(number) > MOST_DIGITS for number in parts.values()):
        raise ValueError(f"`{text[:60]}` is longer than any job may run")
    seconds = sum(int(number) * _SECONDS[unit] for unit, number in parts.items())
    if seconds == 0:
        raise ValueError("a time limit of 0 would end the allocation before it begins")
    return -(-seconds // 60)


def duration(minutes: float) -> str:
    """Return minutes as people write them: 90 → 1h30m, 2160 → 1d12h."""
    whole = round(minutes)
    days, hours, rest = whole // 1440, whole // 60 % 24, whole % 60
    parts = [f"{number}{unit}" for number, unit in ((days, "d"), (hours, "h"), (rest, "m")) if number]
    return "".join(parts) or "0m"


def bytes_of(value: Any) -> int:
    """Return a size in bytes: 64GB is 64 times 10^9, 64GiB and 64G, as Slurm writes it, 64 times 2^30.

    Raises:
        ValueError: it is neither a whole number nor a number with a unit.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        what = f"`{str(value)[:60]}`" if isinstance(value, str | float) else "this"
        raise ValueError(f"{what} is not a size; write the number and the unit, as in 64GB")
    number, unit, suffix = found[1], found[2].upper(), found[3].lower()
    base = 1000 if suffix == "b" else 1024
    return int(Decimal(number) * base ** _POWER.get(unit, 0))


def not_logical(value: Any) -> Any:
    """Return a value that should be a number; refuse true and false, which Python takes for 1 and 0.

    Raises:
        ValueError: it is true or false.
    """
    if isinstance(value, bool):
        raise ValueError(f"`{str(value).lower()}` is a logical value to YAML; give a number")
    return value


def expanded_folder(folder: Path) -> Path:
    """Return a folder with ~ and variables filled in.

    Raises:
        ValueError: a variable is not set here, there is no such user, the path is relative, or no script could hold it.
    """
    if not str(folder).isprintable():
        raise ValueError("the path holds a character that cannot be seen, which scripts of jobs could not hold")
    if len(os.fsencode(folder)) > LONGEST_PATH or any(len(os.fsencode(name)) > LONGEST_NAME for name in folder.parts):
        raise ValueError(
            f"the path, or a name in it, is longer than a file system takes: {LONGEST_NAME} bytes a name, "
            f"{LONGEST_PATH} in all"
        )
    try:
        expanded = Path(os.path.expandvars(folder)).expanduser()
    except RuntimeError:
        raise ValueError(f"`{folder.parts[0]}` is the home of a user that this machine does not know; write the path "
                         "out") from None  # fmt: skip
    if unset := re.search(r"\$\{?(\w+)", str(expanded)):
        raise ValueError(f"the variable ${unset[1]} in `{folder}` is not set here; write the path out")
    if not expanded.is_absolute():
        raise ValueError(f"`{str(folder)[:60]}` must begin with /: a relative folder is another one on every node")
    return expanded


def counted(count: int, noun: str) -> str:
    """Write a number of things: `1 node`, `2 nodes`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def gpu_part(value: Any) -> Any:
    """Return how many GPUs a worker has, if that is a whole number or the part of one that several workers share.

    Raises:
        ValueError: workers with such a part would leave some of a GPU unused.
    """
    not_logical(value)
    try:
        part = float(value)
    except (TypeError, ValueError):
        return value  # pydantic reports values of other types
    shared = 0.001 <= part < 1 and abs(part * round(1 / part) - 1) <= 0.02
    if part > 0 and math.isfinite(part) and not shared and not part.is_integer():
        raise ValueError(
            f"{part:g} GPUs are neither whole ones nor a part that as many workers fill: write 1, 2, ..., or 0.5, "
            "0.33, 0.25, ... for two, three, four workers on a GPU"
        )
    return value
