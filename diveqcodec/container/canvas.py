"""The picture that a decoder fills in, tile by tile; only the part of it that was asked for.

Knows nothing of how tiles are coded.
"""

from __future__ import annotations

import operator

import numpy as np
from numpy.typing import NDArray

from diveqcodec.container.bitstream import Header, Tile
from diveqcodec.errors import ConfigError

Pixels = NDArray[np.uint8]
Crop = tuple[int, int, int, int]  # left, top, width, height in pixels

_GREY = 128  # of what is lost
_OPAQUE = 255


def crop_area(header: Header, crop: Crop | None) -> Tile:
    """The part of a picture that a crop names; all of it for None.

    Raises:
        ConfigError: the crop is not four whole numbers, is empty, or leaves the picture.
    """
    if crop is None:
        return Tile(0, 0, header.width, header.height)
    try:
        x, y, width, height = map(operator.index, crop)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"crop {crop!r}: must be left, top, width and height, whole numbers"
        ) from error
    is_inside = x >= 0 and y >= 0 and x + width <= header.width and y + height <= header.height
    if width < 1 or height < 1 or not is_inside:
        raise ConfigError(
            f"crop {x},{y},{width},{height}: does not lie within the picture's "
            f"{header.width}x{header.height} pixels"
        )
    return Tile(x, y, width, height)


class Canvas:
    """Pixels `[h, w, 1 or 3]` and transparency `[h, w]` of an `area` of the picture.

    What nobody paints is grey and opaque.
    """

    def __init__(self, header: Header, area: Tile) -> None:
        self.area = area
        shape = area.height, area.width
        self.pixels = np.full((*shape, 1 if header.is_grey else 3), _GREY, np.uint8)
        self.alpha = np.full(shape, _OPAQUE, np.uint8) if header.has_alpha else None

    def paint(self, part: Tile, pixels: Pixels | None, alpha: Pixels | None) -> None:
        """Put in what there is of a rectangle, as far as it lies in the area.

        Args:
            part: Where it lies in the whole picture.
            pixels: `[h, w, 1 or 3]` of all of it, or None to leave them.
            alpha: `[h, w]` of all of it, or None to leave it.
        """
        area = self.area
        left, top = max(part.x, area.x), max(part.y, area.y)
        right = min(part.x + part.width, area.x + area.width)
        bottom = min(part.y + part.height, area.y + area.height)
        if left >= right or top >= bottom:
            return
        target = slice(top - area.y, bottom - area.y), slice(left - area.x, right - area.x)
        source = slice(top - part.y, bottom - part.y), slice(left - part.x, right - part.x)
        if pixels is not None:
            self.pixels[target] = pixels[source]
        if alpha is not None and self.alpha is not None:
            self.alpha[target] = alpha[source]
