"""Kernels from Jacobian rows: features, tiles of Gram matrices, and matrices that lie in tiles."""
