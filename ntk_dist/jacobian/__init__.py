"""Jacobian rows of single examples, and products with the Jacobian without its rows."""
