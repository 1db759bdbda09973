"""Time of the slowest tests of runs of the suite, file by file, as a table of Markdown.

    make test PYTEST_OPTIONS=--durations=50 | tee after.log
    python -m benchmarks.suite_times before.log after.log [--page docs/benchmarks.md --command "make test"]

A log is what pytest printed with `--durations=50`: each file of tests has the seconds of its tests and fixtures among
the slowest 50. With several logs there is a column for each, a file that is not among the slowest of a run has a dash
there. With `--page` the table takes the place of the one that the page has under the heading of the command.
"""

import argparse
import re
import sys
from collections import Counter
from pathlib import Path

DURATION = re.compile(r"^([0-9.]+)s (?:call|setup|teardown) +(tests/[^:]+)::", re.MULTILINE)
ENDING = re.compile(r"^=+ (.* passed.*) in ([0-9.]+)s", re.MULTILINE)


def by_file(log: str) -> Counter[str]:
    """Return, for each file of tests, the seconds of those of its tests that a log names."""
    found = Counter[str]()
    for seconds, file in DURATION.findall(log):
        found[file.removeprefix("tests/")] += float(seconds)
    if not found:
        raise SystemExit("a log names no durations: run pytest with --durations=50")
    return found


def whole(log: str) -> float:
    """Return the seconds that a whole run took."""
    endings = ENDING.findall(log)
    if not endings:
        raise SystemExit("a log does not say how its run ended: it was cut short")
    return float(endings[-1][1])


def table(names: list[str], logs: list[str]) -> str:
    """Return the table: the whole run, then the files, the slowest of the first run first."""
    slowest = [by_file(log) for log in logs]
    files = sorted({file for run in slowest for file in run}, key=lambda file: [-run[file] for run in slowest])
    lines = [f"| seconds | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
    lines.append(f"| the whole run | {' | '.join(f'{whole(log):,.0f}' for log in logs)} |")
    for file in files:
        lines.append(f"| `{file}` | {' | '.join(f'{run[file]:.0f}' if file in run else '-' for run in slowest)} |")
    return "\n".join(lines)


def put_into(page: Path, command: str, made: str) -> None:
    """Put a table into the place of the one that a page has under `### command`."""
    text = page.read_text(encoding="utf-8")
    place = re.compile(rf"(?m)(^### `{re.escape(command)}`\n(?:(?!#|\|).*\n)*?)((?:\|.*\n)+)")
    if not place.search(text):
        raise SystemExit(f"{page} has no table under the heading `{command}`")
    page.write_text(place.sub(lambda found: f"{found[1]}{made}\n", text, count=1), encoding="utf-8")


def main() -> None:
    """Print the table of the logs that the command line names, or put it into a page."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("logs", type=Path, nargs="+", metavar="LOG")
    parser.add_argument("--page", type=Path)
    parser.add_argument("--command", default="make test", help="the heading under which the page has the table")
    asked = parser.parse_args()
    made = table([log.stem for log in asked.logs], [log.read_text(encoding="utf-8") for log in asked.logs])
    if asked.page is None:
        sys.stdout.write(f"{made}\n")
    else:
        put_into(asked.page, asked.command, made)


if __name__ == "__main__":
    main()
