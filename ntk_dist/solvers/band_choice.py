"""The choice between a tridiagonal matrix and a band as the form that a kernel is reduced to; loads no algebra."""

BAND_FROM = 2_500
"""Rows from which a kernel is reduced to a band, a whole solve being faster so (`benchmarks/band.py`)."""

BAND_WIDTH = 48
"""Diagonals below the main one. A wider band is reached sooner, by larger products, and costs each lambda more."""


def stored_diagonals(size: int) -> int:
    """Return how many diagonals of the reduced form of a kernel of `size` rows are kept, the main one included."""
    return 2 if size < BAND_FROM else BAND_WIDTH + 1
