"""A copy of the checkout in which a fault can be tried, and the tests that are run there."""

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import copy2

from tests.root import ROOT
from tests.seeded.faults import DoesNotApplyError, Fault

DATA = "examples/data"
"""Files that `make data` fetched: not in git, and only read by tests."""

SOME_FAILED = 1
"""Exit status of pytest when it ran all tests it was asked for and some failed."""


@dataclass(frozen=True)
class Ran:
    """End of a run of pytest: its exit status, None at the time limit, and what it printed."""

    status: int | None
    printed: str


class CopiedCheckout:
    """The files of the checkout that git has or would add, under another folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                copy2(ROOT / name, folder / name)
        if (ROOT / DATA).is_dir():
            (folder / DATA).symlink_to(ROOT / DATA)

    @contextmanager
    def having(self, fault: Fault) -> Iterator[None]:
        """Have the fault in the copy, and take it out again.

        Raises:
            DoesNotApplyError: its file is not there, or does not hold the text that it changes.
        """
        path = self.folder / fault.file
        if not path.is_file():
            raise DoesNotApplyError(f"there is no {fault.file}")
        text = path.read_text(encoding="utf-8")
        _write(path, fault.applied(text))
        try:
            yield
        finally:
            _write(path, text)

    def run(self, tests: Sequence[str], *, time_limit: float, options: Sequence[str] = ()) -> Ran:
        """Run tests of the copy, with the code of the copy also in the processes that they start."""
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, *tests],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            printed, _ = process.communicate(timeout=time_limit)
            return Ran(process.returncode, printed)
        except subprocess.TimeoutExpired:
            return Ran(None, "")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    # Python takes a compiled file for current by the second of the change and by the size: both can be the same.
    Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
