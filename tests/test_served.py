"""Tests start hundreds of processes, which is affordable only where the libraries are there from the start."""

import sys

from tests.faults.driving import call


def loaded(names: list[str]) -> list[str]:
    return [name for name in names if name in sys.modules]


def test_processes_begin_with_the_libraries_loaded():
    names = ["torch", "transformers", "peft", "datasets", "orchestrator.run", "orchestrator.stages.solve"]
    assert call(loaded, names) == names
