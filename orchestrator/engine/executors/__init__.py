"""Executors, which run stages: each takes stages and returns outcomes; none knows the plan."""
