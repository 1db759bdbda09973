"""The terminal: texts are printed literally, never as markup or control sequences."""

import re
from typing import Any

from rich.console import Console
from rich.text import Text

_NOT_SHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters except tab and newline, marks of writing direction, and bytes that are not text."""


class Terminal(Console):
    """A console that prints brackets and `:smile:` literally, and control characters escaped.

    Styles come from `style=` and from `line`, so that no text of a user can set or break one.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return the text as it is shown; tables and `print` call it."""
        return super().render_str(printable(text), **options)


def printable(text: str) -> str:
    """Return a text with its control characters escaped, as Python writes them in a literal."""
    return _NOT_SHOWN.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode("ascii"), text)


def line(text: str, style: str = "") -> Text:
    """Return a text with a style, for a table or a view; `Text` itself would not escape control characters."""
    return Text(printable(text), style)


def say(text: str) -> None:
    """Print a text on standard output without line wrapping or style, for people and scripts."""
    print(printable(text))
