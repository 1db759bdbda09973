"""Objects that a worker uses while it computes a stage of any kind."""
