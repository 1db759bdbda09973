"""The ntksweep that is installed here, and whether the processes of a sweep run the same one.

`python -m orchestrator.installation JSON`, run by an allocation before all else, compares it with the one that
submitted the allocation.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from orchestrator.errors import OtherInstallationError
from orchestrator.identity import identity
from orchestrator.process_log import PACKAGES
from orchestrator.store.files import host_name
from orchestrator.version import VERSION
from slurm.submit.script import CONFIGURATION_FAULT, FAULT_MARK

_PLACE = Path(__file__).resolve().parent.parent

DIGITS = 12
"""Hexadecimal digits of the hashes."""


@dataclass(frozen=True)
class Installation:
    """An installed ntksweep.

    Attributes:
        version: its version.
        numerics: hash of the versions of all kinds of stages, which are raised when their numbers change.
        code: hash of the names and contents of its Python files, which an edited checkout changes without a version.
        place: the folder that its packages lie in.
        python: the version of Python that runs it.
        host: the machine.
    """

    version: str
    numerics: str
    code: str
    place: str
    python: str
    host: str

    def __str__(self) -> str:
        return (
            f"ntksweep {self.version} (code {self.code}, numerics {self.numerics}) at {self.place} on {self.host}, "
            f"Python {self.python}"
        )

    def to_json(self) -> dict[str, str]:
        """Return it as JSON, which any version reads with `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, str]) -> "Installation":
        """Return the installation that another process wrote, whatever its version says of itself."""
        return cls(**{name: str(data.get(name, "unknown")) for name in cls.__dataclass_fields__})


@cache
def installation() -> Installation:
    """Return the installation that this process runs, as its files were at the first call."""
    from orchestrator.stages.registry import KINDS

    numerics = identity({name: kind.version for name, kind in KINDS.items()})[:DIGITS]
    return Installation(VERSION, numerics, _code(), str(_PLACE), sys.version.split()[0], host_name())


def installation_and_libraries() -> str:
    """Return the installation and the versions of the libraries that numbers depend on, for a log."""
    from orchestrator.sweep.versions import versions

    libraries = (f"{name} {found}" for name, found in versions().items() if name != "ntksweep")
    return f"{installation()}, {', '.join(libraries)}"


def difference(driver: Installation, other: Installation, *, who: str) -> str | None:
    """Return what to tell the user if a process runs another ntksweep than the driver of its run; None if it does not.

    Python files alone count: where they are the same, the place does not matter.

    Args:
        driver: that of the driver.
        other: that of the process.
        who: the process, as the beginning of a sentence.
    """
    if (driver.version, driver.numerics, driver.code) == (other.version, other.numerics, other.code):
        return None
    said = f"{who} runs {other}, and the driver of this run {driver}"
    changed = "the files there were changed since the run began: run the same command again"
    install = (
        "install the same in both places (pip install), or let both use one that both see (on a cluster by "
        "`virtual_environment`, `python` or `container` of the profile), and run the same command again"
    )
    if driver.place != other.place:
        fix = install
    else:
        fix = changed if driver.host == other.host else f"{changed}; or each machine has its own: {install}"
    return f"{said}; {fix}. Finished stages are kept"


def refuse_others(found: Sequence[Mapping[str, str]]) -> None:
    """Raise an error if the processes of a group do not all run the same ntksweep.

    Args:
        found: the installation of each process as JSON, by rank; the first one drives.

    Raises:
        OtherInstallationError: names both, and where they are.
    """
    first, *others = map(Installation.from_json, found)
    for rank, other in enumerate(others, start=1):
        if message := difference(first, other, who=f"process {rank} of the group"):
            raise OtherInstallationError(message)


def compare_with_submitter(submitter: Installation, here: Installation) -> str | None:
    """Compare the installation of an allocation with the one that submitted it.

    Jobs may wait for days, while people go on with the checkout that they are installed from: if files changed, but
    neither the version nor any number, the allocation goes on with the files as they are, and says so.

    Returns:
        The note to print where files changed in that place; None where nothing did.

    Raises:
        OtherInstallationError: names both versions, both places, and what to do.
    """
    if (submitter.version, submitter.numerics, submitter.code) == (here.version, here.numerics, here.code):
        return None
    same_numbers = (submitter.version, submitter.numerics) == (here.version, here.numerics)
    if same_numbers and submitter.place == here.place:
        return f"ntksweep at {here.place} was changed since the submission, from code {submitter.code} to {here.code}"
    raise OtherInstallationError(
        f"the job runs {here}, and was submitted by {submitter}: "
        + (
            "submit again with `ntksweep resume`, which takes it as it is now"
            if submitter.place == here.place
            else "install the same in both places (pip install), or name one that both see in the profile "
            "(`virtual_environment`, `python` or `container`), and submit again with `ntksweep resume`"
        )
    )


def _code() -> str:
    found = hashlib.sha256()
    # Not as an import finds them: a folder of the user may have the name of a package that is not loaded yet.
    for path in sorted(each for package in PACKAGES for each in (_PLACE / package).rglob("*.py")):
        if any(part.startswith(".") for part in path.relative_to(_PLACE).parts):
            continue  # of an editor
        content = path.read_bytes()
        found.update(f"{path.relative_to(_PLACE)} {len(content)}\0".encode())
        found.update(content)
    return found.hexdigest()[:DIGITS]


def check_command() -> tuple[str, ...]:
    """Return the arguments of Python by which an allocation compares its installation with this one."""
    return ("-m", "orchestrator.installation", json.dumps(installation().to_json(), separators=(",", ":")))


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare this installation with the one that submitted the job; return the exit status.

    Args:
        arguments: of the command line; None takes those of this process.
    """
    parser = argparse.ArgumentParser(prog="orchestrator.installation")
    parser.add_argument("submitter", type=json.loads)
    submitter = Installation.from_json(parser.parse_args(arguments).submitter)
    try:
        note = compare_with_submitter(submitter, installation())
    except OtherInstallationError as error:
        print(f"{FAULT_MARK}{error}", file=sys.stderr)
        return CONFIGURATION_FAULT
    if note:
        print(note, file=sys.stderr)
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
