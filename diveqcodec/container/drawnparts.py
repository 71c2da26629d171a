"""Which rectangles of a tile look drawn: captions, logos, windows, around or upon a photograph.

Drawings have many pixels that are exactly the same as a neighbour, and sharp edges between them;
photographs have noise. What is found is only worth a try: an encoder compares costs. Knows nothing
of how anything is coded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diveqcodec.container.grid import Tile, meets

Pixels = NDArray[np.uint8]
Map = NDArray[np.bool_]

_BLOCK = 8
_SKIP = 4  # every so many rows are looked at first
_AROUND = 0.45  # share of pixels that are the same as a neighbour in 3x3 blocks,
_WITHIN = 0.2  # and in the block itself
_FIRST = 0.4, 0.01  # shares that a first look wants: the same as on the left, at sharp edges
_LINE = 0.6  # the same in rows and columns: where it is less, a rectangle ends
_STEP = 32  # levels of a sharp edge
_SHARP = 0.02  # share of pixels at sharp edges: a clear sky has none
_SMALLEST = 16  # blocks of a rectangle
_MOST = 16  # rectangles of a tile


def find(pixels: Pixels) -> list[Tile]:
    """Rectangles of a tile that look drawn, the largest first, in pixels from its corner.

    No two share a pixel, so that together they are no larger than the tile. Costs a hundredth of
    what coding the tile does where nothing looks drawn.

    Args:
        pixels: uint8 `[h, w, 1 or 3]`; what transparency hides is best of one colour.
    """
    height, width = (side // _BLOCK for side in pixels.shape[:2])
    if min(height, width) < 1 or height * width < _SMALLEST:
        return []
    if not _may_have_any(pixels):
        return []
    lines = _Lines.of(pixels)
    equal = (_shares(lines.left) + _shares(lines.above)) / 2
    chosen = _closed((_around(equal) > _AROUND) & (equal > _WITHIN))
    found: list[Tile] = []
    for _ in range(_MOST):
        rows, columns = _largest(chosen)
        if (rows.stop - rows.start) * (columns.stop - columns.start) < _SMALLEST:
            break
        chosen[rows, columns] = False
        place = lines.fitted(rows, columns, found)
        if place is not None:
            found.append(place)
            ends = place.y + place.height, place.x + place.width
            bottom, right = (-(-end // _BLOCK) for end in ends)
            chosen[place.y // _BLOCK : bottom, place.x // _BLOCK : right] = False
    return found


@dataclass(frozen=True, slots=True)
class _Lines:
    """Of every pixel `[h, w]`: whether it is the same as a neighbour, or at a sharp edge."""

    left: Map
    above: Map
    sharp: Map

    @classmethod
    def of(cls, pixels: Pixels) -> _Lines:
        shape = pixels.shape[:2]
        left, above = np.zeros(shape, np.int16), np.zeros(shape, np.int16)
        for channel in range(pixels.shape[2]):
            values = np.ascontiguousarray(pixels[..., channel], np.int16)
            for steps, axis in ((left[:, 1:], 1), (above[1:], 0)):
                np.maximum(steps, np.abs(np.diff(values, axis=axis)), out=steps)
        return cls(left == 0, above == 0, np.maximum(left, above) > _STEP)

    def fitted(self, rows: slice, columns: slice, others: list[Tile]) -> Tile | None:
        """A rectangle of blocks with its sides moved to where the drawing ends, in pixels.

        None if it has no sharp edges, or nothing is left. It meets none of the `others`, which
        have no pixel of these blocks.
        """
        same = self.left | self.above
        top, bottom, left, right = _reaching(rows, columns, same.shape, others)
        for _ in range(2):
            start, stop = _ends(same[top:bottom, left:right].mean(axis=0))
            left, right = left + start, left + stop
            if left == right:
                return None
            start, stop = _ends(same[top:bottom, left:right].mean(axis=1))
            top, bottom = top + start, top + stop
            if top == bottom:
                return None
        within = self.sharp[top + 1 : bottom, left + 1 : right]  # its own border is another's edge
        if not within.size or within.mean() < _SHARP:
            return None
        return Tile(left, top, right - left, bottom - top)


def _reaching(
    rows: slice, columns: slice, shape: tuple[int, ...], others: list[Tile]
) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of a rectangle of blocks that reaches into those around it.

    A block at the end of a drawing may have been too mixed. It ends where one of the others does.
    """
    reach, (height, width) = 2 * _BLOCK - 1, shape
    core = [_BLOCK * side for side in (rows.start, rows.stop, columns.start, columns.stop)]
    top, bottom = max(0, core[0] - reach), min(height, core[1] + reach)
    left, right = max(0, core[2] - reach), min(width, core[3] + reach)
    for other in others:
        if not meets(Tile(left, top, right - left, bottom - top), other):
            continue
        if other.y + other.height <= core[0]:
            top = other.y + other.height
        elif other.y >= core[1]:
            bottom = other.y
        elif other.x + other.width <= core[2]:
            left = other.x + other.width
        else:
            right = other.x
    return top, bottom, left, right


def _ends(shares: NDArray[np.float64]) -> tuple[int, int]:
    """The range of lines that look drawn: their shares are above the limit by most in all."""
    totals = np.concatenate([[0.0], np.cumsum(shares - _LINE)])
    gains = totals - np.minimum.accumulate(totals)
    stop = int(gains.argmax())
    return int(totals[: stop + 1].argmin()), stop


def _may_have_any(pixels: Pixels) -> bool:
    """Whether anything can look drawn, from every fourth row."""
    rows = pixels[::_SKIP]
    height = len(rows) // (_BLOCK // _SKIP) * (_BLOCK // _SKIP)
    codes = np.zeros(rows.shape[:2], np.uint32)
    for channel in range(rows.shape[2]):
        np.left_shift(codes, 8, out=codes)
        np.bitwise_or(codes, rows[..., channel], out=codes)
    equal, sharp = np.ones(codes.shape, np.bool_), np.zeros(codes.shape, np.bool_)
    np.equal(codes[:, 1:], codes[:, :-1], out=equal[:, 1:])
    values = np.ascontiguousarray(rows[..., rows.shape[2] // 2], np.int16)
    sharp[:, 1:] = np.abs(np.diff(values, axis=1)) > _STEP
    shares = (_around(_shares(flags[:height], _BLOCK // _SKIP)) for flags in (equal, sharp))
    is_equal, is_sharp = (share > least for share, least in zip(shares, _FIRST, strict=True))
    return np.count_nonzero(is_equal & is_sharp) >= _SMALLEST


def _shares(flags: Map, rows: int = _BLOCK) -> NDArray[np.float32]:
    """Shares of true ones in blocks of so many rows and 8 columns; a rest is left out."""
    height, width = len(flags) // rows, flags.shape[1] // _BLOCK
    blocks = flags[: height * rows, : width * _BLOCK].reshape(height, rows, width, _BLOCK)
    shares: NDArray[np.float32] = blocks.mean(axis=(1, 3), dtype=np.float32)
    return shares


def _around(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means over 3x3 blocks."""
    padded = np.pad(values, 1, mode="edge")
    height, width = values.shape
    total = sum(padded[i : i + height, j : j + width] for i in range(3) for j in range(3))
    return np.asarray(total, np.float32) / 9


def _closed(chosen: Map) -> Map:
    """Without the holes and gaps that are a block or two wide."""
    return ~_grown(~_grown(chosen))


def _grown(chosen: Map) -> Map:
    """With all neighbours, of 3x3 blocks."""
    padded = np.pad(chosen, 1)
    height, width = chosen.shape
    parts = [padded[i : i + height, j : j + width] for i in range(3) for j in range(3)]
    grown: Map = np.logical_or.reduce(parts)
    return grown


def _largest(chosen: Map) -> tuple[slice, slice]:
    """Rows and columns of the largest rectangle of true ones; empty if there is none.

    Row by row, from how many true ones stand above every place, by a stack of rising heights.
    """
    best, area = (slice(0, 0), slice(0, 0)), 0
    heights = [0] * chosen.shape[1]
    for bottom, row in enumerate(chosen.tolist(), 1):
        heights = [height + 1 if flag else 0 for height, flag in zip(heights, row, strict=True)]
        stack: list[tuple[int, int]] = []  # where a height begins, and the height
        for column, height in enumerate([*heights, 0]):
            start = column
            while stack and stack[-1][1] >= height:
                start, high = stack.pop()
                if high * (column - start) > area:
                    area = high * (column - start)
                    best = slice(bottom - high, bottom), slice(start, column)
            stack.append((start, height))
    return best
