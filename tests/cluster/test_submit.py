"""A sweep that is submitted gives the tables of a run on one machine, however many allocations share it."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

import orchestrator
from orchestrator.store.journal import read_journals
from slurm.devcluster import DevCluster
from tests.cluster.conftest import NewSubmitted
from tests.cluster.login import Login
from tests.cluster.ray_jobs import pids_of
from tests.cluster.submitted import Submitted
from tests.cluster.waiting import wait_until
from tests.faults.driving import ntksweep
from tests.faults.tables import numbers
from tests.root import ROOT

pytestmark = pytest.mark.xdist_group("cluster-a")

EXAMPLES = ROOT / "examples"


def quickstart(folder: Path) -> Path:
    """Write the quickstart's spec, with a third of its examples, into a folder; return its path."""
    folder.mkdir(exist_ok=True)
    (folder / "data").symlink_to(EXAMPLES / "data")
    spec = yaml.safe_load((EXAMPLES / "quickstart.yaml").read_text())
    path = folder / "quickstart.yaml"
    spec["task"]["n_eval"], spec["grid"]["n_train"] = 80, [160]
    # two allocations fit on a node, and each finds a part that nobody is at
    spec["compute"] = {"memory_budget": "1GB", "shard_examples": 40}
    spec["results"] = {"folder": str(folder / "results")}
    path.write_text(yaml.safe_dump(spec))
    return path


def finishers(sweep: Submitted) -> dict[str, set[str]]:
    """Return the processes that finished stages, by job."""
    found: dict[str, set[str]] = {}
    for event in read_journals(sweep.results / "journal"):
        if event["event"] == "finished":
            found.setdefault(event["job"], set()).add(event["journal"])
    return found


@pytest.mark.skipif(
    not (EXAMPLES / "data/minilm").is_dir(), reason="needs examples/data: python examples/fetch_quickstart.py"
)
def test_the_quickstart_gives_the_same_tables_on_two_nodes_and_two_further_allocations_at_once(
    login: Login, cluster: DevCluster, tmp_path: Path, new_sweep: NewSubmitted, nothing_left: Callable[[], None]
) -> None:
    local = quickstart(tmp_path / "local")
    answer = ntksweep("run", local, "--executor", "inline", folder=local.parent)
    assert answer.status == 0, answer.output

    sweep = new_sweep()
    sweep.spec = quickstart(sweep.folder)
    asked = {"memory": "1900MB", "sbatch": {"hold": True}}
    two_nodes = job_of(login.submit(sweep, nodes=2, **asked).output)
    array = job_of(login.submit(sweep, "--add", "--allocations=2", **asked).output, "2 allocations")
    # no allocation is done before the last one has its workers
    with sweep.held("gram"):
        cluster.run(["scontrol", "release", f"{two_nodes},{array}"])
        wait_until(lambda: len(pids_of(cluster, "ray::Worker")) == 4)
    assert login.must(sweep, "wait", sweep.results).count("COMPLETED") == 3
    sweep.ended_as_if_nothing_had_been(numbers(local.parent / "results"))
    found = finishers(sweep)
    assert len(found[two_nodes]) == 2
    assert found.keys() == {two_nodes, f"{array}_0", f"{array}_1"}
    nothing_left()


def test_an_allocation_joins_a_running_sweep_and_one_with_nothing_to_do_ends_at_once(
    login: Login,
    cluster: DevCluster,
    open_folder: Path,
    scratch: Path,
    tiny_model: Path,
    expected: dict[str, pa.Table],
    nothing_left: Callable[[], None],
) -> None:
    sweep = Submitted(cluster, open_folder / "sweep", tiny_model, scratch=scratch)
    login.umask = 0o077
    first = job_of(login.submit(sweep, results="everyone").output)
    with sweep.held("gram"):
        sweep.wait_for_events(10)
        refused = login.submit(sweep)
        assert refused.status == 2
        assert f"1 allocation of this sweep may still work on it: {first} (RUNNING)" in refused.output
        assert sweep.jobs() == [first]
        late = job_of(login.submit(sweep, "--add", results="everyone", sbatch={"hold": True}).output)
        driver = str(sweep.driver())
        cluster.run(["scontrol", "suspend", first])
        wait_until(lambda: cluster.run(["ps", "-o", "stat=", "-p", driver]).stdout.startswith("T"))
    second = job_of(login.submit(sweep, "--add", results="everyone").output)
    wait_until(lambda: second in finishers(sweep))
    cluster.run(["scontrol", "resume", first])
    wait_until(lambda: sweep.jobs() == [late])
    cluster.run(["scontrol", "release", late])
    assert login.must(sweep, "wait", sweep.results).count("COMPLETED") == 3
    sweep.ended_as_if_nothing_had_been(expected)
    assert finishers(sweep).keys() == {first, second}
    nothing_left()

    # The profile shares the results, whatever is private by the user's habit.
    hidden = cluster.run(["find", sweep.results, "!", "-readable"], user="nobody", cwd=Path("/"))
    assert (hidden.stdout, hidden.stderr) == ("", "")
    assert_logs_tell(login, sweep, first, second, late)


def assert_logs_tell(login: Login, sweep: Submitted, first: str, second: str, late: str) -> None:
    logs = login.must(sweep, "logs", sweep.results)
    assert all(f"/{job}_0_log.out <==" in logs for job in (first, second, late))
    assert "_nodes/" not in logs
    assert f"/{second}_nodes/ray-n" in login.must(sweep, "logs", sweep.results, "--job", second)
    of_second = json.loads(login.must(sweep, "logs", sweep.results, "--job", second, "--json"))
    assert {Path(each["path"]).name.partition("_")[0] for each in of_second if "_nodes" not in each["path"]} == {second}
    assert "60 cells in the tables, 0 stages failed" in login.must(sweep, "logs", sweep.results, "--job", late)
    unknown = login.run(sweep, "logs", sweep.results, "--job", "999")
    assert (unknown.status, "there are no logs of job 999" in unknown.output) == (2, True)

    (cell,) = orchestrator.load(sweep.results).cells.to_arrow(["cell_id"]).slice(0, 1).to_pylist()
    told = login.must(sweep, "logs", sweep.results, "--cell", cell["cell_id"]).splitlines()
    assert [line.split()[2:4] for line in (told[0], told[-1])] == [["started", "dataset"], ["finished", "solve"]]
    assert {re.sub(".*, job ", "", line) for line in told} <= {first, second}


def job_of(output: str, allocations: str = "1 allocation") -> str:
    """Return the number of the job that `submit` says that it has submitted, for so many allocations."""
    found = re.search(rf"submitted job (\d+): {allocations}\n", output)
    assert found is not None, output
    return found[1]
