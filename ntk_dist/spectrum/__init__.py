"""What a spectrum says: numbers, densities, and bounds to stand beside them."""
