"""Settings for every test process and the processes that it starts."""

import os

import pytest
from hypothesis import settings

# Tests run in several processes on few processors; tiny products on contended threads take twenty times as long.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"
# nothing is fetched from the network
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

# A busy machine is slow without being wrong; where nobody watches, a failure must come again when it is run again.
settings.register_profile("ntksweep", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("ntksweep")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return how many processes run the tests: those that need a cluster wait most of the time, and compute little."""
    return max(3, os.cpu_count() or 1)
