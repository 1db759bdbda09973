"""Groups of processes, the data that they exchange, and weights that are sharded over them."""
