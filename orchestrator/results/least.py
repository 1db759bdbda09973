"""The least number of seeds and layer sets, and the least difference along the lambdas, that mean something."""

LEAST_SEEDS = 5
"""With fewer seeds a standard error is itself too uncertain: a 95 % interval reaches 13 standard errors to each side
with two seeds, and 2.8 with five (Student's t)."""

LEAST_SETS = 5
"""With fewer layer sets no rank correlation is significant: of the 24 orders of four, two agree or disagree wholly by
chance."""

LEAST_DIFFERENCE = 1e-3
"""Share of the best mean loss by which the worst of a grid of lambdas must exceed it, for the grid to ask for a lambda
beyond its edge: of losses that agree to three digits, which lambda is best is hardly more than rounding."""


def is_flat(lowest: float, highest: float) -> bool:
    """Tell whether losses along a grid of lambdas differ by too little for one lambda to be called better."""
    return highest - lowest < LEAST_DIFFERENCE * abs(lowest)


def too_few(*, seeds: int, layer_sets: int | None = None) -> str:
    """Return a sentence that says that intervals mean nothing, and why; empty if there are enough seeds and layer sets.

    Args:
        seeds: seeds of the numbers.
        layer_sets: layer sets that are drawn or ranked; None where the interval is over seeds alone.
    """
    counts = [(seeds, LEAST_SEEDS, "seed")]
    if layer_sets is not None:
        counts.append((layer_sets, LEAST_SETS, "layer set"))
    few = [(count, least, what) for count, least, what in counts if count < least]
    if not few:
        return ""
    found = " and ".join(f"{count} {what}{'s' if count > 1 else ''}" for count, _, what in few)
    least = " or ".join(f"{number} {what}s" for _, number, what in few)
    return f"{found}: an interval or a standard error from fewer than {least} means nothing."
