"""What Slurm's programs say: of nodes, partitions and limits, and of jobs."""
