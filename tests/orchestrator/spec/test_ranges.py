"""Ranges of numbers that a spec gives by their ends."""

import re
from typing import Any

import pytest

from tests.orchestrator.spec.test_spec import fault

FLOW = {"kernel.eigenvectors": True}


@pytest.mark.parametrize(("key", "beside"), [("grid.lambdas", {}), ("kernel.flow_times", FLOW)])
@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        (
            1.0,
            0.01,
            "`start: 1` is above `stop: 0.01`, and start is the smallest value: write {start: 0.01, stop: 1, count: 5}",
        ),
        (
            0.5,
            0.5,
            "start and stop are both 0.5, so all 5 values would be the same: write `values: [0.5]`, or a larger stop",
        ),
    ],
)
def test_a_logspace_ascends(key: str, beside: dict[str, Any], start: float, stop: float, expected: str):
    message = fault({key: {"logspace": {"start": start, "stop": stop, "count": 5}}, **beside})
    assert re.search(rf"line \d+, {re.escape(key)}\.logspace: {re.escape(expected)}", message)
