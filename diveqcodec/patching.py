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
# Networks' bits and the price of their error are about the same, in text a quarter of them: a
# rectangle whose pixels take more than so many times the bits is not worth a closer look.
_HOPE = 4.0
# Smooth colours are not free: of what networks spent and lost there, a twentieth was seen to come
# back where it was text, up to a quarter where much of a logo is left around it. Patches that save
# less than such a part of their bits beyond them are as likely to lose.
_SPARE = 0.1
_WORTH = 0.01  # of a tile's cost: what patches must save, since it is then coded once more


@dataclass(frozen=True, slots=True)
class Candidate:
    """A patch that might pay, packed in a cheap way, and the bits that networks spend there."""

    patch: Patch
    spent: float

    @property
    def bits(self) -> float:
        """Of the patch."""
        return 8.0 * len(self.patch.packed) + _CHUNK_BITS


def promising(
    places: list[Tile], pixels: Pixels, bits: NDArray[np.float64]
) -> tuple[Candidate, ...]:
    """Rectangles of a tile whose pixels take few bits for what networks spend on them.

    Args:
        places: in pixels from the tile's corner.
        pixels: of the tile, uint8 `[h, w, 1 or 3]`.
        bits: that networks spend on every position, `[h, w]`.
    """
    found = []
    for place in places:
        packed = lossless.pack(pixels[Patch(place, b"").area], effort=_CHEAP)
        rows = _overlaps(place.y, place.height, bits.shape[0])
        columns = _overlaps(place.x, place.width, bits.shape[1])
        one = Candidate(Patch(place, packed), float(rows @ bits @ columns))
        if one.bits < _HOPE * one.spent:
            found.append(one)
    return tuple(found)


def choose(
    candidates: tuple[Candidate, ...], loss: NDArray[np.float64], cost: float
) -> tuple[tuple[Patch, ...], float]:
    """Patches that cost less than what they take the place of, and the bits they save in all.

    They must save enough that they still do with what smooth colours in their place cost.

    Args:
        candidates: the promising ones.
        loss: squared error of every pixel of the tile, `[height, width]`, at its price in bits.
        cost: of the whole tile, in bits.
    """
    chosen, saved, spare = [], 0.0, 0.0
    for one in candidates:
        gain = one.spent + float(loss[one.patch.area].sum()) - one.bits
        if gain > _SPARE * one.bits:
            chosen.append(one.patch)
            saved += gain
            spare += _SPARE * one.bits
    if saved - spare <= _WORTH * cost:
        return (), 0.0
    return tuple(chosen), saved


def packed(found: tuple[Patch, ...], pixels: Pixels, effort: int) -> tuple[Patch, ...]:
    """Patches with their pixels packed as well as an effort of the codec's can."""
    return tuple(
        replace(one, packed=lossless.pack(pixels[one.area], effort=effort)) for one in found
    )


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
