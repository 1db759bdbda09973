"""Choosing layer sets before anything is trained: by what a finished sweep's kernels say, and greedily from them."""
