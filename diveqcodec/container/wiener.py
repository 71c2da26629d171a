"""What the filters of a tile do to its pixels: integers in, integers out. FORMAT.md, "Filters".

Networks leave noise that a filter as wide as a few pixels sees best: small differences between
neighbours are noise, large ones are edges. So every tap is there twice, as it is and clipped to a
threshold; with both, a Wiener filter smooths one and keeps, or sharpens, the other. Blocks of 4x4
pixels are of a class by their activity, and the taps turn with the direction in which a block
varies most. Everything is computed from pixels of 8 bits that no filter has touched.

`BlockWindow` is what encoder and decoder share; it knows nothing of bytes or networks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from diveqcodec.container.filters import CLASSES, TAPS, Filters

HALO: Final = 3  # pixels around a tile that its filters see
BLOCK: Final = 4

Pixels = NDArray[np.uint8]
Plane = NDArray[np.int16]

# Pairs of neighbours, one of each; the other lies opposite.
_OFFSETS: Final = ((0, 1), (1, 0), (0, 2), (2, 0), (1, 1), (1, -1))
# What the pairs become in a block that varies most from row to row, and along the other diagonal.
_TURNED: Final = ((0, 1, 2, 3, 4, 5), (1, 0, 3, 2, 4, 5), (0, 1, 2, 3, 5, 4), (1, 0, 3, 2, 5, 4))
TURNS: Final = np.array([[*turn, *(6 + pair for pair in turn)] for turn in _TURNED])
# Sums of |second differences| of brightness, both ways, over the 64 pixels around a block.
_LIMITS: Final = 48 * np.array([1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 26, 32, 44, 56, 80])
SCALE: Final = 8  # bits behind the point of a coefficient
_BAND: Final = 32  # rows that are filtered at once: they stay in the cache


def threshold_of(number: int) -> int:
    """The threshold of a number, in the unit of components: 2, 3, 4, 6, … 384."""
    return (2 + number % 2) << number // 2


@dataclass(frozen=True, slots=True)
class BlockWindow:
    """Some rows and columns of blocks, and `HALO` pixels on each side of them.

    Attributes:
        pixels: uint8 `[h + 2 HALO, w + 2 HALO, 1 or 3]`, h and w multiples of 4.
        components: `[1 or 3, h + 2 HALO, w + 2 HALO]`: brightness, and two differences of colours.
        classes: `[h / 4, w / 4]`, by activity.
        turns: `[h / 4, w / 4]`: 1, the block varies most from row to row, + 2, along the other
            diagonal.
    """

    pixels: Pixels
    components: Plane
    classes: NDArray[np.intp]
    turns: NDArray[np.intp]

    @classmethod
    def of(cls, pixels: Pixels) -> BlockWindow:
        """Of pixels with their halo."""
        components = _components(pixels)
        classes, turns = _classified(components[0])
        return cls(pixels, components, classes, turns)

    def taps(self, component: int, threshold: int) -> Iterator[Plane]:
        """What the coefficients of a component multiply, not turned, `[h, w]` each.

        Args:
            component: Its number.
            threshold: In the unit of components.
        """
        plane = self.components[component]
        height, width = plane.shape[0] - 2 * HALO, plane.shape[1] - 2 * HALO
        centre = plane[HALO : HALO + height, HALO : HALO + width]
        clipped = []
        for row, column in _OFFSETS:
            differences = [
                plane[
                    HALO + way * row : HALO + way * row + height,
                    HALO + way * column : HALO + way * column + width,
                ]
                - centre
                for way in (1, -1)
            ]
            yield differences[0] + differences[1]
            for difference in differences:
                np.minimum(difference, threshold, out=difference)
                np.maximum(difference, -threshold, out=difference)
            clipped.append(differences[0] + differences[1])
        yield from clipped


def filtered(pixels: Pixels, filters: Filters) -> Pixels:
    """Filter pixels, and round them.

    Args:
        pixels: uint8 `[h + 2 HALO, w + 2 HALO, 1 or 3]`.
        filters: Of each component.

    Returns:
        uint8 `[h, w, 1 or 3]`.
    """
    height, width = pixels.shape[0] - 2 * HALO, pixels.shape[1] - 2 * HALO
    result = np.empty((height, width, pixels.shape[2]), np.uint8)
    for top in range(0, height, _BAND):
        rows = min(_BAND, height - top)
        window = BlockWindow.of(pixels[top : top + rows + 2 * HALO])
        result[top : top + rows] = _filtered(window, filters)
    return result


def _filtered(window: BlockWindow, filters: Filters) -> Pixels:
    """A band of pixels."""
    inner = window.pixels[HALO:-HALO, HALO:-HALO]
    total = inner.transpose(2, 0, 1).astype(np.int32) << SCALE
    for number, one in enumerate(filters):
        if one is None or not one.rows.any():
            continue
        part = _correction(window, number, threshold_of(one.threshold), one.rows)
        if len(total) == 1 or number == 0:
            total += part
        elif number == 1:
            total[0] += part
            total[2] -= part
        else:
            total[0] += part
            total[2] += part
            total[1] -= 2 * part
    rounded = (total + (1 << SCALE - 1)) >> SCALE
    clipped: Pixels = rounded.clip(0, 255).astype(np.uint8)
    return clipped.transpose(1, 2, 0)


def _correction(
    window: BlockWindow, component: int, threshold: int, rows: NDArray[np.int16]
) -> NDArray[np.int32]:
    """What a filter adds, times 2^SCALE: below 2^25, whatever it is."""
    table = rows[:, TURNS].reshape(CLASSES * 4, TAPS).T.astype(np.int32)
    index = window.classes * 4 + window.turns
    height, width = index.shape
    total = np.zeros((height, BLOCK, width * BLOCK), np.int32)
    product = np.empty_like(total)
    for tap, coefficients in zip(window.taps(component, threshold), table, strict=True):
        if coefficients.any():
            factors = coefficients[index].repeat(BLOCK, axis=1)[:, None]
            np.multiply(tap.reshape(total.shape), factors, out=product)
            total += product
    return total.reshape(height * BLOCK, width * BLOCK)


def _components(pixels: Pixels) -> Plane:
    """Brightness and two differences, `[1 or 3, h, w]`; a grey picture has three equal colours."""
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1), np.int16)
    if len(planes) == 1:
        return 3 * planes
    red, green, blue = planes
    both = red + blue
    return np.stack([both + green, red - blue, both - 2 * green])


def _classified(plane: Plane) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Classes and turns of the blocks of a plane with its halo."""
    double = 2 * plane[1:-1, 1:-1]
    ways = (
        (plane[:-2, 1:-1], plane[2:, 1:-1]),
        (plane[1:-1, :-2], plane[1:-1, 2:]),
        (plane[:-2, :-2], plane[2:, 2:]),
        (plane[:-2, 2:], plane[2:, :-2]),
    )
    down, across, falling, rising = (_sums(np.abs(double - one - other)) for one, other in ways)
    classes = np.searchsorted(_LIMITS, down + across, side="right")
    return classes, (down > across).astype(np.intp) + 2 * (falling > rising)


def _sums(values: Plane) -> NDArray[np.int32]:
    """Sums over 8x8 pixels, every four: `[4 h + 4, 4 w + 4]` to `[h, w]`."""
    pairs = values[::2].astype(np.int32) + values[1::2]
    rows = pairs[:-3:2] + pairs[1:-2:2] + pairs[2:-1:2] + pairs[3::2]
    pairs = rows[:, ::2] + rows[:, 1::2]
    sums: NDArray[np.int32] = pairs[:, :-3:2] + pairs[:, 1:-2:2] + pairs[:, 2:-1:2] + pairs[:, 3::2]
    return sums
