"""What makes the tests affordable: processes begin with the libraries, and a file makes once what its tests share."""

import os
import sys

import pytest

from tests.faults.driving import call


def loaded(names: list[str]) -> list[str]:
    return [name for name in names if name in sys.modules]


def test_processes_begin_with_the_libraries_loaded():
    names = [
        "torch",
        "transformers",
        "peft",
        "datasets",
        "orchestrator.engine.run",
        "orchestrator.stages.solve.compute",
    ]
    assert call(loaded, names) == names


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process has all tests")
def test_the_tests_of_a_file_are_left_to_one_process(request: pytest.FixtureRequest):
    assert request.node.nodeid.endswith("@test_served")
