"""Each Ray node on a host has ports for itself."""

import socket
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm.ray.ports import SLOT_PORTS, NoPortsError, ephemeral_range, held_ports, is_free, slot_starts


def test_nodes_of_one_job_and_of_other_jobs_get_different_ports() -> None:
    with ExitStack() as stack:
        held = [stack.enter_context(held_ports(40, job, rank)) for job in (7, 8) for rank in (0, 1)]
        held.append(stack.enter_context(held_ports(40, 7, 0)))  # an array's task on the same host, say
        ports = [port for each in held for port in each]
        assert len(ports) == len(set(ports)) == 5 * 40


def test_a_job_gets_the_same_ports_again_after_it_let_go() -> None:
    with held_ports(10, 4321, 0) as first:
        pass
    with held_ports(10, 4321, 0) as second:
        assert first == second


def test_ports_that_anything_listens_on_are_passed_over() -> None:
    with held_ports(10, 4321, 0) as wanted:
        pass
    with socket.create_server(("127.0.0.1", wanted[3])), held_ports(10, 4321, 0) as others:
        assert not set(wanted) & set(others)


def test_what_holds_a_slot_cannot_be_connected_to() -> None:
    with held_ports(10, 4321, 0) as ports:
        assert not is_free(ports[0] - 1)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", ports[0] - 1), timeout=5)
        assert all(map(is_free, ports))


def test_none_is_among_the_ports_that_linux_gives_to_anyone() -> None:
    with held_ports(150, 99, 3) as ports:
        assert len(set(ports)) == 150
        assert not set(ports) & set(ephemeral_range())


def test_the_user_is_told_when_no_ports_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slurm.ray.ports.slot_starts", lambda width, ephemeral: [])
    with pytest.raises(NoPortsError, match=r"no 10 ports are free side by side on .* `ss -tlnp`"), held_ports(10, 1, 0):
        pass


@given(st.integers(1, 20), st.integers(1024, 65535), st.integers(0, 60_000))
def test_every_place_lies_outside_the_ephemeral_ports_if_that_is_possible(width: int, lowest: int, length: int) -> None:
    ephemeral = range(lowest, min(65536, lowest + length))
    starts = slot_starts(width, ephemeral)
    blocks = [range(start, start + width * SLOT_PORTS) for start in starts]
    assert starts
    assert all(block.start >= 10_000 and block.stop <= 65_536 for block in blocks)
    room = max(min(lowest, 65_536) - 10_000, 65_536 - max(ephemeral.stop, 10_000))
    if room > width * SLOT_PORTS:
        assert not any(set(block) & set(ephemeral) for block in (blocks[0], blocks[-1]))
