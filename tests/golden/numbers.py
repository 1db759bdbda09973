"""Tables of recorded sweeps: their numbers bit for bit, their schemas, and some numbers for the digest."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.golden.plans import HASH

KEYS = ("task", "adapter_rank", "learning_rate", "seed", "n_train", "layer_set", "lambda_given", "step", "example")
"""Columns by which a row is named to people."""


def tables(results: Path) -> dict[str, pa.Table]:
    """Return the tables of a results folder, by name."""
    parts = sorted((results / "tables").glob("*/*.parquet"))
    return {part.parent.name: pq.read_table(part) for part in parts}


def keep(table: pa.Table, path: Path) -> None:
    """Write the columns of a table that say the same in every run, identities as the number of their first row."""
    kept = [field.name for field in table.schema if (field.metadata or {}).get(b"provenance") != b"yes"]
    found = {name: table[name] for name in kept}
    for name, column in found.items():
        if pa.types.is_string(column.type) and any(value and HASH.fullmatch(value) for value in column.to_pylist()):
            numbers: dict[str, int] = {}
            found[name] = pa.array([f"id {numbers.setdefault(each, len(numbers))}" for each in column.to_pylist()])
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(found), path)


def schema_text(name: str, schema: pa.Schema) -> str:
    """Return a table's columns with types, units and meanings, a line each."""
    lines = [f"{name} ({len(schema)} columns)"]
    for field in schema:
        facts = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
        unit = f" [{facts['unit']}]" if facts.get("unit") else ""
        provenance = " (provenance)" if facts.get("provenance") == "yes" else ""
        lines.append(f"  {field.name}: {field.type}{unit}{provenance}: {facts.get('meaning', '')}")
    return "\n".join(lines) + "\n"


def digest_text(sweep: str, cells: pa.Table, columns: Sequence[str]) -> str:
    """Return some numbers of the first and the last cell of a sweep."""
    lines = []
    for row in dict.fromkeys((0, len(cells) - 1)):
        lines.append(f"{sweep}, row {row}")
        for name in columns:
            value = cells[name][row].as_py() if name in cells.column_names else None
            if value is not None and math.isfinite(value):
                lines.append(f"  {name}: {value:.13g}")
    return "\n".join(lines) + "\n"


def bits(value: Any) -> Any:
    """Return a value such that equal bits are equal, and others are not."""
    if isinstance(value, float):
        return value.hex() + (" -" if value == 0 and math.copysign(1, value) < 0 else "")
    return [bits(each) for each in value] if isinstance(value, list) else value


def differences(old: pa.Table, new: pa.Table, renamed: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yield where two tables differ: place, what was before and what is after, one entry a column.

    Args:
        old: the golden table.
        new: the other one.
        renamed: names of columns in `new` by those in `old`, where they differ.
    """
    if len(old) != len(new):
        yield "rows", str(len(old)), str(len(new))
        return
    names = {name: renamed.get(name, name) for name in old.column_names}
    for name in names.values():
        if name not in new.column_names:
            yield f"column {name}", "there", "(nothing)"
    for name in new.column_names:
        if name not in names.values():
            yield f"column {name}", "(nothing)", "there"
    for before, after in names.items():
        if after not in new.column_names:
            continue
        first, second = old[before].to_pylist(), new[after].to_pylist()
        wrong = [row for row, pair in enumerate(zip(first, second, strict=True)) if bits(pair[0]) != bits(pair[1])]
        if wrong:
            row = wrong[0]
            which = ", ".join(f"{key} {old[key][row].as_py()}" for key in KEYS if key in old.column_names)
            size = max(_relative(first[row], second[row]) for row in wrong)
            place = (
                f"column {after}, row {row} ({which}); {len(wrong)} of {len(first)} rows differ, by {size:.1e} at most"
            )
            yield place, *_shown(first[row], second[row])


def _relative(first: Any, second: Any) -> float:
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        return max((_relative(*pair) for pair in zip(first, second, strict=True)), default=0.0)
    if not isinstance(first, float) or not isinstance(second, float):
        return 0.0 if first == second else math.inf
    return abs(first - second) / max(abs(first), abs(second), 5e-324)


def _shown(first: Any, second: Any) -> tuple[str, str]:
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        at = next(i for i, pair in enumerate(zip(first, second, strict=True)) if bits(pair[0]) != bits(pair[1]))
        return _one(first[at], f"[{at}] "), _one(second[at], f"[{at}] ")
    return _one(first), _one(second)


def _one(value: Any, where: str = "") -> str:
    return where + (f"{value!r} = {value.hex()}" if isinstance(value, float) else str(value))
