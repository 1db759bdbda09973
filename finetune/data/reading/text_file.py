"""Opening files of text in UTF-8, and saying where one is in another encoding."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from finetune.errors import DataLoadError

_MARKS = {b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
"""Byte order marks; the longer ones come first, because one begins with a shorter one."""

_OTHER_FILES = {
    b"PK\x03\x04": "a ZIP archive or a spreadsheet",
    b"\xd0\xcf\x11\xe0": "a spreadsheet",
    b"\x1f\x8b": "a gzip archive",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zX": "an xz archive",
    b"PAR1": "Parquet",
}
_STAND_INS = {
    b"version https://git-lfs": "is a pointer of Git LFS and not the data; run `git lfs pull` where it was cloned",
    b"<!doctype html": "is a web page and not data, as a download that failed leaves",
    b"<html": "is a web page and not data, as a download that failed leaves",
}
"""Beginnings, in small letters, of files that stand where data should be."""

_EXCERPT = 20


@contextmanager
def opened(path: Path, *, newline: str) -> Iterator[TextIO]:
    r"""Open a file of text in UTF-8, or in what its byte order mark says.

    Args:
        path: the file.
        newline: as of `open`: "" ends lines at \n, \r\n and \r, and "\n" at \n alone.

    Raises:
        DataLoadError: the file cannot be opened, or, where the lines are read, is in another encoding; names the line
            and the byte.
    """
    encoding = "utf-8-sig"
    check_is_data(path)
    try:
        with path.open("rb") as stream:
            start = stream.read(4)
        for mark, of_mark in _MARKS.items():
            if start.startswith(mark):
                encoding = of_mark
                break
        else:
            _check_has_mark(path, start)
        with path.open(encoding=encoding, newline=newline) as text:
            yield text
    except UnicodeDecodeError as error:
        raise _not_decoded(path, encoding, error) from error
    except OSError as error:
        raise DataLoadError(f"{path} cannot be read: {error.strerror or error}") from error


def check_is_data(path: Path) -> None:
    """Check that a file is no pointer of Git LFS and no web page, whatever its name says.

    Raises:
        DataLoadError: it is one; says what to do.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    except OSError:
        return  # the reader says why
    for beginning, said in _STAND_INS.items():
        if start.startswith(beginning):
            raise DataLoadError(f"{path} {said}; or get the file itself")


def _check_has_mark(path: Path, start: bytes) -> None:
    """Check that a file does not begin with Latin letters in UTF-16, as Windows writes them, without a mark."""
    for encoding, nulls, letters in (("UTF-16LE", start[1::2], start[::2]), ("UTF-16BE", start[::2], start[1::2])):
        if len(start) == 4 and nulls == b"\0\0" and b"\0" not in letters:
            command = f"iconv -f {encoding} -t UTF-8 {shlex.quote(path.name)}"
            raise DataLoadError(
                f"{path} begins like {encoding}, without the byte order mark that would say so: save it as UTF-8 "
                f"({command} > ...)"
            )


def _not_decoded(path: Path, encoding: str, error: UnicodeDecodeError) -> DataLoadError:
    if encoding != "utf-8-sig":
        return DataLoadError(f"{path} begins like {encoding.upper()} and is not ({error.reason}); save it as UTF-8")
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as found:
                return DataLoadError(
                    f"{path}, line {number}: byte {line[found.start]:#04x} at position {found.start + 1} of the line "
                    f"is not UTF-8 ({found.reason}); {_advice(path, line, found.start)}"
                )
    return DataLoadError(f"{path} is not UTF-8 ({error.reason}); save it as UTF-8")


def _advice(path: Path, line: bytes, position: int) -> str:
    with path.open("rb") as stream:
        start = stream.read(4)
    for magic, kind in _OTHER_FILES.items():
        if start.startswith(magic):
            return (
                f"it looks like {kind}, not like text: save it as Parquet, CSV or JSONL, under the name of its format"
            )
    excerpt = line[max(0, position - _EXCERPT) : position + _EXCERPT]
    try:
        shown = excerpt.decode("cp1252").strip()
    except UnicodeDecodeError:
        return "save the file as UTF-8"
    if not shown.isprintable():
        return "save the file as UTF-8, if it is text at all"
    command = f"iconv -f WINDOWS-1252 -t UTF-8 {shlex.quote(path.name)}"
    return (
        f"in Latin-1 or Windows-1252 it would be {shown!r}: if that is right, save the file as UTF-8 ({command} > ...)"
    )
