"""A profile is held against what a cluster has; every fault is told at once, with what would fit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slurm.errors import ProfileError
from slurm.profile.profile import Profile
from slurm.query import listings, shared_folder
from slurm.query.check import check_profile
from slurm.query.facts import Accounts, ClusterFacts
from slurm.query.fitting import refuse_mixed_gpus
from slurm.query.listings import NodeType, Partition

SMALL = NodeType(3, 4, 4000, {"fake": 2}, frozenset({"emulated"}))
BIG = NodeType(2, 64, 512_000, {"a100": 4}, frozenset({"big", "ib"}))
WIDE = NodeType(1, 128, 64_000, {"": 8}, frozenset({"ib"}))


@pytest.fixture(autouse=True)
def _no_mounts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the tests independent of the place of this machine's files."""
    monkeypatch.setattr(shared_folder, "_MOUNTS", Path("/nonexistent"))


def partition(name: str, *types: NodeType, **changes: Any) -> Partition:
    return replace(Partition(name, False, "UP", types, None, None, None, None, {}, {}), **changes)


PARTITIONS = [
    partition("main", SMALL, default=True),
    partition("gpu", BIG, WIDE, max_minutes=2880, max_nodes=2, allowed={"accounts": frozenset({"nlp"})}),
    partition("guest", SMALL, denied={"qos": frozenset({"long"})}, max_cpus=2, max_mebibytes=2000),
    partition("closed", SMALL, state="DRAIN"),
    partition("resting", SMALL, state="DOWN"),
]
DEFAULT, ASSOCIATIONS = listings.associations("nlp|nlp||long,normal|normal|\nnlp|vision||normal||")
ACCOUNTS = Accounts("ada", DEFAULT, ASSOCIATIONS, listings.qualities("normal|||\nlong|||1-00:00:00"), {}, enforced=True)
FACTS = ClusterFacts("22.05.8", "deep", 1001, True, {each.name: each for each in PARTITIONS}, ACCOUNTS)
RESULTS = Path("/home/ada/results")


def checked(facts: ClusterFacts = FACTS, results: Path = RESULTS, **changes: Any) -> None:
    profile = Profile.model_validate({"memory": "2G", "time_limit": "1h"} | changes)
    check_profile(profile, facts, results=results)


def faults(facts: ClusterFacts = FACTS, results: Path = RESULTS, **changes: Any) -> list[str]:
    with pytest.raises(ProfileError) as raised:
        checked(facts, results, **changes)
    heading, *lines = str(raised.value).splitlines()
    assert heading.startswith(f"the profile does not fit the cluster deep ({len(lines)} fault")
    return [line.removeprefix("  ") for line in lines]


def test_a_profile_for_gpus_of_several_types_is_refused_where_the_bits_are_to_be_the_same() -> None:
    other = replace(BIG, gpus={"h100": 8})
    partitions = {"gpu": partition("gpu", BIG, other, WIDE), "one": partition("one", BIG, WIDE)}
    facts = replace(FACTS, partitions=partitions)

    def wanted(**changes: Any) -> Profile:
        given = {"memory": "2G", "time_limit": "1h", "partition": "gpu", "gpus_per_task": 1} | changes
        return Profile.model_validate(given)

    with pytest.raises(ProfileError, match=r"partition gpu has GPUs of the types a100, h100, and .* name one"):
        refuse_mixed_gpus(wanted(), facts)
    for fitting in ({"gpu_type": "h100"}, {"partition": "one"}, {"gpus_per_task": 0}):
        refuse_mixed_gpus(wanted(**fitting), facts)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"partition": "gpu", "nodes": 2, "tasks_per_node": 4, "cpus_per_task": 16, "gpus_per_task": 1,
         "gpu_type": "a100", "memory": "500G", "time_limit": "2d", "constraint": "big&ib"},
        {"partition": "gpu", "gpus_per_task": 8},
        {"partition": "gpu", "gpus_per_task": 8, "constraint": "big|ib"},
        {"partition": "gpu", "constraint": "[big*1&ib*1]"},
        {"partition": "gpu", "account": "nlp", "qos": "normal"},
        {"partition": "main,gpu", "nodes": 3},
        {"partition": "gpu,main", "nodes": 3},
        {"partition": "guest", "memory": "2000M", "cpus_per_task": 2},
        {"partition": "resting"},
        {"account": "vision"},
        {"qos": "long"},
        {"slurm": ">=21.08,<23"},
        {"nodes": 3, "tasks_per_node": 2, "cpus_per_task": 2, "gpus_per_task": 1, "memory": "4000M"},
    ],
)  # fmt: skip
def test_what_the_cluster_has_is_accepted(changes: dict[str, Any]):
    checked(**changes)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"partition": "gpus"}, "partition: there is no partition `gpus`; did you mean `gpu`?"),
        ({"partition": "xyz"}, "partition: there is no partition `xyz`; there are: closed, gpu, guest, main, resting"),
        ({"partition": "main,gup"}, "partition: there is no partition `gup`; did you mean `gpu`?"),
        ({"partition": "closed"}, "partition: closed takes no jobs at the moment (state DRAIN); choose another"),
        ({"account": "nlq"}, "account: ada has no account `nlq`; did you mean `nlp`?"),
        ({"account": "physics"}, "account: ada has no account `physics`; there are: nlp, vision"),
        ({"partition": "gpu", "account": "vision"},
         "account: partition gpu does not take account `vision`; there are: nlp"),
        ({"qos": "lnog"}, "qos: there is no quality of service `lnog`; did you mean `long`?"),
        ({"account": "vision", "qos": "long"}, "qos: account vision may not use `long`; it may use normal"),
        ({"partition": "guest", "qos": "long", "memory": "1G"},
         "qos: partition guest does not take qos `long`; choose another"),
        ({"partition": "gpu", "time_limit": "3d"}, "time_limit: 3d is more than the 2d that partition gpu allows"),
        ({"qos": "long", "time_limit": "25h"}, "time_limit: 1d1h is more than the 1d that qos long allows"),
        ({"gpus_per_task": 1, "gpu_type": "fale"},
         "gpu_type: partition main has no GPUs of type `fale`; did you mean `fake`?"),
        ({"gpus_per_task": 1, "gpu_type": "a100"},
         "gpu_type: partition main has no GPUs of type `a100`; some are in gpu"),
        ({"gpus_per_task": 3, "gpu_type": "fake"},
         "gpus_per_task: 1 worker with 3 GPUs each need 3 on a node; a node of partition main has 2 at most"),
        ({"tasks_per_node": 2, "cpus_per_task": 3},
         "cpus_per_task: 2 workers with 3 CPUs each need 6 on a node; a node of partition main has 4 at most"),
        ({"partition": "guest", "memory": "1G", "cpus_per_task": 3},
         "cpus_per_task: 1 worker with 3 CPUs each need 3 on a node; a node of partition guest has 2 at most"),
        ({"memory": "4001MiB"},
         "memory: 4001 MiB is more than a node of partition main has; it has 4000 MiB at most, write 4000MiB"),
        ({"partition": "guest", "memory": "2001MiB"},
         "memory: 2001 MiB is more than a node of partition guest has; it has 2000 MiB at most, write 2000MiB"),
        ({"partition": "gpu", "constraint": "big|wide"},
         "constraint: no node of partition gpu has the feature `wide`; there are: big, ib"),
        ({"constraint": "emulatde"}, "constraint: no node of partition main has the feature `emulatde`; did you mean "
         "`emulated`?"),
        ({"nodes": 4}, "nodes: partition main has 3 nodes, the profile asks for 4"),
        ({"partition": "gpu", "nodes": 3},
         "nodes: partition gpu gives a job at most 2 nodes, the profile asks for 3"),
        ({"partition": "gpu", "nodes": 2, "gpus_per_task": 8},
         "nodes: partition gpu has 1 of 3 nodes with all that is asked for, the profile asks for 2"),
        ({"partition": "gpu", "cpus_per_task": 100, "memory": "100G"},
         "nodes: partition gpu has 0 of 3 nodes with all that is asked for, the profile asks for 1; its nodes: "
         "2 with 64 CPUs, 512000 MiB, 4 a100 (big, ib); 1 with 128 CPUs, 64000 MiB, 8 GPUs (ib)"),
        ({"partition": "gpu", "cpus_per_task": 100, "constraint": "big"},
         "nodes: partition gpu has 0 of 3 nodes with all that is asked for, the profile asks for 1; its nodes: "
         "2 with 64 CPUs, 512000 MiB, 4 a100 (big, ib); 1 with 128 CPUs, 64000 MiB, 8 GPUs (ib)"),
        ({"slurm": ">=23.02"}, "slurm: this cluster runs Slurm 22.05.8, the profile was written for >=23.02; see "
         "whether it still holds, then change `slurm`"),
        ({"slurm": "<22"}, "slurm: this cluster runs Slurm 22.05.8, the profile was written for <22; see "
         "whether it still holds, then change `slurm`"),
    ],
)  # fmt: skip
def test_what_the_cluster_cannot_give_is_named_with_what_would_fit(changes: dict[str, Any], fault: str):
    assert faults(**changes) == [fault]


def test_all_faults_are_told_at_once():
    found = faults(account="nlq", partition="gpu", time_limit="3d", nodes=9, cpus_per_task=999, slurm=">=30")
    assert [fault.partition(":")[0] for fault in found] == [
        "slurm", "account", "account", "time_limit", "cpus_per_task", "nodes",
    ]  # fmt: skip


def test_a_cluster_without_a_default_partition_wants_one_named():
    facts = replace(FACTS, partitions={"gpu": FACTS.partitions["gpu"]})
    assert faults(facts) == ["partition: the cluster has no default partition; name one of gpu"]


def test_a_partition_without_nodes_can_give_nothing():
    facts = replace(FACTS, partitions={"empty": partition("empty", default=True)})
    assert any(fault.startswith("cpus_per_task: ") for fault in faults(facts))


def test_without_accounting_accounts_are_not_judged():
    checked(replace(FACTS, accounting=False, accounts=None), account="any", qos="any")


def test_a_user_without_an_account_is_told_what_to_do():
    none = replace(ACCOUNTS, associations=(), default=None)
    assert faults(replace(FACTS, accounts=none)) == [
        "account: ada has no account on this cluster; ask its administrators for one"
    ]
    free = replace(none, enforced=False)
    checked(replace(FACTS, accounts=free))
    assert faults(replace(FACTS, accounts=free), account="nlp") == [
        "account: ada has no account on this cluster for `nlp`; remove `account`: it is not needed"
    ]


@pytest.mark.parametrize(
    ("version", "wanted"),
    [("23.11.0-0rc1", ">=23.02"), ("24.05.0-0pre1", ">=24.05"), ("22.05.8", "==22.05.*"), ("unreadable", ">=99")],
)
def test_any_version_that_slurm_may_have_is_read(version: str, wanted: str):
    checked(replace(FACTS, version=version), slurm=wanted)


def test_a_release_candidate_that_is_too_old_is_refused():
    (fault,) = faults(replace(FACTS, version="23.11.0-0rc1"), slurm=">=24")
    assert fault.startswith("slurm: this cluster runs Slurm 23.11.0-0rc1, the profile was written for >=24")


# --- the results folder


def test_results_must_lie_under_shared_scratch_if_the_profile_names_any(tmp_path: Path):
    shared = tmp_path / "shared"
    (shared / "mine").mkdir(parents=True)
    (tmp_path / "link").symlink_to(shared / "mine")
    for folder in (shared, shared / "mine/new/sweep", tmp_path / "link/sweep"):
        checked(results=folder, shared_scratch=[shared, "/elsewhere"])
    assert faults(results=tmp_path / "shared2", shared_scratch=[shared, "/elsewhere"]) == [
        f"results: {tmp_path}/shared2 is under none of the profile's shared_scratch ({shared}, /elsewhere), so the "
        "nodes may not see it; set the spec's results.folder, or add the folder to shared_scratch if they do"
    ]


def test_results_on_a_disk_of_each_node_are_refused_unless_they_are_said_to_be_shared(tmp_path: Path):
    fault = (
        f"results: {tmp_path}/results is under {tmp_path}, which every node has of its own (the profile's "
        "local_scratch); set the spec's results.folder to a folder that every node sees, or list it in shared_scratch "
        "if they do"
    )
    assert faults(results=tmp_path / "results", local_scratch=tmp_path) == [fault]
    checked(results=tmp_path / "results", local_scratch=tmp_path, shared_scratch=[tmp_path])


def test_results_in_the_memory_of_this_machine_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    mounts = tmp_path / "mounts"
    mounts.write_text("d / ext4 rw 0 0\nt /mem tmpfs rw 0 0\nn /mem/nfs nfs4 rw 0 0\nt /a\\040b tmpfs rw 0 0\n")
    monkeypatch.setattr(shared_folder, "_MOUNTS", mounts)
    for folder in ("/home/x", "/mem/nfs/x", "/memory"):
        checked(results=Path(folder))
    for folder in ("/mem", "/mem/x/y", "/a b/x"):
        (fault,) = faults(results=Path(folder))
        assert fault.startswith(f"results: {folder} is on tmpfs, in the memory of this machine; set the spec's")
    checked(results=Path("/mem/x"), shared_scratch=["/mem"])
    mounts.unlink()
    checked(results=Path("/mem"))


def test_a_relative_results_folder_is_one_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    checked(results=Path("results/x"), shared_scratch=[tmp_path])
    assert f"results: {tmp_path}/results/x" in faults(results=Path("results/x"), shared_scratch=["/elsewhere"])[0]
