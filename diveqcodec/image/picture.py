"""A picture in memory, and on a background. Knows no files."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from diveqcodec.image.metadata import grey_as_srgb

Pixels = NDArray[np.uint8]

_ROWS = 256  # that are mixed at once


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture, upright.

    Attributes:
        pixels: uint8 `[H, W, C]`, C = 1 (grey) or 3 (RGB); not multiplied by alpha.
        alpha: uint8 `[H, W]`, 0 transparent ... 255 opaque; None if all is opaque.
        icc: The colour profile; None means sRGB.
        exif: A TIFF block without the `Exif` prefix and without orientation.
        xmp: The XML packet, without orientation.
        notices: What was changed at loading, one short sentence each, without the file's name.
    """

    pixels: Pixels
    alpha: Pixels | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    notices: tuple[str, ...] = ()


def flatten(picture: Picture, background: tuple[int, int, int]) -> Picture:
    """Put a picture on a background of one colour (red, green, blue in 0...255).

    A grey picture turns to RGB when the background is not grey.
    """
    if picture.alpha is None:
        return picture
    pixels, icc = picture.pixels, picture.icc
    if pixels.shape[2] == 1 and len(set(background)) > 1:
        if icc is not None:
            pixels, icc = grey_as_srgb(pixels, icc), None  # no grey profile describes colours
        else:
            pixels = np.repeat(pixels, 3, axis=2)
    colour = np.array(background[: pixels.shape[2]], dtype=np.uint16)
    mixed = np.empty_like(pixels)
    for top in range(0, len(pixels), _ROWS):  # 16 bits of a huge picture would be many gigabytes
        rows = slice(top, top + _ROWS)
        alpha = picture.alpha[rows, :, None].astype(np.uint16)
        mixed[rows] = (pixels[rows] * alpha + colour * (255 - alpha) + 127) // 255  # below 2^16
    return replace(picture, pixels=mixed, alpha=None, icc=icc)
