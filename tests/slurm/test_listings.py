"""Parsing of Slurm's output about a cluster."""

import pytest

from slurm.query import listings
from slurm.query.facts import Accounts
from slurm.query.listings import Association, NodeType, Qos
from tests.slurm import recorded


def test_settings_are_read_with_and_without_values():
    settings = listings.settings(recorded.CONFIG)
    assert settings["SLURM_VERSION"] == "22.05.8"
    assert settings["ClusterName"] == "devcluster"
    assert settings["PowerPlugin"] == ""
    assert settings["SlurmctldHost[0]"] == "devcluster(127.0.0.1)"


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({"MaxArraySize": "1001"}, 1001),
        ({"MaxArraySize": "1001", "SchedulerParameters": "bf_interval=2,max_array_tasks=50"}, 50),
        ({"MaxArraySize": "1001", "SchedulerParameters": "max_array_tasks=100000"}, 1001),
        ({"MaxArraySize": "0"}, 0),
    ],
)
def test_an_array_is_limited_by_its_numbers_and_by_its_tasks(settings: dict[str, str], size: int):
    assert listings.max_array_size(settings) == size


def test_partitions_have_their_limits_and_nodes():
    main, high, small = listings.partitions(recorded.PARTITIONS, recorded.NODES).values()
    assert (main.name, main.default, main.state, main.max_minutes, main.max_nodes) == ("main", True, "UP", None, None)
    assert (main.max_cpus, main.max_mebibytes, main.allowed, main.denied) == (None, None, {}, {})
    assert main.node_types == (
        NodeType(2, 4, 4000, {"fake": 2}, frozenset({"emulated"})),
        NodeType(1, 4, 4000, {"fake": 2}, frozenset({"emulated", "big"})),
    )
    assert (high.default, high.state, high.max_minutes, high.max_nodes) == (False, "DOWN", 60, 2)
    assert high.allowed == {"accounts": {"foo", "bar"}, "qos": {"normal"}}
    assert (small.max_minutes, small.max_nodes) == (10, 1)


@pytest.mark.parametrize(
    ("resources", "gpus"),
    [
        ("(null)", {}),
        ("gpu:2", {"": 2}),
        ("gpu:a100:4(S:0-1)", {"a100": 4}),
        ("gpu:a100:2(S:0),gpu:v100:1(S:0,1),shard:8", {"a100": 2, "v100": 1}),
        ("gpu:a100_1g.5gb:7,gpu:a100:1", {"a100_1g.5gb": 7, "a100": 1}),
        ("gpu:a100:2(S:0),gpu:a100:2(S:1)", {"a100": 4}),
        ("mps:200,bandwidth:lustre:no_consume:4G", {}),
    ],
)
def test_gpus_are_counted_by_type(resources: str, gpus: dict[str, int]):
    partitions = listings.partitions("PartitionName=p State=UP", f"p|1|4+|4000+|{resources}|(null)")
    assert partitions["p"].node_types == (NodeType(1, 4, 4000, gpus, frozenset()),)


def test_limits_on_nodes_and_exclusions_are_read():
    text = "PartitionName=p State=UP MaxCPUsPerNode=8 MaxMemPerNode=64000 DenyAccounts=guest DenyQos=long,slow"
    partition = listings.partitions(text, "")["p"]
    assert (partition.max_cpus, partition.max_mebibytes, partition.node_types) == (8, 64000, ())
    assert partition.denied == {"accounts": {"guest"}, "qos": {"long", "slow"}}


def test_accounts_of_a_user_are_read():
    default, associations = listings.associations(recorded.ASSOCIATIONS)
    assert default == "root"
    assert associations[1] == Association("nlp", None, frozenset({"long", "normal"}), None, 40)
    assert [each.account for each in associations] == ["vision", "nlp", "root"]
    assert listings.associations("") == (None, ())


def test_qualities_of_service_are_read():
    assert listings.qualities(recorded.QUALITIES) == {"normal": Qos(None, None), "long": Qos(30, 2880)}
    assert listings.qualities("busy|30|20|1-12:00:00") == {"busy": Qos(20, 2160)}


def test_queued_jobs_are_counted_by_account_and_quality_of_service():
    counted = listings.queued("nlp|long\nnlp|normal\nnlp|long\n")
    assert counted == {("nlp", "long"): 2, ("nlp", "normal"): 1}
    assert listings.queued("") == {}


def accounts(queued: dict[tuple[str, str], int]) -> Accounts:
    default, associations = listings.associations(recorded.ASSOCIATIONS)
    return Accounts("root", default, associations, listings.qualities(recorded.QUALITIES), queued, enforced=False)


@pytest.mark.parametrize(
    ("account", "qos", "queued", "free"),
    [
        (None, None, {("root", "normal"): 500}, None),
        ("nlp", None, {}, 40),
        ("nlp", None, {("nlp", "normal"): 15, ("nlp", "long"): 5, ("vision", "normal"): 3}, 20),
        ("nlp", "long", {("nlp", "normal"): 1}, 30),
        ("nlp", "long", {("nlp", "normal"): 15}, 25),
        (None, "long", {("vision", "long"): 28}, 2),
        ("nlp", "long", {("nlp", "long"): 90}, 0),
    ],
)
def test_free_submissions_are_what_the_tightest_limit_leaves(
    account: str | None, qos: str | None, queued: dict[tuple[str, str], int], free: int | None
):
    assert accounts(queued).free_submissions(account, qos) == free
