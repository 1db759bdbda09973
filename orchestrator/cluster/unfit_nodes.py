"""Nodes that later allocations of a sweep avoid, because a GPU there was broken or of another kind."""

import time
from collections.abc import Mapping

from orchestrator.store.journal import read_journals
from orchestrator.sweep.folder import ResultsFolder
from slurm.errors import ProfileError
from slurm.profile.profile import Profile
from slurm.query.check import nodes_of, refuse_exclusion
from slurm.query.facts import ClusterFacts

SECONDS_TO_MEND = 86_400.0
"""Seconds for which a node is left out after its GPU failed; by then it should be repaired or drained."""


def unfit_nodes(folder: ResultsFolder) -> dict[str, str]:
    """Return the hosts on which workers of a sweep recently found an unusable GPU, and their messages."""
    since = time.time() - SECONDS_TO_MEND
    return {
        event["host"]: event.get("message", "")
        for event in read_journals(folder.journals)
        if event["event"] == "unfit_gpu" and "host" in event and event["time"] > since
    }


def without_unfit_nodes(
    profile: Profile, facts: ClusterFacts, folder: ResultsFolder
) -> tuple[Profile, Mapping[str, str]]:
    """Return a profile that also excludes unfit nodes, and their reasons; the given one if too few nodes were left.

    Raises:
        CommandError: Slurm does not answer.
    """
    unfit = unfit_nodes(folder) if profile.gpus_per_task else {}
    # A sweep may also have run outside of the cluster, on a machine that Slurm does not know.
    known = nodes_of(profile, facts) if unfit else set()
    left_out = {node: why for node, why in unfit.items() if node in known}
    if not left_out:
        return profile, {}
    excluded = ",".join(filter(None, [profile.exclude, *sorted(left_out)]))
    narrower = profile.model_copy(update={"exclude": excluded})
    try:
        refuse_exclusion(narrower, facts)
    except ProfileError:
        return profile, {}
    return narrower, left_out
