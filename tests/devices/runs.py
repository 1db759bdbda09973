"""Runs of a sweep in this process, with what they moved between the devices."""

from pathlib import Path

from tests.orchestrator.sweeps import run_spec
from tests.pretended_device import COUNTED


def counted(spec: Path) -> dict[str, int]:
    """Run a spec; return the waits, copies and bytes of the whole run."""
    COUNTED.clear()
    run_spec(spec)
    return dict(COUNTED)
