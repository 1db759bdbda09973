"""Queries of a cluster's jobs and nodes."""

from slurm.devcluster import DevCluster

ONLY = {"n1": "n[2-3]", "n2": "n1,n3", "n3": "n[1-2]"}
"""Nodes to exclude so that one is left."""


def job_facts(cluster: DevCluster, job: str) -> dict[str, str]:
    """Return what the controller knows about a job, by its own names: JobState, Restarts, NodeList, Reason, ..."""
    words = cluster.run(["scontrol", "show", "job", "--oneliner", job]).stdout.split()
    return dict(word.split("=", 1) for word in words if "=" in word)


def node_state(cluster: DevCluster, node: str) -> str:
    """Return the state of a node; one that does not answer has a * behind it."""
    return cluster.run(["sinfo", "--noheader", f"--nodes={node}", "--format=%T"]).stdout.split()[0]


def drain(cluster: DevCluster, *nodes: str) -> None:
    """Let nodes take no further jobs."""
    cluster.run(["scontrol", "update", f"nodename={','.join(nodes)}", "state=drain", "reason=test"])


def resume(cluster: DevCluster, node: str) -> None:
    """Let a drained node take jobs again."""
    cluster.run(["scontrol", "update", f"nodename={node}", "state=resume"])
