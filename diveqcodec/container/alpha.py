"""The transparency of a tile <-> bytes, without loss.

A constant costs two bytes, a hard mask is coded as bits, soft edges are predicted row by row and
deflated. Colours that transparency hides are free: an encoder fills them in smoothly. It does not
know the container around the bytes, nor how colours are coded. FORMAT.md, "ALPH", has the layout.
"""

import numpy as np
from numpy.typing import NDArray

from diveqcodec.container.chunks import ALPHA, NAMES, deflate, inflate
from diveqcodec.errors import DamagedError, FormatError

Pixels = NDArray[np.uint8]

_CONSTANT, _TWO_VALUES, _ROWS = range(3)


def pack_alpha(alpha: Pixels) -> bytes:
    """Code the transparency of a tile, uint8 `[h, w]`, without loss. FORMAT.md has the layout.

    One value costs two bytes; two values are coded as bits; else each row is filtered by the
    predictor that leaves the least, as in PNG, with predictors that numpy can undo at once.
    """
    values = np.unique(alpha)
    if len(values) == 1:
        return bytes([_CONSTANT, values[0]])
    if len(values) == 2:
        bits = np.packbits(alpha == values[1], axis=1)
        bits[1:] ^= bits[:-1].copy()
        return bytes([_TWO_VALUES, *values]) + deflate(bits.tobytes())
    left = np.diff(alpha, axis=1, prepend=np.uint8(0))
    above = np.diff(alpha, axis=0, prepend=np.uint8(0))
    both = np.diff(left, axis=0, prepend=np.uint8(0))
    residuals = np.stack([alpha, left, above, both])  # [4, h, w], modulo 256
    effort = np.abs(residuals.astype(np.int8).astype(np.int16)).sum(axis=2)
    coded = []
    for filters in (np.zeros(len(alpha), np.uint8), effort.argmin(axis=0).astype(np.uint8)):
        rows = residuals[filters, np.arange(len(alpha))]
        coded.append(deflate(filters.tobytes() + rows.tobytes()))
    return bytes([_ROWS]) + min(coded, key=len)


def unpack_alpha(data: bytes, height: int, width: int) -> Pixels:
    """The inverse of `pack_alpha`; allocates no more than the tile needs.

    Raises:
        DamagedError: The bytes do not make a tile of this size.
    """
    if len(data) == 2 and data[0] == _CONSTANT:
        return np.full((height, width), data[1], dtype=np.uint8)
    if len(data) > 3 and data[0] == _TWO_VALUES:
        bits = _inflate(data[3:], height * (-(-width // 8))).reshape(height, -1)
        mask = np.unpackbits(np.bitwise_xor.accumulate(bits, axis=0), axis=1, count=width)
        return np.array([data[1], data[2]], dtype=np.uint8)[mask]
    if len(data) > 1 and data[0] == _ROWS:
        filters, alpha = np.split(_inflate(data[1:], height * (1 + width)).copy(), [height])
        if filters.max() > 3:
            raise DamagedError(f"damaged: transparency has the unknown filter {filters.max()}")
        alpha = alpha.reshape(height, width)
        previous = np.zeros(width, dtype=np.uint8)
        for row, kind in zip(alpha, filters, strict=True):
            if kind & 1:
                np.add.accumulate(row, out=row)
            if kind & 2:
                row += previous
            previous = row
        return alpha
    raise DamagedError("damaged: transparency of an unknown kind")


def fill_hidden(pixels: Pixels, alpha: Pixels) -> Pixels:
    """Replace the colours of fully transparent pixels by smooth ones that cost next to nothing.

    Averages of the visible pixels, in squares of doubling size until none is empty, are
    interpolated back into the holes (pull and push: Gortler et al., The Lumigraph, 1996).

    Args:
        pixels: `[h, w, C]`.
        alpha: `[h, w]`.

    Returns:
        `[h, w, C]`; visible pixels are unchanged, with none visible all are mid-grey.
    """
    hidden = alpha == 0
    if not hidden.any():
        return pixels
    if hidden.all():
        return np.full_like(pixels, 128)
    filled = _fill(pixels.astype(np.float32), ~hidden).round().astype(np.uint8)
    return np.where(hidden[..., None], filled, pixels)


def _fill(colours: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Colours `[h, w, C]` where `known` `[h, w]`, and smooth ones between them."""
    if known.all():
        return colours
    height, width = known.shape
    edge = ((0, height % 2), (0, width % 2))
    weight = np.pad(known, edge).astype(np.float32)[..., None]
    total = np.pad(colours * known[..., None], (*edge, (0, 0)))
    count = _sum_squares(weight)
    coarse = _fill(_sum_squares(total) / np.maximum(count, 1), count[..., 0] > 0)
    smooth = _double(_double(coarse, 0), 1)[:height, :width]
    return np.where(known[..., None], colours, smooth)


def _sum_squares(grid: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sums of squares of 2x2: `[2h, 2w, C]` to `[h, w, C]`."""
    pairs = grid[::2] + grid[1::2]
    sums: NDArray[np.float32] = pairs[:, ::2] + pairs[:, 1::2]
    return sums


def _double(grid: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Twice as many samples along an axis, linearly interpolated at quarters between the old."""
    grid = np.moveaxis(grid, axis, 0)
    padded = np.concatenate([grid[:1], grid, grid[-1:]])
    halves = (0.75 * grid + 0.25 * padded[:-2], 0.75 * grid + 0.25 * padded[2:])
    fine = np.stack(halves, axis=1).reshape(-1, *grid.shape[1:])
    return np.moveaxis(fine, 0, axis)


def _inflate(data: bytes, size: int) -> Pixels:
    """Exactly `size` bytes, or DamagedError."""
    try:
        inflated = inflate(data, NAMES[ALPHA], size)
    except DamagedError:
        raise
    except FormatError as error:
        raise DamagedError(f"damaged: transparency does not inflate to {size} bytes") from error
    if len(inflated) != size:
        raise DamagedError(f"damaged: transparency does not inflate to {size} bytes")
    return np.frombuffer(inflated, dtype=np.uint8)
