"""Faults that a developer could put into the code, each with the tests that catch it."""

import textwrap
from dataclasses import dataclass
from pathlib import Path

import yaml

LIST = Path(__file__).with_name("faults.yaml")
DEEPEST = 40
"""Spaces of the deepest indentation at which the lines of a fault are looked for."""


class DoesNotApplyError(Exception):
    """The text that a fault changes is not in its file, or is there more than once."""


@dataclass(frozen=True)
class Fault:
    """A change of a file that some tests catch.

    Attributes:
        name: how it is called on the command line.
        wrong: what a user would meet.
        file: what it changes, from the root of the checkout.
        before: the text there, once; of several lines the indentation that all share is left out.
        after: the text in its place, written in the same way.
        tests: ids of the tests that fail with it.
    """

    name: str
    wrong: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]

    def applied(self, text: str) -> str:
        """Return the text of the file with the fault.

        Raises:
            DoesNotApplyError: the text to change is not there, or more than once.
        """
        for spaces in range(0, DEEPEST + 1, 4):
            before = textwrap.indent(self.before, " " * spaces)
            found = text.count(before)
            if found > 1:
                raise DoesNotApplyError(f"{self.file} holds this text {found} times: {self.before!r}")
            if found:
                return text.replace(before, textwrap.indent(self.after, " " * spaces))
        raise DoesNotApplyError(f"{self.file} does not hold this text: {self.before!r}")


def read_faults() -> list[Fault]:
    """Return the faults of the list, in its order."""
    listed = yaml.safe_load(LIST.read_text(encoding="utf-8"))
    faults = [Fault(**{**entry, "tests": tuple(entry["tests"])}) for entry in listed]
    names = [fault.name for fault in faults]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SystemExit(f"{LIST.name} has two faults of one name: {', '.join(twice)}")
    return faults
