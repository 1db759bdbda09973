"""Choosing layer sets before training, from the kernels of a finished sweep: by ranking, or greedily."""
