"""Executors: where stages run. Each takes stages and gives outcomes back; none knows what a plan is."""
