"""Groups of processes, what they give each other, and weights that are divided among them."""
