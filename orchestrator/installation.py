"""The ntksweep that is installed here: its version, its code, and where it is."""

import hashlib
import sys
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from orchestrator.process_log import PACKAGES
from orchestrator.sweep.folder import versions
from orchestrator.version import VERSION

DIGITS = 12
"""Hexadecimal digits of the hash of the code."""


@dataclass(frozen=True)
class Installation:
    """An installed ntksweep.

    Attributes:
        version: its version.
        code: hash of the names and contents of its Python files, which an edited checkout changes without a version.
        place: the folder that its packages lie in.
        python: the version of Python that runs it.
    """

    version: str
    code: str
    place: str
    python: str

    def __str__(self) -> str:
        return f"ntksweep {self.version} (code {self.code}) at {self.place} with Python {self.python}"


@cache
def installation() -> Installation:
    """Return the installation that this process runs, as its files were at the first call."""
    place = Path(__file__).parent.parent
    return Installation(VERSION, _code(), str(place), sys.version.split()[0])


def installation_and_libraries() -> str:
    """Return the installation and the versions of the libraries that numbers depend on, for a log."""
    libraries = (f"{name} {found}" for name, found in versions().items() if name != "ntksweep")
    return f"{installation()}, {', '.join(libraries)}"


def _code() -> str:
    found = hashlib.sha256()
    for package in PACKAGES:
        spec = find_spec(package)
        for root in spec.submodule_search_locations or () if spec else ():
            for path in sorted(Path(root).rglob("*.py")):
                content = path.read_bytes()
                found.update(f"{package}/{path.relative_to(root)} {len(content)}\0".encode())
                found.update(content)
    return found.hexdigest()[:DIGITS]
