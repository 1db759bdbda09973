"""Checks that the nodes of a cluster can see a folder of its login node, as far as the login node can tell."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from slurm.profile.profile import Profile

_IN_MEMORY = {"tmpfs", "ramfs", "devtmpfs"}
_MOUNTS = Path("/proc/self/mounts")


def folder_faults(profile: Profile, results: Path) -> Iterator[str]:
    """Yield why the nodes cannot see the results folder: it is not where the profile says, or on this machine alone."""
    path = str(results.absolute())
    if not path.isprintable() or "%" in path or "\\" in path:
        yield (
            f"results: {path!r} holds a character with a meaning of its own in scripts or in Slurm's names of logs: %, "
            "a backslash, or one that cannot be seen; set the spec's results.folder to a path without it"
        )
        return
    folder = results.absolute().resolve()
    if profile.shared_scratch:
        if not any(folder.is_relative_to(shared.resolve()) for shared in profile.shared_scratch):
            shared = ", ".join(map(str, profile.shared_scratch))
            yield (
                f"results: {folder} is under none of the profile's shared_scratch ({shared}), so the nodes may not see "
                "it; set the spec's results.folder, or add the folder to shared_scratch if they do"
            )
        return
    reason = None
    if folder.is_relative_to(profile.local_scratch.resolve()):
        reason = f"is under {profile.local_scratch}, which every node has of its own (the profile's local_scratch)"
    elif (kind := _file_system(folder)) in _IN_MEMORY:
        reason = f"is on {kind}, in the memory of this machine"
    if reason:
        yield (
            f"results: {folder} {reason}; set the spec's results.folder to a folder that every node sees, or list it "
            "in shared_scratch if they do"
        )


def _file_system(folder: Path) -> str | None:
    """Return the kind of file system that a folder is on, or will be on once it is made."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    mounts = {_unescaped(line.split()[1]): line.split()[2] for line in lines if len(line.split()) > 2}
    within = [point for point in mounts if folder.is_relative_to(point)]
    return mounts[max(within, key=len)] if within else None


def _unescaped(text: str) -> str:
    # Spaces and tabs in names of mount points are written as octal numbers there.
    return os.fsdecode(re.sub(rb"\\(\d{3})", lambda found: bytes([int(found[1], 8)]), os.fsencode(text)))
