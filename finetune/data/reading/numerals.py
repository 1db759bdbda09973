"""Numbers written as text, as CSV files have them."""

import re

_NUMERAL = re.compile(r"[+-]?(?:[0-9]{1,400}(?:\.[0-9]{0,400})?|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,9})?")
_TRUTH = {"true": 1, "True": 1, "TRUE": 1, "false": 0, "False": 0, "FALSE": 0}


def is_numeral(text: str) -> bool:
    """Tell whether a text is a decimal number or true or false, whatever white space is around it."""
    return number_of(text) is not None


def number_of(text: str) -> int | float | None:
    """Return the number that a text stands for: a whole one as int, true and false as 1 and 0; None if it is none.

    Points are decimal points; digits are those of ASCII; nan and inf are no numbers.
    """
    stripped = text.strip()
    if stripped in _TRUTH:
        return _TRUTH[stripped]
    if not _NUMERAL.fullmatch(stripped):
        return None
    return int(stripped) if stripped.lstrip("+-").isdigit() else float(stripped)
