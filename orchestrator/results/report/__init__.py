"""A page with the findings of a trained sweep and their intervals, and small tables beside it."""
