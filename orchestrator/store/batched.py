"""Arrays that are written batch after batch: how they lie in a file, and how those of one name are read in order.

What a batch of examples adds to all arrays lies in one piece, so that it is written at once: array after array, each
(examples of the batch x rows of an example, columns). Of one array every batch has a part that is whole in itself.
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
    """Arrays that have rows of each example, which come in batches.

    Attributes:
        dtype: numpy dtype name of all of them.
        batches: positions of the examples of each batch; together each of 0..n-1 once.
        arrays: by name, the rows that an example has, and the columns.
    """

    dtype: str
    batches: Sequence[Sequence[int] | NDArray[np.int64]]
    arrays: Mapping[str, tuple[int, int]]

    @cached_property
    def size(self) -> int:
        """Numbers in all arrays together."""
        return self._examples_before[-1] * self._per_example

    def part(self, batch: int, name: str) -> tuple[int, tuple[int, int]]:
        """Return where the part of an array begins that comes with a batch, counted in numbers, and its shape."""
        examples = len(self.batches[batch])
        rows, columns = self.arrays[name]
        first = self._examples_before[batch] * self._per_example + examples * self._before[name]
        return first, (examples * rows, columns)

    def shape(self, name: str) -> tuple[int, int]:
        """Return the shape of an array with the rows of all examples."""
        rows, columns = self.arrays[name]
        return self._examples_before[-1] * rows, columns

    def places(self, batch: int, name: str) -> NDArray[np.int64]:
        """Return which rows of an array come with a batch, in the order in which they lie there."""
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
            ValueError, KeyError, TypeError: it wrote something else.
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
        values: all that the batch has of the array, (rows, columns).
        taken: which of them; None for all.
        places: the rows that they are of the whole.
    """

    values: Array
    taken: NDArray[np.int64] | None
    places: NDArray[np.int64]

    def between(self, start: int, stop: int) -> "_Part":
        here = np.flatnonzero((self.places >= start) & (self.places < stop))
        taken = here if self.taken is None else self.taken[here]
        return _Part(self.values, None if len(taken) == len(self.values) else taken, self.places[here] - start)


class BatchedRows:
    """Rows (m, p) of one array in the order of the examples, whatever batches they came in.

    Nothing is read until `read` is called; what it reads stays in the file's pages, which are released with this.
    """

    def __init__(self, layout: BatchedLayout, name: str, numbers: Array) -> None:
        # As a plain array, whose parts cost less to take than those of a mapped one.
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
