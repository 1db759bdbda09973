"""The nodes of an allocation and the addresses at which they reach each other."""

import re
import socket

from slurm.errors import CommandError, SlurmError
from slurm.query.commands import run_command


class NodeAddressError(SlurmError):
    """Slurm names no address for a node, or one that cannot be resolved."""


def node_addresses(nodelist: str) -> dict[str, str]:
    """Return the IP address of every node of a Slurm node list, in the order of the list.

    They are the addresses that Slurm itself uses, not the names of the hosts: several nodes can be one host, and a name
    may lead to a network that the other nodes are not on.

    Args:
        nodelist: as in SLURM_JOB_NODELIST, such as "n[1-3,7]".

    Raises:
        NodeAddressError: a node has no address, or one that cannot be resolved.
    """
    names = run_command("scontrol", "show", "hostnames", nodelist).split()
    described = parse_addresses(run_command("scontrol", "show", "node", nodelist, "--oneliner"))
    return {name: _resolved(name, described.get(name)) for name in names}


def parse_addresses(text: str) -> dict[str, str]:
    """Return the NodeAddr of every node that `scontrol show node --oneliner` describes."""
    found = {}
    for line in text.splitlines():
        fields = dict(re.findall(r"(?:^|\s)(NodeName|NodeAddr)=(\S+)", line))
        if {"NodeName", "NodeAddr"} <= fields.keys():
            found[fields["NodeName"]] = fields["NodeAddr"]
    return found


def is_down(node: str) -> bool:
    """Return whether Slurm says that nothing can be started on a node any more; False if it does not answer."""
    try:
        # The caller has an allocation to look after meanwhile, so that this is tried only once.
        text = run_command("scontrol", "show", "node", node, "--oneliner", timeout=5, patience=0)
    except CommandError:
        return False
    return state_is_down(text)


def state_is_down(text: str) -> bool:
    """Return whether a node that `scontrol show node --oneliner` describes is down or does not respond (a star)."""
    state = re.search(r"(?:^|\s)State=(\S+)", text)
    return state is not None and re.search(r"DOWN|FAIL|NOT_RESPONDING|\*", state[1]) is not None


def _resolved(name: str, address: str | None) -> str:
    if address is None:
        raise NodeAddressError(f"Slurm knows no address of node {name}; see `scontrol show node {name}`")
    try:
        # Ray is told IPv4 addresses, which every cluster has; the family of Slurm's own answer is not asked for.
        found = socket.getaddrinfo(address, None, family=socket.AF_INET, type=socket.SOCK_STREAM)
    except OSError as error:
        raise NodeAddressError(
            f"the address {address} of node {name} cannot be resolved on {socket.gethostname()} ({error}); "
            f"see `scontrol show node {name}` and ask the administrators"
        ) from None
    return str(found[0][4][0])
