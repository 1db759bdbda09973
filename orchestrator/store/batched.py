"""Arrays that are written batch after batch: their layout in a file, and reading one array in order.

The rows that a batch of examples adds to all arrays are contiguous, so that they are written at once: array after
array, each (examples of the batch x rows of an example, columns). Each batch holds one contiguous part of every array.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class BatchedLayout:
    """Layout of arrays with rows of each example, which are written in batches.

    Attributes:
        dtype: numpy dtype name of all of them.
        batches: positions of the examples of each batch; together each of 0..n-1 once.
        arrays: by name, the rows of an example, and the columns.
    """

    dtype: str
    batches: Sequence[Sequence[int] | NDArray[np.int64]]
    arrays: Mapping[str, tuple[int, int]]

    @cached_property
    def size(self) -> int:
        """Numbers in all arrays together."""
        return self._examples_before[-1] * self._per_example

    def part(self, batch: int, name: str) -> tuple[int, tuple[int, int]]:
        """Return the start of a batch's part of an array, counted in numbers, and the shape of the part."""
        examples = len(self.batches[batch])
        rows, columns = self.arrays[name]
        first = self._examples_before[batch] * self._per_example + examples * self._before[name]
        return first, (examples * rows, columns)

    def shape(self, name: str) -> tuple[int, int]:
        """Return the shape of an array with the rows of all examples."""
        rows, columns = self.arrays[name]
        return self._examples_before[-1] * rows, columns

    def places(self, batch: int, name: str) -> NDArray[np.int64]:
        """Return the positions of a batch's rows in an array, in the order in which they are stored."""
        rows = self.arrays[name][0]
        examples = np.asarray(self.batches[batch], dtype=np.int64)
        return (examples[:, None] * rows + np.arange(rows)).ravel()

    def to_text(self) -> str:
        """Return the layout, without its dtype, as JSON."""
        batches = [[int(position) for position in batch] for batch in self.batches]
        return json.dumps({"batches": batches, "arrays": dict(self.arrays)}, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str, dtype: str) -> "BatchedLayout":
        """Return the layout that `to_text` wrote.

        Raises:
            ValueError, KeyError, TypeError: the text was not written by it.
        """
        found = json.loads(text)
        arrays = {name: (int(rows), int(columns)) for name, (rows, columns) in found["arrays"].items()}
        return cls(dtype, tuple(map(tuple, found["batches"])), arrays)

    @cached_property
    def _per_example(self) -> int:
        return sum(rows * columns for rows, columns in self.arrays.values())

    @cached_property
    def _before(self) -> dict[str, int]:
        """Numbers that an example has in the arrays before each."""
        before, found = 0, {}
        for name, (rows, columns) in self.arrays.items():
            found[name] = before
            before += rows * columns
        return found

    @cached_property
    def _examples_before(self) -> list[int]:
        """Examples in the batches before each, and at the end all of them."""
        return [0, *np.cumsum([len(batch) for batch in self.batches], dtype=np.int64).tolist()]


@dataclass(frozen=True, eq=False)
class _Part:
    """Rows of a batch.

    Attributes:
        values: all rows of the array in the batch, (rows, columns).
        taken: the rows that are taken; None for all.
        places: their positions among all rows of the array.
    """

    values: Array
    taken: NDArray[np.int64] | None
    places: NDArray[np.int64]

    def between(self, start: int, stop: int) -> "_Part":
        here = np.flatnonzero((self.places >= start) & (self.places < stop))
        taken = here if self.taken is None else self.taken[here]
        return _Part(self.values, None if len(taken) == len(self.values) else taken, self.places[here] - start)


class BatchedRows:
    """Rows (m, p) of one array in the order of the examples, independent of their batches.

    Nothing is read until `read` is called; the pages of the file that it reads are released with this object.
    """

    def __init__(self, layout: BatchedLayout, name: str, numbers: Array) -> None:
        # A plain array, because slices of it cost less than those of a memory map.
        self._set(layout.shape(name), numbers.dtype, list(_parts(layout, name, np.asarray(numbers))))

    def _set(self, shape: tuple[int, int], dtype: np.dtype[Any], parts: Sequence[_Part]) -> None:
        self.shape, self.dtype = shape, dtype
        self._parts = parts

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> "BatchedRows":
        """Return a range of the rows."""
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise ValueError("rows are taken one after the other")
        found = BatchedRows.__new__(BatchedRows)
        parts = [part.between(start, stop) for part in self._parts]
        found._set((max(0, stop - start), self.shape[1]), self.dtype, [part for part in parts if len(part.places)])
        return found

    def read(self, out: Array, columns: slice = slice(None)) -> None:
        """Read columns of all rows into `out` (m, columns), converted to its dtype."""
        for part in self._parts:
            chosen = slice(None) if part.taken is None else part.taken
            out[part.places] = part.values[chosen, columns]

    def whole(self) -> Array:
        """Return all rows in memory."""
        found: Array = np.empty(self.shape, self.dtype)
        self.read(found)
        return found


def _parts(layout: BatchedLayout, name: str, numbers: Array) -> Iterator[_Part]:
    for batch in range(len(layout.batches)):
        first, shape = layout.part(batch, name)
        values = numbers[first : first + shape[0] * shape[1]].reshape(shape)
        yield _Part(values, None, layout.places(batch, name))
