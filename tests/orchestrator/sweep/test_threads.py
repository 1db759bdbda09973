"""Every library of linear algebra has a stage's threads, also one that the stage is the first to load."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from orchestrator.sweep.resources import limited_threads

FIRST_LOADED_INSIDE = """
import json
from orchestrator.sweep.resources import limited_threads
with limited_threads(1):
    import scipy.linalg
    from threadpoolctl import threadpool_info
    found = {each["filepath"]: each["num_threads"] for each in threadpool_info()}
print(json.dumps(found))
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor gives every library one thread")
def test_a_library_that_is_loaded_inside_has_the_stages_threads_too():
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    answer = subprocess.run(
        [sys.executable, "-c", FIRST_LOADED_INSIDE], env=environment, capture_output=True, text=True, check=True
    )
    found = json.loads(answer.stdout)
    assert any("scipy" in path for path in found)
    assert set(found.values()) == {1}


def test_threads_and_environment_are_as_before_afterwards(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    np.ones((2, 2)) @ np.ones((2, 2))
    before = [each["num_threads"] for each in threadpool_info()]
    with limited_threads(1):
        assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "1"
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ
    assert [each["num_threads"] for each in threadpool_info()] == before
