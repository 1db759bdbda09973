"""On a real Slurm: what a profile asks for is judged before anything is submitted."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster.unfit_nodes import without_unfit_nodes
from orchestrator.sweep.folder import ResultsFolder
from slurm.devcluster import DevCluster
from slurm.errors import ProfileError
from slurm.profile.profile import Profile
from slurm.query.check import check_profile, try_script
from slurm.query.facts import ClusterFacts, read_facts
from slurm.query.listings import NodeType
from slurm.submit.submission import array_sizes
from tests.cluster.clients import login_node, submit
from tests.cluster.waiting import wait_until
from tests.slurm.programs import Programs

pytestmark = pytest.mark.xdist_group("cluster-c")


@pytest.fixture
def programs(cluster: DevCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    return login_node(cluster, tmp_path, monkeypatch)


def manage(cluster: DevCluster, *arguments: str) -> None:
    cluster.run(["sacctmgr", "--immediate", *arguments])


@pytest.fixture(scope="module")
def accounts(cluster: DevCluster) -> Iterator[None]:
    """An account `nlp` in which the user may have seven jobs, beside the one that there is."""
    manage(cluster, "add", "account", "nlp")
    manage(cluster, "add", "user", "root", "account=nlp", "MaxSubmitJobs=7")
    manage(cluster, "add", "qos", "long", "MaxWall=2-0")
    manage(cluster, "modify", "account", "nlp", "set", "qos+=long")
    yield
    manage(cluster, "delete", "user", "root", "account=nlp")
    manage(cluster, "delete", "account", "nlp")
    manage(cluster, "delete", "qos", "long")


@pytest.fixture(scope="module")
def facts(cluster: DevCluster, accounts: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterFacts]:
    """The facts, read by nothing but programs that ask."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        programs = login_node(cluster, tmp_path_factory.mktemp("facts"), monkeypatch)
        yield read_facts()
        assert {call.partition(" ")[0] for call in programs.calls()} == {"scontrol", "sinfo", "sacctmgr", "squeue"}


def checked(results: Path, facts: ClusterFacts, **changes: Any) -> None:
    profile = Profile.model_validate({"memory": "500MB", "time_limit": "5m"} | changes)
    check_profile(profile, facts, results=results)


def test_the_facts_are_those_of_the_cluster(programs: Programs, cluster: DevCluster):
    facts = read_facts()
    assert facts.version == cluster.run(["sinfo", "--version"]).stdout.split()[-1]
    assert (facts.max_array_size, facts.accounting) == (1001, True)
    assert list(facts.partitions) == ["main", "high", "small"]
    main, _, small = facts.partitions.values()
    settings = cluster.settings
    assert main.node_types == (
        NodeType(3, settings.cpus, settings.memory_mb, {"fake": settings.gpus}, frozenset({"emulated"})),
    )
    assert (main.default, main.max_minutes, small.max_minutes, small.max_nodes) == (True, None, 10, 1)
    assert facts.accounts is not None
    assert (facts.accounts.user, facts.accounts.default) == ("root", "root")
    assert len(programs.calls()) == 6


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"partition": "mian"}, "partition: there is no partition `mian`; did you mean `main`?"),
        ({"account": "nlq"}, "account: root has no account `nlq`; did you mean `nlp`?"),
        ({"qos": "lng"}, "qos: there is no quality of service `lng`; did you mean `long`?"),
        ({"qos": "long"}, "qos: account root may not use `long`; it may use normal"),
        ({"gpus_per_task": 1, "gpu_type": "a100"}, "partition main has no GPUs of type `a100`; there are: fake"),
        ({"gpus_per_task": 3}, "a node of partition main has 2 at most"),
        ({"nodes": 4}, "nodes: partition main has 3 nodes, the profile asks for 4"),
        ({"partition": "small", "nodes": 2}, "nodes: partition small gives a job at most 1 node"),
        ({"tasks_per_node": 5}, "cpus_per_task: 5 workers with 1 CPU each need 5 on a node"),
        ({"memory": "5GB"}, "memory: 4768 MiB is more than a node of partition main has; it has 4000 MiB at most"),
        ({"partition": "small", "time_limit": "11m"}, "11m is more than the 10m that partition small allows"),
        ({"account": "nlp", "qos": "long", "time_limit": "3d"}, "3d is more than the 2d that qos long allows"),
        ({"constraint": "emulator"}, "constraint: no node of partition main has the feature `emulator`; did you mean"),
        ({"slurm": "<1"}, "slurm: this cluster runs Slurm "),
    ],
)  # fmt: skip
def test_what_the_cluster_cannot_give_is_told_before_anything_is_submitted(
    facts: ClusterFacts, tmp_path: Path, changes: dict[str, Any], expected: str
):
    with pytest.raises(ProfileError) as raised:
        checked(tmp_path, facts, shared_scratch=[tmp_path], **changes)
    assert expected in str(raised.value)
    assert "(1 fault)" in str(raised.value)


@pytest.mark.parametrize(
    "changes",
    [
        {
            "nodes": 3,
            "tasks_per_node": 2,
            "cpus_per_task": 2,
            "gpus_per_task": 1,
            "gpu_type": "fake",
            "memory": "4000M",
        },
        {"partition": "small", "time_limit": "10m"},
        {"account": "nlp", "qos": "long", "time_limit": "2d", "constraint": "emulated", "slurm": ">=20"},
    ],
)
def test_what_the_cluster_has_is_accepted(facts: ClusterFacts, tmp_path: Path, changes: dict[str, Any]):
    checked(tmp_path, facts, shared_scratch=[tmp_path], **changes)


def test_results_on_a_disk_of_the_login_node_are_refused(facts: ClusterFacts, tmp_path: Path):
    with pytest.raises(ProfileError, match="which every node has of its own"):
        checked(tmp_path / "results", facts, local_scratch=tmp_path)


def test_slurm_itself_takes_a_job_that_is_longer_than_its_partition_allows_and_never_starts_it(cluster: DevCluster):
    job = submit(cluster, "true", "--partition=small", "--time=11")
    query = ["squeue", "--noheader", f"--jobs={job}", "--format=%r"]
    wait_until(lambda: cluster.run(query).stdout.strip() == "PartitionTimeLimit")


@pytest.mark.usefixtures("accounts", "programs")
def test_jobs_that_are_queued_count_against_the_limit_of_the_account(cluster: DevCluster):
    assert read_facts().free_submissions("nlp", None) == 7
    submit(cluster, "true", "--hold", "--account=nlp", "--array=0-3")
    submit(cluster, "true", "--hold")
    facts = read_facts()
    free = facts.free_submissions("nlp", None)
    assert free == 3
    assert facts.free_submissions(None, None) is None
    assert array_sizes(10, max_array_size=facts.max_array_size, free_submissions=free) == [3]


@pytest.mark.usefixtures("programs")
def test_while_the_database_is_away_everything_but_accounts_is_judged(cluster: DevCluster, tmp_path: Path):
    cluster.kill("slurmdbd")
    facts = read_facts()
    assert facts.accounting
    assert facts.accounts is None
    with pytest.raises(ProfileError, match="did you mean `main`"):
        checked(tmp_path, facts, shared_scratch=[tmp_path], partition="mian", account="any")


@pytest.mark.usefixtures("programs")
def test_a_controller_that_restarts_is_waited_for(cluster: DevCluster):
    cluster.kill("slurmctld")
    starting = threading.Timer(2, cluster.start, ["slurmctld"])
    starting.start()
    begun = time.monotonic()
    assert list(read_facts().partitions) == ["main", "high", "small"]
    assert time.monotonic() - begun > 1
    starting.join()


@pytest.mark.usefixtures("programs")
def test_nodes_with_an_unfit_gpu_are_left_out_unless_too_few_are_left(tmp_path: Path):
    folder, facts = ResultsFolder(tmp_path), read_facts()
    profile = Profile.model_validate({"memory": "1GB", "time_limit": "1h", "gpus_per_task": 1, "exclude": "n3"})
    for host in ("n1", "elsewhere"):
        folder.journal().write("unfit_gpu", host=host, message=f"the GPU of {host} failed: ECC")
    assert without_unfit_nodes(profile, facts, folder) == (
        profile.model_copy(update={"exclude": "n3,n1"}),
        {"n1": "the GPU of n1 failed: ECC"},
    )
    two = profile.model_copy(update={"nodes": 2})
    assert without_unfit_nodes(two, facts, folder) == (two, {})
    on_processors = profile.model_copy(update={"gpus_per_task": 0})
    assert without_unfit_nodes(on_processors, facts, folder) == (on_processors, {})


SCRIPT = "#!/bin/bash\n#SBATCH --mem=100\n#SBATCH {}\nsrun true\n"


@pytest.mark.usefixtures("programs")
def test_slurm_judges_the_script_itself(cluster: DevCluster):
    assert "to start at" in try_script(SCRIPT.format("--array=0-3"))
    for option in ("--licenses=none:1", "--exclude=n99", "--reservation=none", "--nonsense=1"):
        with pytest.raises(ProfileError, match=r"Slurm would refuse the job: .+; change the profile"):
            try_script(SCRIPT.format(option))
    assert cluster.run(["squeue", "--noheader"]).stdout == ""


@pytest.mark.usefixtures("programs")
def test_nodes_that_are_drained_for_the_moment_are_no_fault_of_the_script(cluster: DevCluster):
    cluster.run(["scontrol", "update", "nodename=n[1-3]", "state=drain", "reason=test"])
    assert try_script(SCRIPT.format("--nodes=3")).startswith("no nodes can take this at the moment")
