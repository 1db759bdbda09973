"""Parts of tiles that lie in a matrix, and the rows of these parts that have to be summed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ntk_dist.arrays import FloatArray
from orchestrator.stages.context.blocks import tile_places
from orchestrator.stages.context.joined_tiles import HeldBlocks

STRIP_ROWS = 64
"""Rows of a strip: few enough to leave little of the other triangle, and many enough to add them up fast."""


@dataclass(frozen=True)
class Cut:
    """The part of a tile that lies in a matrix.

    Attributes:
        tile: the artifact.
        rows, columns: its place in the matrix.
        strips: whether only the strips of `parts` are summed, because the tile is its own transpose.
    """

    tile: HeldBlocks
    rows: slice
    columns: slice
    strips: bool

    @property
    def height(self) -> int:
        """Rows of the part."""
        return int(self.rows.stop - self.rows.start)

    @property
    def width(self) -> int:
        """Columns of the part."""
        return int(self.columns.stop - self.columns.start)

    @cached_property
    def parts(self) -> list[tuple[slice, slice]]:
        """The parts that are summed: strips of rows from the diagonal on, or everything."""
        if not self.strips:
            return [(slice(None), slice(None))]
        return [(slice(start, start + STRIP_ROWS), slice(start, None)) for start in range(0, self.height, STRIP_ROWS)]

    def add(self, first: FloatArray, second: FloatArray, into: FloatArray) -> None:
        """Add up two blocks of the tile; `into` may be one of them."""
        for part in self.parts:
            np.add(first[part], second[part], out=into[part])


def cut_tiles(
    tiles: Sequence[HeldBlocks], shape: tuple[int, int], rows_per_example: int, *, symmetric: bool
) -> list[Cut]:
    """Return each tile with its place in a matrix; parts beyond its shape are cut off.

    Of a symmetric matrix the tiles on the diagonal are summed in strips.
    """
    return [
        Cut(tile, rows, columns, strips=symmetric and rows == columns)
        for tile, rows, columns in tile_places(tiles, shape, rows_per_example)
    ]
