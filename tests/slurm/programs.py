"""Programs that stand for Slurm's own where no cluster is needed."""

from pathlib import Path


class Programs:
    """A folder of shell scripts, to be all there is on PATH, and a log of how they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "bin"
        self.folder.mkdir()
        self._log = folder / "calls"

    def add(self, name: str, script: str) -> None:
        """Make `name` a program that runs a script of sh."""
        path = self.folder / name
        path.write_text(f'#!/bin/sh\nPATH=/usr/bin:/bin\necho "{name} $*" >> {self._log}\n{script}\n')
        path.chmod(0o755)

    def calls(self) -> list[str]:
        """Return the calls so far, each with its arguments."""
        return self._log.read_text().splitlines() if self._log.exists() else []
