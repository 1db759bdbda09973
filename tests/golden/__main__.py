"""Golden files: what a checkout plans, computes and says, recorded and compared.

    python -m tests.golden record FOLDER [--checkout CHECKOUT] [--python PYTHON] [--only PART ...]
    python -m tests.golden compare OLD NEW [--renames renames.yaml]
    python -m tests.golden times CHECKOUT [CHECKOUT ...]

`committed` of a recording is what the repository keeps in tests/golden/committed; `here` holds numbers bit for bit and
plans of thousands of stages, to compare with another recording of the same machine. Before a change record one folder,
after it another, and compare both.
"""

import argparse
import os
import sys
from pathlib import Path

from tests.golden.comparing import compare
from tests.golden.inputs import HERE
from tests.golden.recording import record
from tests.golden.renames import Renames
from tests.golden.times import show_times


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="record what a checkout does")
    recording.add_argument("folder", type=Path)
    recording.add_argument("--checkout", type=Path, default=HERE.parents[1], help="default: this one")
    recording.add_argument("--python", type=os.path.abspath, help="default: that of its .venv, else this one")
    recording.add_argument(
        "--only", nargs="+", default=[], metavar="PART", help="plans, numbers/plain, messages/data ..."
    )
    comparing = commands.add_parser("compare", help="say what differs between two recordings, or the same parts of two")
    comparing.add_argument("old", type=Path)
    comparing.add_argument("new", type=Path)
    comparing.add_argument("--renames", type=Path, default=HERE / "renames.yaml")
    timing = commands.add_parser("times", help="processor time of some commands; several checkouts take turns")
    timing.add_argument("checkouts", type=Path, nargs="+")
    timing.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.command == "record":
        record(arguments.folder.resolve(), arguments.checkout.resolve(), arguments.python, arguments.only)
    elif arguments.command == "compare":
        sys.exit(compare(arguments.old, arguments.new, Renames.read(arguments.renames)) > 0)
    else:
        show_times([checkout.resolve() for checkout in arguments.checkouts], arguments.repeats)


if __name__ == "__main__":
    main()
