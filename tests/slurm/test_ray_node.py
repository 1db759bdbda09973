"""Ray on a node gets what the allocation has there, and ports of its own for everything."""

import re
from pathlib import Path

import pytest

from slurm.ray.node import _parser, ray_command

PORTS = range(20_000, 20_080)

GIVEN = [
    *("--address=127.0.1.2", "--job=7", "--rank=1", "--workers=4", "--gpus=2", "--memory=3000000000"),
    *("--object-store=200000000", "--scratch=/tmp"),
]


def _command(*more: str) -> list[str]:
    return ray_command(_parser().parse_args([*GIVEN, *more]), Path("/tmp/ntk-1/ray"), PORTS)


def _ports(command: list[str]) -> list[int]:
    given = [word.partition("=")[2] for word in command if re.match(r"--[a-z-]*port(-list)?=", word)]
    return [int(port) for ports in given for port in ports.split(",")]


def test_every_port_is_one_of_those_held_and_used_once() -> None:
    for command in (_command(), _command("--join=127.0.1.1:19000"), _command("--dashboard")):
        ports = _ports(command)
        assert len(ports) == len(set(ports)) >= 6 + 2 * 4
        assert set(ports) <= set(PORTS)


def test_the_head_is_reached_at_the_first_port() -> None:
    assert f"--port={PORTS[0]}" in _command()
    assert "--head" in _command()
    joining = _command("--join=127.0.1.1:19000")
    assert "--address=127.0.1.1:19000" in joining
    assert not {"--head", "--port", "--include-dashboard"} & {word.partition("=")[0] for word in joining}


def test_ray_counts_what_the_allocation_has_and_not_what_the_host_has() -> None:
    given = {"--num-cpus=4", "--num-gpus=2", "--memory=3000000000", "--object-store-memory=200000000"}
    assert given <= set(_command())
    assert "--node-ip-address=127.0.1.2" in _command()
    assert not any(word.startswith("--memory") for word in _command("--memory=0"))


def test_the_dashboard_runs_only_if_asked_for_and_on_the_loopback_address() -> None:
    assert "--include-dashboard=False" in _command()
    assert {"--include-dashboard=True", "--dashboard-host=127.0.0.1"} <= set(_command("--dashboard"))


def test_objects_lie_in_the_private_folder_where_shared_memory_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not any("plasma" in word for word in _command())
    monkeypatch.setattr("slurm.ray.needs.SHARED_MEMORY", tmp_path / "missing")
    assert "--plasma-directory=/tmp/ntk-1" in _command()
