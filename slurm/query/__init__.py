"""Queries of Slurm's programs: nodes, partitions, limits and jobs."""
