"""Cluster profiles, and the quantities, options and names in them."""
