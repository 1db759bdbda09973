"""Settings of a development cluster: its size."""

from dataclasses import dataclass

from slurm.devcluster.errors import DevClusterError

MOST_NODES = 200
"""Largest number of nodes, each of which has an address of its own from 127.0.1.1 on."""


@dataclass(frozen=True)
class ClusterSettings:
    """Size of a development cluster: nodes, what Slurm believes each of them to have, and whether jobs are accounted.

    Nothing of it has to exist: a node may have more processors and memory than the machine, and its GPUs are devices
    that hold nothing.

    Raises:
        DevClusterError: A number makes no cluster.
    """

    nodes: int = 3
    cpus: int = 4
    memory_mb: int = 4000
    gpus: int = 2
    accounting: bool = True

    def __post_init__(self) -> None:
        for what, value, least, most in (
            ("nodes", self.nodes, 1, MOST_NODES),
            ("processors on a node", self.cpus, 1, 1024),
            ("megabytes of memory on a node", self.memory_mb, 100, 1 << 30),
            ("GPUs on a node", self.gpus, 0, 64),
        ):
            if not least <= value <= most:
                raise DevClusterError(f"a development cluster has {least} to {most} {what}, not {value}")

    @property
    def node_names(self) -> list[str]:
        """The nodes: n1, n2, ..."""
        return [f"n{number}" for number in range(1, self.nodes + 1)]
