"""Share of a run of the suite that tests take which are newer than a commit, file by file, as a table of Markdown.

    make test PYTEST_OPTIONS=--durations=0 | tee run.log
    python -m benchmarks.suite_growth run.log --since COMMIT

A test is newer if no function of its name is among the tests of that commit. Each phase counts with its seconds of wall
time: in a run whose processes compete for the processors, shares say more than seconds.
"""

import argparse
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

DURATION = re.compile(r"^([0-9.]+)s (?:call|setup|teardown) +(tests/[^:]+)::(test_\w+)", re.MULTILINE)
LEAST_SHARE = 0.002
"""Files with less of the run's time are left out of the table."""


def names_at(commit: str) -> frozenset[str]:
    """Return the names of the functions that are tests at a commit."""
    ran = subprocess.run(
        ["git", "grep", "-hoE", r"def test_\w+", commit, "--", "tests"], capture_output=True, text=True, check=True
    )
    return frozenset(line.removeprefix("def ") for line in ran.stdout.split("\n"))


def main() -> None:
    """Print the table of the log that the command line names."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("log", type=Path)
    parser.add_argument("--since", required=True, metavar="COMMIT")
    asked = parser.parse_args()
    before, newer, total = names_at(asked.since), Counter[str](), 0.0
    for seconds, file, name in DURATION.findall(asked.log.read_text(encoding="utf-8")):
        total += float(seconds)
        if name not in before:
            newer[file.removeprefix("tests/")] += float(seconds)
    lines = ["| newer tests | share of the run |", "| --- | --- |", f"| all | {newer.total() / total:.1%} |"]
    lines += [f"| `{file}` | {own / total:.1%} |" for file, own in newer.most_common() if own >= LEAST_SHARE * total]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
