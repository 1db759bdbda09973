"""The terminal: texts are shown there as they are, never read as markup, never obeyed as control sequences."""

import re
from typing import Any

from rich.console import Console
from rich.text import Text

_NOT_SHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and newline, those that turn the direction of writing, and bytes that are no text."""


class Terminal(Console):
    """A console on which brackets are brackets, `:smile:` is that word, and control characters are shown escaped.

    Styles come from `style=` and from `line`, so that no text of a user can set or break one.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return the text as it is shown; tables and `print` ask for it."""
        return super().render_str(printable(text), **options)


def printable(text: str) -> str:
    """Return a text with its control characters escaped, as Python writes them in a literal."""
    return _NOT_SHOWN.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode("ascii"), text)


def line(text: str, style: str = "") -> Text:
    """Return a text with a style, for a table or a view; `Text` itself would pass control characters on."""
    return Text(printable(text), style)


def say(text: str) -> None:
    """Print a text on standard output as long as it is, without a style, for people and scripts."""
    print(printable(text))
