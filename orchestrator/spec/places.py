"""Paths in a spec; paths that no file can have are refused, so that code that opens them need not check again."""

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from orchestrator.errors import SpecError
from slurm.profile.quantities import LONGEST_NAME, LONGEST_PATH


def possible(text: str) -> str:
    """Return a path that a file can have.

    Raises:
        ValueError: a name or all of it is too long, it is no text, or it begins with the home of a user who does not
            exist.
    """
    if "\0" in text:
        raise ValueError("the path holds a null character, which no name of a file has")
    if not is_text(text):
        raise ValueError(NO_TEXT)
    longest = max(len(os.fsencode(name)) for name in text.split("/"))
    if longest > LONGEST_NAME:
        raise ValueError(f"a name in this path has {longest} bytes, and the names of files have {LONGEST_NAME} at most")
    if len(os.fsencode(text)) > LONGEST_PATH:
        raise ValueError(f"the path has {len(os.fsencode(text))} bytes, and may have {LONGEST_PATH} at most")
    if text.startswith("~"):
        _home_of(text)
    return text


NO_TEXT = (
    "a name in this path has bytes that are not text in UTF-8, and could not be written down; rename that file or "
    "folder"
)


def is_text(path: str | Path) -> bool:
    """Tell whether a path is text; Python keeps bytes that are not as characters that no encoding has."""
    return not any("\ud800" <= character <= "\udfff" for character in str(path))


def given_path(path: str | Path) -> Path:
    """Return a path that the user gave: what lies there as it is written, else with ~ filled in.

    Raises:
        SpecError: no file can have that name.
    """
    if os.path.lexists(path) and is_text(path):
        return Path(path)
    try:
        return _home_of(possible(str(path)))
    except ValueError as error:
        raise SpecError(f"`{str(path)[:60]}`: {error}") from None


def _home_of(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:
        user = text.partition("/")[0]
        raise ValueError(
            f"`{user}` is the home of a user that this machine does not know; write the path out, or begin it with ./"
        ) from None


def _folder(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if not value.strip():
        raise ValueError("the path is empty; name a folder, or leave the key out")
    if any(not character.isprintable() for character in value):
        raise ValueError("the path holds a character that cannot be seen, which scripts of jobs could not hold")
    return _home_of(possible(value))


Place = Annotated[str, Field(min_length=1), AfterValidator(possible)]
"""A file, a folder, or an id on the hub."""

Folder = Annotated[Path, BeforeValidator(_folder)]
"""A folder to write to; ~ is filled in."""
