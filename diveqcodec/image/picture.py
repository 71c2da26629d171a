"""A picture in memory, and on a background. Knows no files."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from diveqcodec.errors import ConfigError
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

    def __post_init__(self) -> None:
        """Refuse planes that are no picture.

        Raises:
            ConfigError: types or shapes are not those above, or there is no pixel.
        """
        pixels, alpha = self.pixels, self.alpha
        if not (_is_plane(pixels, 3) and pixels.shape[2] in (1, 3)):
            raise ConfigError(f"pixels {_told(pixels)}: must be uint8 [H, W, 1 or 3]")
        if alpha is not None and not (_is_plane(alpha, 2) and alpha.shape == pixels.shape[:2]):
            size = list(pixels.shape[:2])
            raise ConfigError(f"alpha {_told(alpha)}: must be uint8 {size}, as the pixels are")


def _is_plane(values: object, ndim: int) -> bool:
    if not isinstance(values, np.ndarray):
        return False
    return values.dtype == np.uint8 and values.ndim == ndim and 0 not in values.shape


def _told(values: object) -> str:
    if isinstance(values, np.ndarray):
        return f"{values.dtype} {list(values.shape)}"
    return type(values).__name__


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
