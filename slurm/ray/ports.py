"""Ports reserved for one Ray node on a host that it shares with other jobs and other users."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from slurm.errors import SlurmError

SLOT_PORTS = 64
"""Ports of a slot: the first holds it, the others are used. A node that needs more takes slots side by side."""

LOWEST_PORT = 10_000
HIGHEST_PORT = 65_535

EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""File with the range of ports from which Linux assigns one to a process that asks for any port."""

STRIDE = 37
"""Slots between the first choices of neighboring jobs: more than a job has nodes on one host."""


class NoPortsError(SlurmError):
    """No ports are free on this host."""


@contextmanager
def held_ports(count: int, job: int, rank: int) -> Iterator[tuple[int, ...]]:
    """Hold free ports for as long as the context lasts.

    Every job begins at a slot of its own and moves on past slots that are taken. The first port of a slot is bound,
    but not listened on: no process of any user can bind it, and so take the slot, until this one lets go or ends.

    Args:
        count: how many ports are needed.
        job: number of the job; decides where the search begins.
        rank: number of the start of Ray within the job.

    Yields:
        `count` ports that nothing is bound to.

    Raises:
        NoPortsError: no slots side by side are free.
    """
    width = -(-count // (SLOT_PORTS - 1))
    firsts = slot_starts(width, ephemeral_range())
    begin = (job * STRIDE + rank * width) % max(1, len(firsts))
    for first in firsts[begin:] + firsts[:begin]:
        holders = range(first, first + width * SLOT_PORTS, SLOT_PORTS)
        ports = [port for holder in holders for port in range(holder + 1, holder + SLOT_PORTS)][:count]
        with ExitStack() as held:
            try:
                for holder in holders:
                    held.enter_context(_bound(holder, reuse=False))
            except OSError:
                continue
            if all(map(is_free, ports)):
                yield tuple(ports)
                return
    raise NoPortsError(
        f"no {count} ports are free side by side on {socket.gethostname()}; see with `ss -tlnp` what holds them, or "
        "ask for nodes without other jobs (`exclusive: true` under `sbatch` in the profile)"
    )


def slot_starts(width: int, ephemeral: range) -> list[int]:
    """Return the first ports of all places where `width` slots fit, outside the `ephemeral` ports."""
    below = range(LOWEST_PORT, min(ephemeral.start, HIGHEST_PORT))
    above = range(max(ephemeral.stop, LOWEST_PORT), HIGHEST_PORT + 1)
    usable = max(below, above, key=len)
    # A host that gives out nearly all ports leaves no choice: slots lie among those then, and are tested like others.
    if len(usable) < width * SLOT_PORTS:
        usable = range(LOWEST_PORT, HIGHEST_PORT + 1)
    return list(range(usable.start, usable.stop - width * SLOT_PORTS + 1, SLOT_PORTS))


def ephemeral_range() -> range:
    """Return the ports from which this host assigns one to a process that asks for any port."""
    lowest, highest = map(int, EPHEMERAL_RANGE.read_text().split())
    return range(lowest, highest + 1)


def is_free(port: int) -> bool:
    """Return whether nothing is bound to a port on any address of this host."""
    try:
        # Remains of closed connections do not matter: Ray does not wait for them to go, either.
        _bound(port, reuse=True).close()
    except OSError:
        return False
    return True


def _bound(port: int, reuse: bool) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(reuse))
        bound.bind(("", port))
    except OSError:
        bound.close()
        raise
    return bound
