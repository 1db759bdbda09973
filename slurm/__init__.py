"""Slurm: profiles of jobs, facts about the cluster, Ray inside an allocation, and a cluster on one machine."""
