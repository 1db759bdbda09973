"""Ray inside an allocation, node by node."""
