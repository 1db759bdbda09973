"""Runs every command that only reads a results folder, and prints their actions as JSON; run by a test.

    python -m tests.orchestrator.read_only RESULTS CELL WRITTEN OUTSIDE

One place of the folder after the other is moved to OUTSIDE, where a link leads in its place.
"""

import contextlib
import io
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from orchestrator.cli import main
from tests.opened import Opened

HEAVY = ("torch", "transformers", "peft", "ray", "datasets")
"""Libraries that load models, or whatever is pickled."""


def commands(results: Path, cell: str, written: Path) -> list[list[str]]:
    reading = [
        ["status", "--verify"], ["show"], ["logs"], ["logs", "--job", "12"], ["logs", "--cell", cell],
        ["export", "--output", f"{written}/x.csv"], ["findings", "--output", f"{written}/page"],
        ["report", "--output", f"{written}/page.html"], ["select", "--greedy", "1"],
    ]  # fmt: skip
    return [[name, str(results), *options] for name, *options in reading]


def answer(command: list[str]) -> tuple[int, str]:
    """Return the exit status of a command, and what it said."""
    said = io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["ntksweep", *command]),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        try:
            main()
        except SystemExit as ended:
            return int(ended.code or 0), said.getvalue()
    return 0, said.getvalue()


def places(root: Path) -> Iterator[list[Path]]:
    """Yield what is replaced together: each folder, each file at the top, and of other folders the files of a kind."""
    inside = sorted(root.rglob("*"))
    yield from ([path] for path in inside if path.is_dir())
    alike: dict[tuple[Path, str], list[Path]] = {}
    for path in inside:
        if path.is_file():
            alike.setdefault((path.parent, path.name if path.parent == root else path.suffix), []).append(path)
    yield from alike.values()


@contextlib.contextmanager
def moved_out(found: list[Path], outside: Path) -> Iterator[None]:
    """Move files or folders out, and leave links to them."""
    for number, path in enumerate(found):
        path.rename(outside / f"{number}{path.suffix}")
        path.symlink_to(outside / f"{number}{path.suffix}")
    try:
        yield
    finally:
        for number, path in enumerate(found):
            path.unlink()
            (outside / f"{number}{path.suffix}").rename(path)


def main_of_test(results: Path, cell: str, written: Path, outside: Path) -> None:
    unpickled: list[str] = []
    sys.addaudithook(lambda event, _: unpickled.append(event) if event == "pickle.find_class" else None)
    reading = commands(results, cell, written)
    plain: dict[str, Any] = {}
    opens: list[list[Path]] = []
    for command in reading:
        opened = Opened(results)
        status, said = answer(command)
        opens.append(opened.taken())
        opened.close()
        plain[" ".join(command[:1] + command[2:])] = {
            "status": status, "said": said, "loaded": [name for name in HEAVY if name in sys.modules],
        }  # fmt: skip
    plain_unpickled = list(unpickled)
    linked = []
    for found in places(results):
        with moved_out(found, outside):
            opened = Opened(outside)
            for command, taken in zip(reading, opens, strict=True):
                if not any(path.is_relative_to(place) for place in found for path in taken):
                    continue  # a command that opens nothing there follows no link there either
                status, said = answer(command)
                for path in opened.taken():
                    linked.append([str(found[0]), command[0], f"opened {path}"])
                if "Traceback" in said or status not in (0, 1, 2, 3):
                    linked.append([str(found[0]), command[0], said])
            opened.close()
    shutil.rmtree(outside)
    answer(reading[0])  # forgets the damage that it noted where links stood
    modules = [name for name in sys.modules if name.startswith("transformers_modules")]
    json.dump({"plain": plain, "unpickled": plain_unpickled, "modules": modules, "linked": linked}, sys.stdout)


if __name__ == "__main__":
    main_of_test(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
