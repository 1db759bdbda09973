"""A sweep that is submitted gives the tables of a run on one machine, however many allocations share it."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from orchestrator.store.journal import read_journals
from slurm.devcluster import DevCluster
from tests.cluster.conftest import NewSubmitted
from tests.cluster.login import Login
from tests.cluster.submitted import PROFILE, Submitted, wait_until
from tests.faults.driving import ntksweep
from tests.faults.journal_proof import prove_nothing_was_computed_twice
from tests.faults.tables import assert_same_tables, numbers

pytestmark = pytest.mark.xdist_group("cluster-a")

EXAMPLES = Path(__file__).parents[2] / "examples"


def quickstart(folder: Path) -> Path:
    """Write the quickstart's spec into a folder, its results beside it; return its path."""
    folder.mkdir()
    (folder / "data").symlink_to(EXAMPLES / "data")
    spec = yaml.safe_load((EXAMPLES / "quickstart.yaml").read_text())
    path = folder / "quickstart.yaml"
    path.write_text(yaml.safe_dump(spec | {"results": {"folder": str(folder / "results")}}))
    return path


def hosts(results: Path) -> set[tuple[str, str]]:
    """Return the jobs that finished stages, each with the process that did."""
    return {
        (event["job"], event["journal"]) for event in read_journals(results / "journal") if event["event"] == "finished"
    }


@pytest.mark.skipif(
    not (EXAMPLES / "data/minilm").is_dir(), reason="needs examples/data: python examples/fetch_quickstart.py"
)
def test_the_quickstart_gives_the_same_tables_on_two_nodes_and_on_three_allocations(
    cluster: DevCluster, tmp_path: Path, scratch: Path, nothing_left: Callable[[], None]
) -> None:
    local = quickstart(tmp_path / "local")
    answer = ntksweep("run", local, folder=local.parent)
    assert answer.status == 0, answer.output
    expected = numbers(local.parent / "results")

    for name, nodes, allocations in (("nodes", 2, 1), ("allocations", 1, 3)):
        ...
