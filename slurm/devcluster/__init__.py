"""A real Slurm cluster of several nodes on one machine, to develop and test on."""

from slurm.devcluster.cluster import DevCluster
from slurm.devcluster.settings import ClusterSettings

__all__ = ["ClusterSettings", "DevCluster"]
