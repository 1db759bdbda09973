"""Processor time of what a user waits for, of one checkout or of several in turn."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import yaml

from tests.golden.inputs import EXAMPLES, HERE
from tests.golden.recording import environment

MANY = 100_128
"""Cells of the grid that is planned: that of benchmarks/bookkeeping.py."""

WRITE_GRID = (
    "import sys; from pathlib import Path; from benchmarks.bookkeeping import write_inputs, write_spec; "
    "folder = Path(sys.argv[1]); write_inputs(folder); write_spec(folder, 100_000)"
)


class Timed:
    """A checkout whose commands are timed in a folder of its own."""

    def __init__(self, checkout: Path, folder: Path) -> None:
        self.checkout, self.folder = checkout, folder
        own = checkout / ".venv/bin/python"
        self.python = str(own) if own.exists() else sys.executable
        self.results = folder / "quickstart"
        folder.mkdir()
        self.run("-c", WRITE_GRID, str(folder))
        spec = yaml.safe_load((checkout / "examples/quickstart.yaml").read_text())
        spec["model"]["path"], spec["task"]["data"] = (
            str(EXAMPLES / spec[s][k]) for s, k in (("model", "path"), ("task", "data"))
        )
        spec["results"] = {"folder": str(self.results)}
        (folder / "quickstart.yaml").write_text(yaml.safe_dump(spec))

    def run(self, *arguments: str) -> float:
        """Run Python with arguments; return the processor seconds of the process and those that it started."""
        before = os.times()
        subprocess.run(
            [self.python, *arguments], cwd=self.folder, env=environment(self.checkout), check=True, capture_output=True
        )
        after = os.times()
        return sum(after[i] - before[i] for i in (2, 3))

    def command(self, *arguments: str) -> float:
        """Run `ntksweep`; return its processor seconds."""
        return self.run("-P", str(HERE / "target.py"), str(self.checkout), *arguments)

    def quickstart(self) -> dict[str, float]:
        """Return processor seconds of the quickstart, inline, and what its journal says that stages took, by kind."""
        shutil.rmtree(self.results, ignore_errors=True)
        found = {"quickstart": self.command("run", "quickstart.yaml", "--executor", "inline")}
        kinds: dict[str, float] = defaultdict(float)
        for path in (self.results / "journal").glob("*.jsonl"):
            for event in map(json.loads, path.read_text().splitlines()):
                if event.get("event") == "finished":
                    kinds[f"  its stages of {event['kind']} (wall time)"] += event["seconds"]
        return found | kinds


def show_times(checkouts: Sequence[Path], repeats: int) -> None:
    """Print processor seconds of commands, the median of some repeats, and ratios to those of the first checkout."""
    with tempfile.TemporaryDirectory() as temporary:
        trees = [Timed(checkout, Path(temporary) / str(number)) for number, checkout in enumerate(checkouts)]
        found: list[dict[str, list[float]]] = [defaultdict(list) for _ in trees]
        for _ in range(repeats):
            for tree, rows in zip(trees, found, strict=True):
                for name, seconds in tree.quickstart().items():
                    rows[name].append(seconds)
        commands: dict[str, Callable[[Timed], float]] = {
            "--help": lambda tree: tree.command("--help"),
            "status": lambda tree: tree.command("status", str(tree.results)),
            "show": lambda tree: tree.command("show", str(tree.results)),
            f"plan of {MANY:,} cells": lambda tree: tree.command("plan", "cells-100000.yaml"),
        }
        for name, timed in commands.items():
            for _ in range(repeats):
                for tree, rows in zip(trees, found, strict=True):
                    rows[name].append(timed(tree))
    print(f"{'processor seconds':<45}" + "".join(f"{checkout.name:>18}" for checkout in checkouts))
    for name, first in found[0].items():
        values = [median(rows[name]) for rows in found]
        ratios = [""] + [f" ({value / median(first):.2f})" for value in values[1:]]
        print(f"{name:<45}" + "".join(f"{f'{v:.2f}{r}':>18}" for v, r in zip(values, ratios, strict=True)))
