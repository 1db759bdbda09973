"""Kernels from Jacobian rows: features, tiles of Gram matrices, and matrices stored as tiles."""
