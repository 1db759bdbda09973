"""JSON files: one object on each line, or one list of objects."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from finetune.data.reading.table import Table, check_names
from finetune.data.reading.text_file import opened
from finetune.errors import DataLoadError
from finetune.libraries.json_faults import json_fault


def read_json_lines(path: Path, wanted: Sequence[str]) -> Table:
    """Read a file with one JSON object on each line; blank lines do not count. A key that a row lacks is None there.

    Args:
        path: the file.
        wanted: keys that are read.

    Raises:
        DataLoadError: a line is no JSON object; names it.
        MissingColumnError: no row has a wanted key.
    """
    with opened(path, newline="\n") as stream:
        rows = ((f"line {n}", _parsed_line(path, n, line)) for n, line in enumerate(stream, 1) if line.strip())
        return _table(path, rows, wanted)


def read_json(path: Path, wanted: Sequence[str]) -> Table:
    """Read a file that holds a list of JSON objects, or one object on each line.

    Raises:
        DataLoadError, MissingColumnError: as `read_json_lines`.
    """
    with opened(path, newline="\n") as stream:
        first = next((line for line in stream if line.strip()), "")
        if not first.lstrip().startswith("["):
            return read_json_lines(path, wanted)
        stream.seek(0)
        listed = _parsed(str(path), stream.read())
    return _table(path, ((f"element {number}", row) for number, row in enumerate(listed)), wanted)


def json_names(path: Path) -> list[str]:
    """Return the keys of the objects of a file, as `read_json` finds them."""
    with opened(path, newline="\n") as stream:
        first = next((line for line in stream if line.strip()), "")
        stream.seek(0)
        if first.lstrip().startswith("["):
            rows = _parsed(str(path), stream.read())
        else:
            rows = [_parsed_line(path, n, line) for n, line in enumerate(stream, 1) if line.strip()]
    return list(dict.fromkeys(key for row in rows if isinstance(row, dict) for key in row))


def _table(path: Path, rows: Iterator[tuple[str, Any]], wanted: Sequence[str]) -> Table:
    names: dict[str, None] = {}
    columns: dict[str, list[Any]] = {name: [] for name in wanted}
    places: list[str] = []
    for place, row in rows:
        if not isinstance(row, dict):
            raise DataLoadError(
                f'{path}, {place} is {_kind(row)}, not an object such as {{"{wanted[0]}": ...}}; write an object for '
                "each example, on a line of its own"
            )
        if (whole := _of_lists(row, wanted)) is not None:
            raise DataLoadError(f"{path}, {place} {whole}; write an object for each example, on a line of its own")
        names.update(dict.fromkeys(row))
        for name in wanted:
            columns[name].append(row.get(name))
        places.append(place)
    check_names(str(path), list(names), wanted)
    return Table(columns, len(places), lambda row: f"{path}, {places[row]}")


def _of_lists(row: dict[str, Any], wanted: Sequence[str]) -> str | None:
    """Say what kind of object holds all examples of a data set; None if the object is a single example."""
    inside = [key for key, value in row.items() if isinstance(value, list) and value and isinstance(value[0], dict)]
    if inside and not any(name in row and name not in inside for name in wanted):
        return f"is one object with the examples in a list under {inside[0]!r}"
    if all(isinstance(row.get(name), list) for name in wanted):
        return "is one object with a list for each column"
    return None


def _parsed_line(path: Path, number: int, line: str) -> Any:
    # Without its end, which would seem to stand in a text that is not closed.
    return _parsed(f"{path}, line {number}", line.rstrip("\r\n"))


def _parsed(where: str, text: str) -> Any:
    def checked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        row = dict(pairs)
        if len(row) < len(pairs):
            check_names(where, [name for name, _ in pairs], ())
        return row

    try:
        return json.loads(text, object_pairs_hook=checked)
    except json.JSONDecodeError as error:
        column = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise DataLoadError(f"{where} is not JSON ({column}: {json_fault(error)}); correct or remove it") from error
    except RecursionError as error:
        raise DataLoadError(f"{where}: lists or objects are nested too deeply; remove what is not needed") from error
    except ValueError as error:  # a number with thousands of digits
        if isinstance(error, DataLoadError):
            raise
        raise DataLoadError(f"{where} holds a number with thousands of digits; correct or remove it") from error


def _kind(value: Any) -> str:
    kinds = {list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return "null" if value is None else kinds.get(type(value), "no object")
