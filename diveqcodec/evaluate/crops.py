"""Crops of decoded pictures at equal bytes, where two codecs differ most.

The first codec's file at a middle quality sets the bytes; the others search the quality whose file
comes nearest. Knows nothing of how crops are shown.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from diveqcodec.evaluate.metrics import Pixels, psnr
from diveqcodec.evaluate.results import Results, Row
from diveqcodec.evaluate.run import ImageCodec, colours_only
from diveqcodec.image import Picture, load
from diveqcodec.store import Place

SIDE = 192  # pixels of a crop, shown at twice the size
_STEP = 16  # crops are tried on this grid
_NEAR = 0.01  # of the bytes: near enough
_ENCODES = 8  # of one picture by one codec, at most

_Errors = npt.NDArray[np.int64]  # squared, summed over the colours, [H, W]


@dataclass(frozen=True, slots=True)
class Coded:
    """A picture through one codec.

    Attributes:
        name: Of the codec.
        quality: That gave these bytes.
        size: In bytes.
        psnr: Of the whole picture.
        pixels: What came back.
    """

    name: str
    quality: float
    size: int
    psnr: float
    pixels: Pixels


@dataclass(frozen=True, slots=True)
class Crop:
    """A square of a picture.

    Attributes:
        left: Of the square, in pixels.
        top: Of the square.
        width: `SIDE`, or that of a smaller picture.
        height: The same.
        title: Why it was chosen.
        rival: The place in `Comparable.coded` of the codec it was chosen beside; None if alone.
        original: The square as PNG.
        decoded: The same of every codec, in the order of `Comparable.coded`.
    """

    left: int
    top: int
    width: int
    height: int
    title: str
    rival: int | None
    original: bytes
    decoded: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Comparable:
    """A picture through every codec at equal bytes, and where to look."""

    image: str
    coded: tuple[Coded, ...]
    crops: tuple[Crop, ...]


def at_equal_bytes(
    path: Place, image: str, codecs: Sequence[ImageCodec], results: Sequence[Results]
) -> Comparable:
    """Code one picture with every codec to the bytes of the first.

    Args:
        path: Of the picture.
        image: Its name in the results.
        codecs: The first sets the bytes.
        results: Of each codec; they have this picture.

    Raises:
        DiveqError: It cannot be read or coded.
    """
    picture = colours_only(load(path))
    rows = [_rows(found, image) for found in results]
    middle = rows[0][(len(rows[0]) - 1) // 2]
    coded = [_code(codecs[0], picture, middle.quality)]
    for codec, its_rows in zip(codecs[1:], rows[1:], strict=True):
        coded.append(_nearest(codec, picture, its_rows, coded[0].size))
    return Comparable(image, tuple(coded), _crops(picture.pixels, coded))


def _rows(results: Results, image: str) -> list[Row]:
    """The rows of a picture by rising size."""
    return sorted((row for row in results.rows if row.image == image), key=lambda row: row.size)


def _code(codec: ImageCodec, picture: Picture, quality: float) -> Coded:
    data = codec.compress(picture, quality)
    pixels = codec.decompress(data).pixels
    return Coded(codec.name, quality, len(data), psnr(picture.pixels, pixels), pixels)


def _nearest(codec: ImageCodec, picture: Picture, rows: Sequence[Row], size: int) -> Coded:
    """The codec's file nearest to a size, by bisection between the qualities that were measured.

    A codec without `bounds` has only the qualities it was measured at.
    """
    sizes: dict[float, int] = {row.quality: row.size for row in rows}
    bounds: tuple[float, float] | None = getattr(codec, "bounds", None)

    def distance(quality: float) -> float:
        return abs(math.log(sizes[quality] / size))

    if bounds is not None:
        for _ in range(_ENCODES):
            below = max((q for q in sizes if sizes[q] <= size), default=bounds[0])
            above = min((q for q in sizes if sizes[q] > size), default=bounds[1])
            quality = _between(below, above, sizes, size)
            best = min(sizes, key=distance)
            if quality is None or distance(best) < _NEAR:
                break
            sizes[quality] = len(codec.compress(picture, quality))
    return _code(codec, picture, min(sizes, key=distance))


def _between(below: float, above: float, sizes: dict[float, int], size: int) -> float | None:
    """A quality to try next: where log size, straight between two qualities, meets the size.

    Kept off the ends, so that the bracket shrinks even where that line is far from the truth.
    None if there is nothing between.
    """
    if not below < above:
        return None
    if below not in sizes or above not in sizes:  # beyond what was measured: the end itself
        return below if below not in sizes else above
    low, high = math.log(sizes[below]), math.log(sizes[above])
    share = 0.5 if high == low else (math.log(size) - low) / (high - low)
    quality = below + (above - below) * min(max(share, 0.15), 0.85)
    return float(f"{quality:.4g}") if above - below > 1e-3 * above else None


def _crops(original: Pixels, coded: Sequence[Coded]) -> tuple[Crop, ...]:
    """Where the first codec is better than the best of the others, and where it is worse."""
    errors = [_errors(original, item.pixels) for item in coded]
    if len(errors) == 1:
        rival = None
        places = {"where the error is largest": _densest(errors[0])}
    else:
        rival = min(range(1, len(errors)), key=lambda place: int(errors[place].sum()))
        difference = errors[0] - errors[rival]
        name, other = coded[0].name, coded[rival].name
        places = {
            f"where {name} is worst beside {other}": _densest(difference),
            f"where {name} is best beside {other}": _densest(-difference),
        }
    crops, seen = [], set[tuple[int, int]]()
    for title, (top, left) in places.items():
        if (top, left) in seen:  # a picture smaller than a crop
            continue
        seen.add((top, left))
        area = slice(top, top + SIDE), slice(left, left + SIDE)
        height, width = original[area].shape[:2]
        decoded = tuple(_png(item.pixels[area]) for item in coded)
        crops.append(Crop(left, top, width, height, title, rival, _png(original[area]), decoded))
    return tuple(crops)


def _errors(original: Pixels, decoded: Pixels) -> _Errors:
    difference = original.astype(np.int64) - decoded.astype(np.int64)  # a grey one is broadcast
    squared: _Errors = (difference * difference).sum(2)
    return squared * (3 // difference.shape[2])


def _densest(values: _Errors) -> tuple[int, int]:
    """Top and left of the square with the largest sum, on the grid and at the far ends."""
    height, width = values.shape
    sums = np.zeros((height + 1, width + 1), np.int64)
    sums[1:, 1:] = values.cumsum(0).cumsum(1)
    rows, columns = _places(height), _places(width)
    places = ((top, left) for top in rows for left in columns)
    return max(places, key=lambda place: _sum(sums, *place))


def _places(length: int) -> list[int]:
    last = max(0, length - SIDE)
    return [*range(0, last, _STEP), last]


def _sum(sums: _Errors, top: int, left: int) -> int:
    bottom, right = min(top + SIDE, sums.shape[0] - 1), min(left + SIDE, sums.shape[1] - 1)
    total: Any = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return int(total)


def _png(pixels: Pixels) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(
        stream, "PNG", optimize=True
    )
    return stream.getvalue()
