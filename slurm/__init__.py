"""Slurm: what a job asks for, what the cluster has, Ray inside an allocation, and a cluster on one machine."""
