"""Compares two recordings, and says file by file and line by line what differs."""

import difflib
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from tests.golden import numbers, plans
from tests.golden.renames import Renames

DIGEST_TOLERANCE = 1e-9
MOST_SHOWN = 12
"""Differences of a file that are shown; the others are counted."""

Difference = tuple[str, str, str]
"""Place, what was before, what is after."""


def compare(old: Path, new: Path, renames: Renames) -> int:
    """Print what differs between two recordings, or parts of such; return how many differences there are."""
    names = {path.relative_to(old): path for path in sorted(old.rglob("*")) if path.is_file()}
    others = {path.relative_to(new) for path in new.rglob("*") if path.is_file()}
    total = 0
    for name, path in names.items():
        after = new / _renamed(name, renames)
        found = [*_differences(path, after, renames)] if after.exists() else [("the file", "there", "(nothing)")]
        others.discard(_renamed(name, renames))
        total += len(found)
        _show(_renamed(name, renames), found)
    for name in sorted(others):
        total += 1
        _show(name, [("the file", "(nothing)", "there")])
    print(f"{total} differences in {len(names)} files" if total else f"{len(names)} files are equal")
    return total


def _renamed(name: Path, renames: Renames) -> Path:
    is_table = "tables" in name.parts or "numbers" in name.parts
    return name.with_stem(renames.tables.get(name.stem, name.stem)) if is_table else name


def _show(name: Path, found: Sequence[Difference]) -> None:
    if not found:
        return
    print(f"\n{name}")
    for place, before, after in found[:MOST_SHOWN]:
        print(f"  {place}\n    before: {before}\n    after:  {after}")
    if len(found) > MOST_SHOWN:
        print(f"  and {len(found) - MOST_SHOWN} more")


def _differences(old: Path, new: Path, renames: Renames) -> Iterator[Difference]:
    if old.suffix == ".parquet":
        yield from numbers.differences(pq.read_table(old), pq.read_table(new), dict(renames.columns))
        return
    before, after = old.read_text(), new.read_text()
    if old.name == "digest.txt":
        yield from _digest(before.splitlines(), after.splitlines(), renames)
        return
    if old.parent.name == "plans" and (renames != Renames() or before != after):
        before, after = plans.through(before, renames), plans.through(after, Renames())
    else:
        before = renames.text(before)
    yield from _lines(before.splitlines(), after.splitlines())


def _lines(before: Sequence[str], after: Sequence[str]) -> Iterator[Difference]:
    """Yield the lines that differ, each with the heading above it, which is not indented."""
    for tag, first, last, start, stop in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        for position in range(max(last - first, stop - start)):
            at, there = first + position, start + position
            is_old, is_new = at < last, there < stop
            lines, line = (after, there) if is_new else (before, at)
            yield (
                f"line {line + 1}{'' if is_new else ' of the old file'}{_heading(lines, line)}",
                before[at].strip() if is_old else "(nothing)",
                after[there].strip() if is_new else "(nothing)",
            )


def _heading(lines: Sequence[str], position: int) -> str:
    above = (line for line in lines[position::-1] if line and line[0] not in " {}[]")
    return f" ({next(above, '').partition(': exit status')[0]})".replace(" ()", "")


def _digest(before: Sequence[str], after: Sequence[str], renames: Renames) -> Iterator[Difference]:
    old, new = _numbers(before, renames), _numbers(after, Renames())
    for name in old.keys() | new.keys():
        first, second = old.get(name), new.get(name)
        if first is None or second is None:
            yield name, str(first or "(nothing)"), str(second or "(nothing)")
        elif not math.isclose(float(first), float(second), rel_tol=DIGEST_TOLERANCE):
            yield name, first, second


def _numbers(lines: Sequence[str], renames: Renames) -> dict[str, str]:
    found, heading = {}, ""
    for line in lines:
        number = re.fullmatch(r"  (\w+): (\S+)", line)
        if number is None:
            heading = line or heading
        else:
            found[f"{heading}, {renames.columns.get(number[1], number[1])}"] = number[2]
    return found
