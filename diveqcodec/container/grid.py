"""Where the tiles of a picture lie. FORMAT.md, "Tiles". Knows nothing of what is in them."""

from dataclasses import dataclass
from typing import Final

# Tiles are 1024 pixels wide and high; a remainder narrower than 256 joins its neighbour.
TILE_SIZE: Final = 1024
TILE_MIN: Final = 256


@dataclass(frozen=True, slots=True)
class Tile:
    """Position of an independently coded rectangle in its picture, in pixels."""

    x: int
    y: int
    width: int
    height: int


def meets(one: Tile, other: Tile) -> bool:
    """Whether two rectangles share a pixel."""
    return (
        one.x < other.x + other.width
        and other.x < one.x + one.width
        and one.y < other.y + other.height
        and other.y < one.y + one.height
    )


def tile_grid(width: int, height: int) -> list[Tile]:
    """The tiles of a picture in raster order.

    Each side is cut every 1024 pixels; a last piece under 256 joins the one before it.
    Example: `width=2100, height=1300` gives columns 1024, 1076 and rows 1024, 276: four tiles.
    """
    return [
        Tile(x, y, tile_width, tile_height)
        for y, tile_height in _cut(height)
        for x, tile_width in _cut(width)
    ]


def grid_columns(width: int) -> int:
    """How many tiles of `tile_grid` lie side by side."""
    return len(_cut(width))


def grid_rows(height: int) -> int:
    """How many tiles of `tile_grid` lie one below the other."""
    return len(_cut(height))


def _cut(size: int) -> list[tuple[int, int]]:
    """(start, length) of the pieces of one side."""
    count = max(1, (size + TILE_SIZE - TILE_MIN) // TILE_SIZE)
    starts = [TILE_SIZE * i for i in range(count)]
    return [(a, b - a) for a, b in zip(starts, [*starts[1:], size], strict=True)]
