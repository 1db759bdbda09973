"""Cluster profiles: reading them from YAML, as specs are read, and their reference page."""

from pathlib import Path

from orchestrator.documents import Document
from orchestrator.errors import ProfileFileError
from orchestrator.spec.describe import entries, key_table
from slurm.profile.profile import Profile

_DOCUMENT = Document(
    Profile,
    "profile",
    "`ntksweep init --profile` writes one to start from",
    ProfileFileError,
)


def read_profile(path: Path) -> Profile:
    """Read and check the cluster profile in the file `path`.

    Raises:
        ProfileFileError: the file is missing, is not YAML, or is not a valid profile; the message names each fault.
    """
    profile, _ = _DOCUMENT.read(path)
    return profile


def starting_profile() -> str:
    """Return a valid profile with every key, its meaning and its default; unset keys are commented out."""
    lines = [
        "# What one allocation of a sweep asks Slurm for. Change what you need and leave the rest: keys that are",
        "# commented out show an example, the other optional ones their default. Check it with",
        "# `ntksweep submit SPEC --profile THIS --dry-run`.",
        "",
        *entries(Profile, ""),
    ]
    return "\n".join(lines) + "\n"


def profile_page() -> str:
    """Return the reference of cluster profiles in Markdown: every key with its meaning, default and an example."""
    parts = [
        "# The cluster profile",
        "",
        "One YAML file says what one allocation of a sweep asks Slurm for, and what it enters before Python starts.",
        "`ntksweep init --profile` writes one to start from, `ntksweep init --example cpu` (or gpu, multi-node,",
        "preemptible) one of `examples/profiles`, for common clusters. Unknown",
        "keys are errors. This page is written from the code by `python docs/write_reference.py`.",
        "",
        *key_table(Profile),
    ]
    return "\n".join(parts) + "\n"
