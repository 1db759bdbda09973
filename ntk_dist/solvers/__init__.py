"""Decompositions and Krylov spaces of kernels, and the ridge paths that follow from them."""
