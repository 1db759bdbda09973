"""CSV and TSV files, read with every field as text and with the line of every row."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from finetune.data.reading.numerals import is_numeral
from finetune.data.reading.table import Table, check_names
from finetune.data.reading.text_file import opened
from finetune.errors import DataLoadError

LONGEST_FIELD = 1 << 24
"""Most characters of a field; an unclosed quotation mark would otherwise make one field of the whole file."""

_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}
_QUOTED = re.compile(r'"[^"]*+(?:""[^"]*+)*+"')
_HINT = " (the first line of such a file names its columns)"


@dataclass(frozen=True)
class _Record:
    """A row: the number of its first line, counted from 1, its lines unchanged, and its fields."""

    line: int
    lines: Sequence[str]
    fields: Sequence[str]


class _Rows:
    """The wanted columns of a file, and the line of each row."""

    def __init__(self, path: Path, delimiter: str, names: Sequence[str], wanted: Sequence[str]) -> None:
        check_names(str(path), names, wanted, hint=_HINT)
        self._path, self._delimiter, self._width = path, delimiter, len(names)
        self._positions = {name: names.index(name) for name in wanted}
        self._columns: dict[str, list[str]] = {name: [] for name in wanted}
        self._lines: list[int] = []
        self._doubtful: list[_Record] = []

    def add(self, record: _Record) -> None:
        """Keep a row.

        Raises:
            DataLoadError: it has more fields than there are columns, or fewer.
        """
        if not self.fits(record.fields):
            count, separator = len(record.fields), _DELIMITERS[self._delimiter]
            raise DataLoadError(
                f"{self._path}, line {record.line} has {count} field{'s' * (count != 1)}, but the first line names "
                f"{self._width} columns; put a text with a {separator} in it in quotation marks"
            )
        if len(record.lines) > 1 and all(self.fits(fields) for fields in self._split(record)):
            self._doubtful.append(record)
        for name, position in self._positions.items():
            self._columns[name].append(record.fields[position])
        self._lines.append(record.line)

    def fits(self, fields: Sequence[str]) -> bool:
        """Tell whether there is one field for each column; empty ones beyond, as after a last comma, do not count."""
        return len(fields) == self._width or (len(fields) > self._width and not any(fields[self._width :]))

    def table(self) -> Table:
        """Return the rows.

        Raises:
            DataLoadError: a quoted field holds what could be rows, numbers where all other rows have numbers.
        """
        doubtful = {record.line for record in self._doubtful}
        others = [row for row, line in enumerate(self._lines) if line not in doubtful]
        numbers = [
            self._positions[name]
            for name, values in self._columns.items()
            if doubtful and others and all(is_numeral(values[row]) for row in others)
        ]
        for record in self._doubtful if numbers else ():
            split = self._split(record)
            if all(is_numeral(fields[position]) for fields in split for position in numbers):
                raise DataLoadError(
                    f"{self._path}, line {record.line}: a quotation mark opens a field that ends on line "
                    f"{record.line + len(record.lines) - 1}, and each of the {len(split)} lines could be a row of its "
                    'own; if the mark belongs to the text, write the field as "...", with the marks inside doubled, or '
                    "give the data as Parquet or JSONL"
                )
        path, lines = self._path, self._lines
        return Table(dict(self._columns), len(lines), lambda row: f"{path}, line {lines[row]}")

    def _split(self, record: _Record) -> list[list[str]]:
        bare = (line.rstrip("\r\n") for line in record.lines)
        return [line.split(self._delimiter) for line in bare if line]


def read_csv(path: Path, wanted: Sequence[str]) -> Table:
    """Read a CSV file: texts with a comma, a line break or a mark at their beginning stand in quotation marks.

    Semicolons or tabs separate the fields where the first line names the wanted columns so, and not with commas.

    Args:
        path: the file.
        wanted: columns that are read.

    Raises:
        DataLoadError: a row has too many or too few fields, or a quotation mark is not closed; names the line.
        MissingColumnError: a wanted column does not exist.
    """
    with opened(path, newline="") as stream:
        first = next((line for line in stream if line.strip()), "")
        stream.seek(0)
        return _read_quoted(path, stream, wanted, _delimiter(first, wanted))


def read_tsv(path: Path, wanted: Sequence[str]) -> Table:
    r"""Read a TSV file: a row is a line, and quotation marks belong to the text.

    They are taken as quoting in two cases: where every mark of the file is part of a field that is quoted as in CSV,
    and where lines alone do not make rows and CSV's quoting does.

    Raises:
        DataLoadError: a row has too many or too few fields; names the line.
        MissingColumnError: a wanted column does not exist.
    """
    with opened(path, newline="\n") as stream:
        bare = ((number, line.rstrip("\r\n")) for number, line in enumerate(stream, start=1))
        records = [_Record(number, (line,), line.split("\t")) for number, line in bare if line]
    if _all_quoted(records):
        records = [_Record(each.line, each.lines, [_unquoted(text) for text in each.fields]) for each in records]
    rows = _Rows(path, "\t", records[0].fields if records else (), wanted)
    try:
        for record in records[1:]:
            rows.add(record)
    except DataLoadError as error:
        try:
            with opened(path, newline="") as stream:
                return _read_quoted(path, stream, wanted, "\t")
        except DataLoadError:
            raise error from None
    return rows.table()


def delimited_names(path: Path) -> list[str]:
    """Return the names of the columns of a CSV or TSV file, whose delimiter is what gives the most of them."""
    with opened(path, newline="") as stream:
        first = next((line for line in stream if line.strip()), "")
    if path.suffix.lower() == ".tsv":
        return first.rstrip("\r\n").split("\t")
    found = [next(csv.reader([first], delimiter=delimiter), []) for delimiter in _DELIMITERS]
    return max(found, key=len)


def _delimiter(first: str, wanted: Sequence[str]) -> str:
    for delimiter in _DELIMITERS:
        try:
            names = next(csv.reader([first], delimiter=delimiter), [])
        except csv.Error:
            continue
        if set(wanted) <= set(names):
            return delimiter
    return ","


def _read_quoted(path: Path, lines: Iterable[str], wanted: Sequence[str], delimiter: str) -> Table:
    with _long_fields():
        records = _records(path, lines, delimiter)
        header = next(records, None)
        rows = _Rows(path, delimiter, header.fields if header else (), wanted)
        for record in records:
            rows.add(record)
    return rows.table()


def _records(path: Path, lines: Iterable[str], delimiter: str) -> Iterator[_Record]:
    held: list[str] = []

    def kept() -> Iterator[str]:
        for line in lines:
            held.append(line)
            yield line

    reader = csv.reader(kept(), delimiter=delimiter, strict=True)
    while True:
        start = reader.line_num + 1
        held.clear()
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise DataLoadError(
                f"{path}, line {start}: a field that begins with a quotation mark is not closed as CSV has it (line "
                f'{reader.line_num}: {error}); a field whose text has marks is written "...", with those inside doubled'
            ) from error
        if fields is None:
            return
        if fields:
            yield _Record(start, tuple(held), fields)


def _all_quoted(records: Sequence[_Record]) -> bool:
    marked = (text for record in records if '"' in record.lines[0] for text in record.fields if '"' in text)
    return all(_QUOTED.fullmatch(text) for text in marked)


def _unquoted(text: str) -> str:
    return text[1:-1].replace('""', '"') if '"' in text else text


@contextmanager
def _long_fields() -> Iterator[None]:
    before = csv.field_size_limit(LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)
