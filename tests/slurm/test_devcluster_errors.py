"""Messages about a development cluster that cannot run say why and what to do; no Slurm is needed to see that."""

import os
from datetime import datetime
from pathlib import Path

import pytest

from slurm.devcluster import ClusterSettings, DevCluster, requirements
from slurm.devcluster.configuration import gres_conf, slurm_conf
from slurm.devcluster.daemons import daemons
from slurm.devcluster.errors import CannotRunHereError, DevClusterError, FolderTakenError
from slurm.devcluster.folder import hold


@pytest.fixture
def _root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def test_users_other_than_root_are_sent_to_sudo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(CannotRunHereError, match=r"needs the rights of root.*sudo"):
        DevCluster.up(tmp_path / "cluster")
    assert not (tmp_path / "cluster").exists()


@pytest.mark.usefixtures("_root")
@pytest.mark.parametrize(
    ("accounting", "packages"),
    [
        (True, "iproute2 mariadb-server munge slurm-wlm slurmdbd util-linux"),
        (False, "iproute2 munge slurm-wlm util-linux"),
    ],
)
def test_missing_programs_are_named_with_the_command_that_installs_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, accounting: bool, packages: str
) -> None:
    monkeypatch.setattr(requirements, "PATH", str(tmp_path))
    with pytest.raises(CannotRunHereError) as caught:
        DevCluster.up(tmp_path / "cluster", ClusterSettings(accounting=accounting))
    message = str(caught.value)
    assert "missing: slurmctld, slurmd, sbatch" in message
    assert message.endswith(f"sudo apt-get install --no-install-recommends {packages}")


@pytest.mark.usefixtures("_root")
def test_a_folder_of_other_files_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("slurm.devcluster.cluster.refuse_what_cannot_run", lambda settings: None)
    (tmp_path / "thesis.tex").touch()
    (tmp_path / "log").mkdir()
    with pytest.raises(FolderTakenError, match=r"something other than a development cluster.*--folder"):
        DevCluster.up(tmp_path)
    with pytest.raises(FolderTakenError, match=r"thesis\.tex is no folder"):
        DevCluster.up(tmp_path / "thesis.tex")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "thesis.tex"]


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"nodes": 0}, "1 to 200 nodes, not 0"),
        ({"nodes": 201}, "1 to 200 nodes, not 201"),
        ({"cpus": 0}, "1 to 1024 processors on a node, not 0"),
        ({"memory_mb": 1}, "megabytes of memory on a node, not 1"),
        ({"gpus": -1}, "0 to 64 GPUs on a node, not -1"),
    ],
)
def test_sizes_that_make_no_cluster_are_refused(size: dict[str, int], message: str) -> None:
    with pytest.raises(DevClusterError, match=message):
        ClusterSettings(**size)


@pytest.mark.parametrize("state", ["", "{", "[]", '{"settings": {"wheels": 4}, "namespace": {}}'])
def test_no_cluster_is_found_where_the_record_is_missing_or_unreadable(tmp_path: Path, state: str) -> None:
    assert DevCluster.find(tmp_path) is None
    (tmp_path / "cluster.json").write_text(state)
    assert DevCluster.find(tmp_path) is None


def test_a_process_that_has_the_number_of_an_ended_cluster_is_none(tmp_path: Path) -> None:
    record = f'{{"settings": {{}}, "namespace": {{"pid": {os.getpid()}, "started": 1}}}}'
    (tmp_path / "cluster.json").write_text(record)
    assert DevCluster.find(tmp_path) is None


def test_nodes_without_gpus_are_written_without_them() -> None:
    settings = ClusterSettings(gpus=0)
    assert "gres" not in slurm_conf(settings).lower()
    assert gres_conf(settings) == ""
    assert "Gres=gpu:fake:3 " in slurm_conf(ClusterSettings(gpus=3))


@pytest.mark.parametrize(
    ("said", "accepted"),
    [
        ("BootTime=2026-01-01T00:00:00 SlurmdStartTime=2026-03-01T10:00:05 x=1", True),
        ("BootTime=2026-01-01T00:00:00 SlurmdStartTime=2026-03-01T10:00:04 x=1", False),
        ("BootTime=None SlurmdStartTime=None x=1", False),
        ("", False),
    ],
)
def test_a_node_answers_only_after_it_has_registered_anew(said: str, accepted: bool) -> None:
    node = next(daemon for daemon in daemons(ClusterSettings(nodes=1)) if daemon.name == "slurmd.n1")
    started = int(datetime(2026, 3, 1, 10, 0, 5).timestamp())
    assert node.accepts(said, started) is accepted


@pytest.mark.parametrize(("name", "said"), [
    ("file", "is no folder"), ("file/x", "is no folder"), ("dangling", "cannot be used (File exists)"),
    ("dangling/x", "cannot be used (File exists)"), ("loop", "cannot be used (Too many levels of symbolic links)"),
    ("n" * 300, "cannot be used (File name too long)"),
])  # fmt: skip
def test_a_place_where_no_folder_can_be_is_told(name: str, said: str, tmp_path: Path):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(FolderTakenError) as raised, hold(tmp_path / name):
        pass
    assert said in str(raised.value)
    assert str(raised.value).endswith("name another one with --folder")
