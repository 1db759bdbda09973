"""The choice between a device and the processor for decompositions, by what both took in this process."""

from collections import defaultdict
from functools import cache

UNCOUNTED = 1
"""First decompositions of a size on a device that do not count: libraries are loaded and memory is found meanwhile."""


class FasterPlace:
    """Measured seconds of decompositions of kernels, by their rows.

    What is measured is the work to be done: for each size the device takes the first kernels, then the processor one,
    and whoever took less takes all others.
    """

    def __init__(self) -> None:
        self._device: defaultdict[int, list[float]] = defaultdict(list)
        self._processor: dict[int, float] = {}

    def on_device(self, size: int) -> bool:
        """Return whether the next kernel of `size` rows belongs on the device."""
        if len(self._device[size]) <= UNCOUNTED:
            return True
        return size in self._processor and min(self._device[size][UNCOUNTED:]) <= self._processor[size]

    def took(self, size: int, seconds: float, *, on_device: bool) -> None:
        """Note what a kernel of `size` rows took."""
        if on_device:
            self._device[size].append(seconds)
        else:
            self._processor[size] = min(seconds, self._processor.get(size, seconds))

    def why(self, size: int) -> str:
        """Return why the processor decomposes kernels of `size` rows, for people."""
        if size not in self._processor:
            return "decomposed on the processor once, to learn which is faster"
        device, processor = min(self._device[size][UNCOUNTED:]), self._processor[size]
        return f"{size} rows took {processor:.2g} s on the processor and {device:.2g} s on the GPU"


@cache
def faster_place(device: str, eigenvectors: bool) -> FasterPlace:
    """Return what this process has measured of a device, and of its processor with or without eigenvectors."""
    return FasterPlace()
