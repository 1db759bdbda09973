"""Models that are sharded by DeepSpeed over the processes of a group."""
