"""Commands that stand in blocks of the documentation."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.root import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@dataclass(frozen=True)
class Command:
    """A command as a page has it, without its comment."""

    page: Path
    line: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return shlex.join(self.words)


def commands_of(page: Path) -> Iterator[Command]:
    """Yield the commands of ntksweep and Python in the fenced blocks of a page, in their order."""
    fenced = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced and re.match(r"\s*(\$ )?(ntksweep|python3?) ", line):
            words = shlex.split(line.strip().removeprefix("$ "), comments=True)
            yield Command(page, number, tuple(words[: words.index("|")] if "|" in words else words))
