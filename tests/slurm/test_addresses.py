"""Nodes are reached at the addresses that Slurm has for them."""

from collections.abc import Callable

import pytest

from slurm.ray.addresses import NodeAddressError, node_addresses, parse_addresses, state_is_down

DESCRIBED = """\
NodeName=n1 Arch=x86_64 CoresPerSocket=1  CPUAlloc=0 Gres=gpu:fake:2 NodeAddr=127.0.1.1 NodeHostName=vm Port=17001 \
State=IDLE ThreadsPerCore=1
NodeName=n2 Arch=x86_64 NodeAddr=localhost NodeHostName=vm Port=17002 State=MIXED+DRAIN Reason=NodeAddr? [root@now]
"""


def _answering(monkeypatch: pytest.MonkeyPatch, describe: Callable[[str], str]) -> None:
    def run(*argv: str, **_: object) -> str:
        return "n1\nn2\n" if "hostnames" in argv else describe(argv[-2])

    monkeypatch.setattr("slurm.ray.addresses.run_command", run)


def test_the_address_of_a_node_is_read_from_scontrol() -> None:
    assert parse_addresses(DESCRIBED) == {"n1": "127.0.1.1", "n2": "localhost"}


def test_addresses_come_in_the_order_of_the_node_list_and_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    _answering(monkeypatch, lambda nodes: "\n".join(reversed(DESCRIBED.splitlines())))
    assert list(node_addresses("n[1-2]").items()) == [("n1", "127.0.1.1"), ("n2", "127.0.0.1")]


def test_a_node_without_an_address_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _answering(monkeypatch, lambda nodes: DESCRIBED.splitlines()[0])
    with pytest.raises(NodeAddressError, match=r"no address of node n2; see `scontrol show node n2`"):
        node_addresses("n[1-2]")


def test_an_address_that_cannot_be_resolved_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _answering(monkeypatch, lambda nodes: DESCRIBED.replace("localhost", "nowhere.invalid"))
    with pytest.raises(NodeAddressError, match=r"address nowhere\.invalid of node n2 cannot be resolved"):
        node_addresses("n[1-2]")


@pytest.mark.parametrize(
    ("state", "down"),
    [
        *(("IDLE", False), ("MIXED+DRAIN", False), ("ALLOCATED", False), ("COMPLETING", False)),
        *(("DOWN", True), ("DOWN*", True), ("IDLE*", True), ("ALLOCATED+NOT_RESPONDING", True), ("FAIL", True)),
    ],
)
def test_a_node_is_down_if_nothing_can_be_started_there(state: str, down: bool) -> None:
    assert state_is_down(f"NodeName=n1 Arch=x86_64 State={state} ThreadsPerCore=1") == down
