"""Which tiles belong together: rectangles of lossless tiles, and of tiles that networks code.

A map is bool `[rows, columns]`, one entry for every tile of a picture. Networks see each rectangle
of `rectangles` as a picture of its own, so that nothing of a lossless tile's surroundings need be
known to decode what is beside it. Knows nothing of pixels or bytes. FORMAT.md, "Regions".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.bool_]

# Of what the tiles of a group cost together: so much more is paid for one rectangle of them.
_CLOSING = 0.01


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Some rows and columns of tiles."""

    row: int
    column: int
    rows: int
    columns: int

    @property
    def area(self) -> tuple[slice, slice]:
        """Where it lies in a map."""
        return (
            slice(self.row, self.row + self.rows),
            slice(self.column, self.column + self.columns),
        )


def rectangles(chosen: Map) -> list[Rectangle]:
    """Divide the chosen tiles into rectangles.

    Each starts at the first tile in raster order that no earlier one has, reaches to the right as
    far as chosen tiles do, and then down as far as all tiles of its width are chosen.
    Example: in `[[1, 1, 0], [1, 1, 1]]` they are the square and the tile that is left.
    """
    left = chosen.copy()
    found = []
    for row, column in np.argwhere(chosen).tolist():
        if not left[row, column]:
            continue
        width = _run(left[row, column:])
        height = _run(left[row:, column : column + width].all(axis=1))
        found.append(Rectangle(row, column, height, width))
        left[found[-1].area] = False
    return found


def close(coded: Map, extra: NDArray[np.float64], cost: NDArray[np.float64]) -> Map:
    """Fill up groups of tiles that networks code to rectangles, where that costs next to nothing.

    Between two rectangles of one group there is a border that blocks do not overlap. A lossless
    tile that happens to lie within a photograph, of clear sky say, is not worth one.

    Args:
        coded: True where networks code a tile, false where it is lossless.
        extra: What a lossless tile would cost more as a coded one, `[rows, columns]`; infinite
            where it cannot be one.
        cost: What a coded tile costs, in the same unit.

    Returns:
        The map with tiles added.
    """
    result = coded.copy()
    has_changed = True
    while has_changed:
        has_changed = False
        for group in _groups(result):
            rows, columns = np.nonzero(group)
            box = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
            holes = ~result[box]
            if holes.any() and extra[box][holes].sum() <= _CLOSING * cost[group].sum():
                result[box] = True
                has_changed = True
                break
    return result


def _run(flags: Map) -> int:
    """How many are true before the first that is not."""
    return len(flags) if flags.all() else int(flags.argmin())


def _groups(chosen: Map) -> list[Map]:
    """Groups of chosen tiles that share sides, a map for each."""
    left = chosen.copy()
    groups = []
    while left.any():
        group = np.zeros_like(left)
        group.flat[int(left.argmax())] = True
        while True:
            grown = group.copy()
            grown[1:] |= group[:-1]
            grown[:-1] |= group[1:]
            grown[:, 1:] |= group[:, :-1]
            grown[:, :-1] |= group[:, 1:]
            grown &= chosen
            if (grown == group).all():
                break
            group = grown
        groups.append(group)
        left &= ~group
    return groups
