"""What a worker has at hand while it computes a stage, whatever its kind."""
