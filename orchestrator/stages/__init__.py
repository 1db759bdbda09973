"""Computations of the stage kinds: one package for each kind, with a function from a stage to its product."""
