"""Models that no process holds whole: divided by DeepSpeed among the processes of a group."""
