"""Slurm's client programs."""

import subprocess

from slurm.errors import SlurmError


class CommandError(SlurmError):
    """A Slurm client program failed."""


def run_command(*argv: str, timeout: float = 60, input: str | None = None) -> str:  # noqa: A002
    """Run a Slurm client program and return what it wrote.

    Raises:
        CommandError: it is missing, failed or took too long.
    """
    try:
        done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=timeout, input=input)
    except (OSError, subprocess.SubprocessError) as error:
        raise CommandError(f"`{' '.join(argv)}` failed: {error} {getattr(error, 'stderr', '') or ''}") from None
    return done.stdout
