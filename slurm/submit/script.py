"""The shell lines that run before Python in a job; each says what is wrong if it fails."""

import shlex
import sys
from pathlib import Path

from slurm.profile.profile import Profile

CONFIGURATION_FAULT = 78
"""Exit status of a job whose node lacks something that the profile names (EX_CONFIG of sysexits.h)."""

FAULT_MARK = "ntksweep: "
"""Beginning of the lines in which a job says what its node lacks."""

UMASKS = {"private": 0o077, "group": 0o027, "everyone": 0o022}
"""Permissions that are removed from new files (umask), by the users who may read the results."""


def setup_lines(profile: Profile, results: Path, check: tuple[str, ...] = ()) -> list[str]:
    """Return the lines that a job's script runs before it starts Python.

    Args:
        profile: what the job enters.
        results: the results folder, which the node must see.
        check: arguments of Python for a check of what is installed there, which says itself what is wrong.
    """
    modules = [
        _or_fault(f"module load {shlex.quote(name)}", f"the module {name} cannot be loaded") for name in profile.modules
    ]
    first, spec = shlex.quote(python_command(profile)[0]), shlex.quote(str(results / "spec.yaml"))
    return [
        f"umask {UMASKS[profile.results]:03o}",
        *modules,
        *profile.setup,
        _or_fault(f"command -v {first} >/dev/null", f"there is no {first}"),
        _or_fault(f"test -r {spec}", f"the results folder {results} cannot be read"),
        *([_checked(shlex.join((*python_command(profile), *check)), first)] if check else []),
    ]


def _checked(command: str, python: str) -> str:
    message = shlex.quote(f"{FAULT_MARK}ntksweep does not start with {python} on ")
    said = f'[ $? -eq {CONFIGURATION_FAULT} ] || echo {message}"$SLURMD_NODENAME" >&2'
    return f"{command} || {{ {said}; exit {CONFIGURATION_FAULT}; }}"


def _or_fault(command: str, fault: str) -> str:
    message = shlex.quote(f"{FAULT_MARK}{fault} on ")
    return f'{command} || {{ echo {message}"$SLURMD_NODENAME" >&2; exit {CONFIGURATION_FAULT}; }}'


def python_command(profile: Profile) -> tuple[str, ...]:
    """Return the command that starts Python on a node, the container's included."""
    container = tuple(shlex.split(profile.container or ""))
    if profile.python is not None:
        return (*container, profile.python)
    if profile.virtual_environment is not None:
        return (*container, str(profile.virtual_environment / "bin/python"))
    return (*container, "python3") if container else (sys.executable,)
