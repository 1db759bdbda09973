"""One stage in a worker: claimed, computed, published."""
