"""Cluster profiles: read from YAML as specs are, and described in a page of reference."""

from pathlib import Path

from orchestrator.documents import Document
from orchestrator.errors import ProfileFileError
from orchestrator.spec.describe import key_table
from slurm.profile import Profile

_DOCUMENT = Document(
    Profile,
    "profile",
    "take one from the folder examples/profiles to start from; docs/profile.md explains every key",
    ProfileFileError,
)


def read_profile(path: Path) -> Profile:
    """Read and check the cluster profile in the file `path`.

    Raises:
        ProfileFileError: the file is missing, is not YAML, or is not a valid profile; the message names each fault.
    """
    return _DOCUMENT.read(path)


def profile_page() -> str:
    """Return the reference of cluster profiles in Markdown: every key with its meaning, default and an example."""
    parts = [
        "# The cluster profile",
        "",
        "One YAML file says what one allocation of a sweep asks Slurm for, and what it enters before Python starts.",
        "Profiles to start from are in `examples/profiles`. Unknown keys are errors. This page is written from the",
        "code by `python docs/write_reference.py`.",
        "",
        *key_table(Profile),
    ]
    return "\n".join(parts) + "\n"
