"""Temporary folders are private, short, and never stay for good."""

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm.ray.private_folder import LONGEST_ROOT, NoScratchError, private_folder

HOLD_UNTIL_KILLED = """
import sys, time
from pathlib import Path
from slurm.ray.private_folder import private_folder
with private_folder(Path(sys.argv[1])) as folder:
    print(folder, flush=True)
    time.sleep(1000)
"""


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder with a path as short as on real nodes."""
    with tempfile.TemporaryDirectory(prefix="nt-", dir="/tmp") as name:
        yield Path(name)


def test_only_the_owner_can_enter_and_it_goes_with_what_is_in_it(root: Path) -> None:
    with private_folder(root) as folder:
        assert folder.parent == root
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "some" / "where").mkdir(parents=True)
    assert list(root.iterdir()) == []


def test_a_socket_of_ray_fits_into_the_longest_root() -> None:
    ntk = "/ntk-12345678/ray"
    longest = f"{ntk}/session_2026-12-31_23-59-59_999999_4194304/sockets/plasma_store"
    assert LONGEST_ROOT + len(longest) <= 107


def test_a_root_too_deep_for_sockets_is_replaced_by_tmp(tmp_path: Path) -> None:
    deep = tmp_path / "so" / "deep" / "that" / "no" / "socket" / "fits"
    deep.mkdir(parents=True)
    with private_folder(deep) as folder:
        assert folder.parent == Path("/tmp")
    assert not folder.exists()


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_stays(root: Path) -> None:
    holders = [_holder(root) for _ in range(2)]
    folders = [Path(holder.stdout.readline().strip()) for holder in holders if holder.stdout]
    for content in folders:
        (content / "data").touch()
    holders[0].kill()
    holders[0].wait()
    with private_folder(root):
        assert not folders[0].exists()
        assert (folders[1] / "data").exists()
    holders[1].kill()
    holders[1].wait()
    with private_folder(root):
        pass
    assert list(root.iterdir()) == []


def test_folders_of_others_and_links_are_left_alone(root: Path, tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    (root / "ntk-link").symlink_to(tmp_path)
    (root / "ntk-other").mkdir()
    (root / "ntk-other" / "lock").touch()
    if os.getuid() == 0:
        os.chown(root / "ntk-other", 65534, 65534)
    (root / "ntk-new").mkdir()  # another process is making it: its lock is not there yet
    with private_folder(root):
        pass
    left = {path.name for path in root.iterdir()}
    assert left >= {"ntk-link", "ntk-new"}
    assert (tmp_path / "lock").exists()
    assert ("ntk-other" in left) == (os.getuid() == 0)


def test_a_folder_that_was_never_locked_goes_when_it_is_old(root: Path) -> None:
    (root / "ntk-old").mkdir()
    os.utime(root / "ntk-old", (0, 0))
    with private_folder(root):
        pass
    assert list(root.iterdir()) == []


def test_a_root_that_is_missing_is_named_with_the_way_out(root: Path) -> None:
    with (
        pytest.raises(
            NoScratchError, match=r"in .*/missing \(No such file or directory\); name another as `local_scratch`"
        ),
        private_folder(root / "missing"),
    ):
        pass


def _holder(root: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", HOLD_UNTIL_KILLED, root], stdout=subprocess.PIPE, text=True)
