"""The versions of ntksweep and of the libraries that a sweep's numbers depend on."""

import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from orchestrator.version import VERSION

LIBRARIES = ("torch", "transformers", "peft", "numpy", "scipy", "ray", "datasets", "pyarrow")


@cache
def git_commit() -> str | None:
    """Return the commit of ntksweep's own checkout, marked if files differ from it; None outside a checkout."""
    try:
        _git("ls-files", "--error-unmatch", Path(__file__).name)  # fails inside somebody else's checkout
        commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+changes" if changes else "")


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


@cache
def versions() -> dict[str, str]:
    """Return the versions of ntksweep and of the libraries that its numbers depend on."""
    found = {"ntksweep": VERSION}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
