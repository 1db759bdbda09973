"""Numbers as people write them on axes."""

import math

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def power_of_ten(power: int) -> str:
    """Return a power of ten: plain numbers near 1."""
    return f"{10.0**power:g}" if -2 <= power <= 3 else "10" + str(power).translate(_SUPERSCRIPT)


def plain(value: float) -> str:
    """Return a number in few characters."""
    if not math.isfinite(value):
        return "none"
    if value and not 1e-3 <= abs(value) < 1e5:
        digits, _, power = f"{value:.1e}".partition("e")
        digits = digits.removesuffix(".0")
        of_ten = "10" + str(int(power)).translate(_SUPERSCRIPT)
        return of_ten if digits == "1" else f"{digits}·{of_ten}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def shortest(value: float) -> str:
    """Return a number in four characters or so, for the cells of a grid."""
    if 0.005 <= abs(value) < 10:
        return f"{value:.2f}".removeprefix("0")
    if value == 0 or 10 <= abs(value) < 1000:
        return f"{value:.0f}"
    return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-")
