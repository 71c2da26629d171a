"""Which patches of a tile pay: what networks spend where something looks drawn, and lose there.

Knows costs, not how they came about; `container.patches` says what a patch is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from diveqcodec.container import lossless
from diveqcodec.container.bitstream import Tile
from diveqcodec.container.patches import Patch, Pixels
from diveqcodec.image import Picture
from diveqcodec.model.dvq import STRIDE

_CHUNK_BITS = 8 * 8  # of a patch, for its place and its length
_CHEAP = 1  # the effort at which sizes are compared


@dataclass(frozen=True, slots=True)
class Costs:
    """What a tile costs as networks code it.

    Attributes:
        bits: Of every position, `[h, w]`.
        error: Squared error of every pixel, `[16 h or less, 16 w or less]`, as large as the tile.
        price: What a squared error of one is worth in bits.
    """

    bits: NDArray[np.float64]
    error: NDArray[np.float64]
    price: float

    def of(self, place: Tile) -> float:
        """Of a rectangle, in bits; of positions that it has a part of, that part."""
        rows, columns = (
            _overlaps(start, size, count)
            for start, size, count in (
                (place.y, place.height, self.bits.shape[0]),
                (place.x, place.width, self.bits.shape[1]),
            )
        )
        area = slice(place.y, place.y + place.height), slice(place.x, place.x + place.width)
        return float(rows @ self.bits @ columns + self.price * self.error[area].sum())


def choose(
    candidates: list[Tile], pixels: Pixels, costs: Costs, effort: int
) -> tuple[tuple[Patch, ...], float]:
    """Patches that cost less than what they take the place of, and the bits they save.

    Smooth colours where a patch lies are taken to cost nothing.

    Args:
        candidates: rectangles of the tile.
        pixels: of the tile, uint8 `[h, w, 1 or 3]`.
        costs: of the tile without patches.
        effort: of the search for small files, as the codec's.
    """
    chosen, saved = [], 0.0
    for place in candidates:
        patch = Patch(place, b"")
        part = pixels[patch.area]
        gain = costs.of(place) - 8.0 * len(lossless.pack(part, effort=_CHEAP)) - _CHUNK_BITS
        if gain > 0:
            chosen.append(replace(patch, packed=lossless.pack(part, effort=effort)))
            saved += gain
    return tuple(chosen), saved


def hiding(picture: Picture, places: list[Tile]) -> Picture:
    """A picture whose pixels are transparent in some rectangles of it; nothing else is new."""
    height, width = picture.pixels.shape[:2]
    alpha = np.full((height, width), 255, np.uint8)
    if picture.alpha is not None:
        alpha[:] = picture.alpha
    for place in places:
        alpha[place.y : place.y + place.height, place.x : place.x + place.width] = 0
    return replace(picture, alpha=alpha)


def _overlaps(start: int, size: int, count: int) -> NDArray[np.float64]:
    """Which part of each of so many positions lies in a range of pixels."""
    ends = np.arange(count + 1) * STRIDE
    inside = np.minimum(ends[1:], start + size) - np.maximum(ends[:-1], start)
    shares: NDArray[np.float64] = inside.clip(0, STRIDE) / STRIDE
    return shares
