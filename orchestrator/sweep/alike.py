"""Files whose names look as that of a missing one."""

import unicodedata
from pathlib import Path


def hint_at_alike(path: Path) -> str:
    """Return a hint at a file beside a missing one whose name looks as its name does; empty where there is none."""
    try:
        others = sorted(each.name for each in path.parent.iterdir())
    except OSError:
        return ""
    seen = unicodedata.normalize("NFC", path.name).casefold()
    near = next((each for each in others if unicodedata.normalize("NFC", each).casefold() == seen), None)
    if near is None:
        return ""
    if near.casefold() == path.name.casefold():
        return f"; {near!r} is there, which differs in capital letters"
    return f"; {near!a} is there, which has its accents written in another way: copy the name from there"
