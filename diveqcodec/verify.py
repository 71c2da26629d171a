"""Whether a file is one of the picture it was made from: what `compress --verify` asks.

All that is kept exactly has to be the same: size, transparency, metadata, lossless tiles and
patches. Of a tile that networks coded it is asked that it is nearer to the original than another
picture would be.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from diveqcodec.container import bitstream, patches
from diveqcodec.container.pixelfile import area_of, layout_of
from diveqcodec.image import Picture
from diveqcodec.quality import Scale

_SIDE: Final = 16  # pixels of a block

# The squared error of a coded tile is at most its variance, which is that of its mean colour alone,
# and what the mean may be off by. Another picture is off by the variances of both and by the
# difference of their means.
_SHARE: Final = 1.1
_LEVELS: Final = 100.0  # of what networks may do to a flat tile: 28 dB


def differences(
    data: bytes, decoded: Picture, picture: Picture, scale: Scale | None = None
) -> tuple[str, ...]:
    """What a file has otherwise than the picture it was made from; nothing if all is well.

    Args:
        data: All bytes of the file, which is whole.
        decoded: What it decodes to.
        picture: What it was made from.
        scale: Of the model that coded it; None for a file without one.
    """
    is_as_large = decoded.pixels.shape == picture.pixels.shape
    same = {
        "size": is_as_large,
        "transparency": not is_as_large or _same_alpha(decoded, picture),
        "pixels": not is_as_large or _similar(data, decoded, picture, scale),
        "ICC profile": decoded.icc == picture.icc,
        "EXIF data": decoded.exif == picture.exif,
        "XMP data": decoded.xmp == picture.xmp,
    }
    return tuple(name for name, is_same in same.items() if not is_same)


def _same_alpha(one: Picture, other: Picture) -> bool:
    """An opaque picture may have its transparency written out, or not."""
    first, second = (np.uint8(255) if p.alpha is None else p.alpha for p in (one, other))
    return bool(np.all(first == second))


def _similar(data: bytes, decoded: Picture, picture: Picture, scale: Scale | None) -> bool:
    """Whether every tile has the pixels it should, where they can be seen."""
    file = bitstream.read(data)
    layout, off = layout_of(file), _LEVELS
    if scale is not None:  # the mean of a block, its first component, may be off by a cell
        cell = 127.5 * math.exp(-scale.log_gain(file.header.gain_index))
        off += (cell / _SIDE) ** 2
    for index, (tile, is_lossless) in enumerate(
        zip(layout.grid, layout.lossless.flat, strict=True)
    ):
        pixels, alpha = area_of(picture, tile)
        others, _ = area_of(decoded, tile)
        seen = np.ones(pixels.shape[:2], np.bool_) if alpha is None else alpha > 0
        if not seen.any():
            continue
        patched = _patched(file, tile, index)
        if (pixels != others).any(axis=2)[patched & seen].any():
            return False
        seen &= ~patched
        if not seen.any():
            continue
        wanted, found = pixels[seen].astype(np.float64), others[seen]
        error = float(np.square(wanted - found).mean())
        limit = 0.0 if is_lossless else _SHARE * float(wanted.var(axis=0).mean()) + off
        if error > limit:
            return False
    return True


def _patched(file: bitstream.DvqFile, tile: bitstream.Tile, index: int) -> NDArray[np.bool_]:
    """Which pixels of a tile are in its patches."""
    patched = np.zeros((tile.height, tile.width), np.bool_)
    data = file.tiles[index]
    for patch in patches.unpack((data and data.patches) or b"", tile.height, tile.width):
        patched[patch.area] = True
    return patched
