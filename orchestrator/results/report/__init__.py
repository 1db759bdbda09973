"""A page of what a trained sweep found, with intervals, and small tables beside it."""
