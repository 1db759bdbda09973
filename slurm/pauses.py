"""Growing pauses between looks at something that does not change, or attempts at something that fails."""


class Pauses:
    """The pause to make now, which grows by a factor each time, up to a longest one.

    Args:
        first: seconds of the first pause.
        longest: seconds that no pause is longer than.
        factor: by which each pause is longer than the one before.
    """

    def __init__(self, first: float, longest: float, *, factor: float = 2.0) -> None:
        self._first, self._longest, self._factor = first, longest, factor
        self.seconds = first

    def lengthen(self) -> None:
        """Make the next pause longer: nothing has changed."""
        self.seconds = min(self._factor * self.seconds, self._longest)

    def start_over(self) -> None:
        """Go back to the first pause: something has changed."""
        self.seconds = self._first

    def take(self) -> float:
        """Return the seconds of this pause, and lengthen the next one."""
        taken = self.seconds
        self.lengthen()
        return taken
