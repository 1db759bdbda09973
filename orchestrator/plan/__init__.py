"""The plan: stages, the cells that they fill, and what they cost."""
