"""Patches of a tile <-> bytes: rectangles whose pixels are sent without loss.

Text and drawings on a photograph cost networks many bits and come out soft; a patch costs what
lossless WebP makes of it and is exact. Networks see smooth colours where it lies, as they do behind
transparency. FORMAT.md, "PTCH", has the layout. Knows nothing of networks or of the container.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from diveqcodec.container import lossless
from diveqcodec.container.chunks import parse_varint, varint_bytes
from diveqcodec.container.grid import Tile
from diveqcodec.errors import DamagedError

Pixels = NDArray[np.uint8]

MOST: Final = 4096  # patches of a tile: a decoder's time for tiny ones is no more than for its tile


@dataclass(frozen=True, slots=True)
class Patch:
    """A rectangle of a tile.

    Attributes:
        place: In pixels from the tile's corner.
        packed: Its colours, without transparency (see `diveqcodec.container.lossless`).
    """

    place: Tile
    packed: bytes

    def within(self, tile: Tile) -> Tile:
        """Its place in the picture of its tile."""
        place = self.place
        return Tile(tile.x + place.x, tile.y + place.y, place.width, place.height)

    @property
    def area(self) -> tuple[slice, slice]:
        """Rows and columns of the tile."""
        place = self.place
        return slice(place.y, place.y + place.height), slice(place.x, place.x + place.width)


def pack(patches: Sequence[Patch]) -> bytes:
    """The body of a tile's chunk, but for the tile's index; no patches give no bytes."""
    parts = []
    for patch in patches:
        place = patch.place
        numbers = (place.x, place.y, place.width, place.height, len(patch.packed))
        parts += [*map(varint_bytes, numbers), patch.packed]
    return b"".join(parts)


def unpack(data: bytes, height: int, width: int, name: str = "chunk PTCH") -> list[Patch]:
    """The inverse of `pack`, for a tile of `height` and `width` pixels.

    Raises:
        DamagedError: Truncated; a patch is empty or leaves the tile; they are too many, or together
            larger than it. `name` is what messages call the data.
    """
    patches: list[Patch] = []
    position, left = 0, height * width
    while position < len(data):
        if len(patches) == MOST:
            raise DamagedError(f"damaged: {name} has more than {MOST} patches")
        numbers = []
        for _ in range(5):
            number, position = parse_varint(data, position, name)
            numbers.append(number)
        *sides, length = numbers
        place = Tile(*sides)
        is_inside = place.x + place.width <= width and place.y + place.height <= height
        if not is_inside or not place.width or not place.height:
            raise DamagedError(f"damaged: {name} has a patch that leaves its tile")
        left -= place.width * place.height
        if left < 0:
            raise DamagedError(f"damaged: {name} has more pixels than its tile")
        if position + length > len(data):
            raise DamagedError(f"damaged: {name} is truncated")
        patches.append(Patch(place, data[position : position + length]))
        position += length
    return patches


def pixels_of(patch: Patch, *, is_grey: bool) -> Pixels:
    """Its pixels, uint8 `[h, w, 1 or 3]`.

    Raises:
        DamagedError: They cannot be decoded.
        FormatError: They are of another kind than this program knows.
    """
    height, width = patch.place.height, patch.place.width
    return lossless.unpack(patch.packed, height, width, is_grey=is_grey, has_alpha=False)[0]
