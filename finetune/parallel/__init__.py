"""Groups of processes, the data that they exchange, and weights that are divided among them."""
