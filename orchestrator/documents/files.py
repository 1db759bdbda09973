"""Reading the text of a user's file, with errors for anything else that is found at its path."""

import errno
import os
import stat
from pathlib import Path

LARGEST = 4 * 2**20
"""Bytes of a file that is read; a spec that lists 100,000 seeds has 0.7 MB."""


class UnreadableFileError(Exception):
    """A file cannot be read as text; the message says why, as the end of a sentence."""


def text_of(path: Path, *, largest: int = LARGEST, links: bool = True) -> str:
    """Return the text of a file.

    Args:
        path: the file.
        largest: most bytes that it may have.
        links: whether it may be a link to the file.

    Raises:
        FileNotFoundError: there is none.
        UnreadableFileError: it is a folder, a device or a pipe, is too large, is not UTF-8, or may not be read.
    """
    content = _content(path, largest, 0 if links else os.O_NOFOLLOW)
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnreadableFileError("it is UTF-16; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - (content.rfind(b"\n", 0, error.start) + 1) + 1
        raise UnreadableFileError(
            f"line {line}, column {column}: byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from None


def _content(path: Path, largest: int, flags: int) -> bytes:
    try:
        # Without O_NONBLOCK, opening a pipe would wait for somebody to write to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
        try:
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISDIR(mode):
                raise UnreadableFileError("it is a folder; name a file")
            if not stat.S_ISREG(mode):
                raise UnreadableFileError("it is a device or a pipe; name a file")
            with open(descriptor, "rb", closefd=False) as stream:
                content = stream.read(largest + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except OSError as error:
        if flags and error.errno == errno.ELOOP:
            raise UnreadableFileError(
                "it is a link, and no link is followed there; put the file itself there"
            ) from None
        raise UnreadableFileError(f"{error.strerror}; name a file that you may read") from None
    except ValueError:  # a NUL in its name
        raise UnreadableFileError("its name holds a character that no file name can hold") from None
    if len(content) > largest:
        raise UnreadableFileError(f"it is larger than {largest / 2**20:.0f} MiB, so that it is hardly what was meant")
    return content
