"""Puts each fault of the list into a copy of the checkout and says whether its tests catch it.

    python -m tests.seeded            all faults
    python -m tests.seeded NAME ...   some
    python -m tests.seeded --check    only whether all can be put in and all tests are there: seconds

Exits with 1 unless every fault is caught.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.seeded.copied import SOME_FAILED, CopiedCheckout
from tests.seeded.faults import DoesNotApplyError, Fault, read_faults

CAUGHT = "caught"


def main() -> int:
    """Try the faults that the command line names, print a table, return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.seeded", description=str(__doc__).partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="faults to try; all without one")
    parser.add_argument("--check", action="store_true", help="do not run tests, only look whether faults and tests fit")
    parser.add_argument("--time-limit", type=float, default=180, metavar="SECONDS", help="for the tests of one fault")
    asked = parser.parse_args()
    faults = _chosen(read_faults(), asked.names, parser)
    with tempfile.TemporaryDirectory(prefix="seeded-") as folder:
        checkout = CopiedCheckout(Path(folder))
        _check_tests(checkout, faults, run=not asked.check, time_limit=asked.time_limit * len(faults))
        results = []
        for number, fault in enumerate(faults, 1):
            start = time.monotonic()
            ending = _try(checkout, fault, None if asked.check else asked.time_limit)
            results.append((fault, ending, time.monotonic() - start))
            print(f"[{number}/{len(faults)}] {fault.name}: {ending}", flush=True)
    return _summed_up(results, "applies" if asked.check else CAUGHT)


def _chosen(faults: list[Fault], names: list[str], parser: argparse.ArgumentParser) -> list[Fault]:
    unknown = sorted(set(names) - {fault.name for fault in faults})
    if unknown:
        parser.error(f"the list has no fault of this name: {', '.join(unknown)}")
    return [fault for fault in faults if not names or fault.name in names]


def _check_tests(checkout: CopiedCheckout, faults: Sequence[Fault], *, run: bool, time_limit: float) -> None:
    """Leave the program unless all tests are there and, if they are to be run, pass without a fault."""
    tests = sorted({test for fault in faults for test in fault.tests})
    print(f"{len(tests)} tests, without a fault", flush=True)
    ran = checkout.run(tests, time_limit=time_limit, options=() if run else ("--collect-only",))
    if ran.status != 0:
        sys.exit(f"{ran.printed}\nThese tests must be there and pass before they can catch anything.")


def _try(checkout: CopiedCheckout, fault: Fault, time_limit: float | None) -> str:
    """Return in a word or two how the fault ended."""
    try:
        with checkout.having(fault):
            if time_limit is None:
                return "applies"
            ran = checkout.run(fault.tests, time_limit=time_limit)
    except DoesNotApplyError as error:
        return f"does not apply ({error})"
    if ran.status is None:
        return f"NOT CAUGHT (its tests still ran after {time_limit:g} s)"
    if ran.status == SOME_FAILED:
        return CAUGHT
    return "NOT CAUGHT" if ran.status == 0 else f"NOT CAUGHT (pytest ended with status {ran.status})"


def _summed_up(results: Sequence[tuple[Fault, str, float]], wanted: str) -> int:
    width = max(len(fault.name) for fault, _, _ in results)
    print()
    for fault, ending, seconds in results:
        print(f"{fault.name:{width}}  {seconds:5.1f} s  {ending}")
    good = sum(ending == wanted for _, ending, _ in results)
    print(f"\n{good} of {len(results)}: {wanted}")
    return int(good < len(results))


if __name__ == "__main__":
    sys.exit(main())
