"""Grey with more than 8 bits -> 8 bits: what black and white are, and by which rule.

The rules, first that applies:

1. A tag of the file: TIFF's SMaxSampleValue or MaxSampleValue, if it holds 99 % of the pixels
   (and SMinSampleValue or MinSampleValue below zero for black).
2. The bits of the file: 16 are white at 65535, 12 at 4095, 16 with a sign at 32767.
3. Integers of 32 bits: 255 or 65535, whichever is the least that holds all.
4. Floats: 1, 255 or 65535, the least that holds 99 % of what is above 0, or half of the largest.

Values outside are clipped for 4, and for 1; other integers outside are refused. Where TIFF says
that white is zero, the result is turned round. Knows no file but by what Pillow says of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diveqcodec.errors import ImageError
from diveqcodec.image.picture import Pixels

Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]

_BITS_PER_SAMPLE: Final = 258
_PHOTOMETRIC: Final = 262
_WHITE_IS_ZERO: Final = 0
_MIN_SAMPLE: Final = (340, 280)  # of any type, and of integers only
_MAX_SAMPLE: Final = (341, 281)
_WHITES: Final = (1, 255, 65535)
_WIDE: Final = {"F": "float", "I": "32-bit"}  # modes whose values alone may tell what is white
# The share of pixels that may lie above white: a few are overshoot, or defects of a sensor.
_OVERSHOOT: Final = 0.01
# Below this part of the range, a notice: data of 14 bits or fewer in 16 look nearly black.
_SMALL: Final = 1 / 4
_FLAT: Final = 1 / 16
_ROWS: Final = 256


@dataclass(frozen=True, slots=True)
class ValueScale:
    """What a file says of its values; `tagged` and `white` are None where it says nothing.

    Attributes:
        tagged: White by a tag.
        white: White by the number of bits.
        black: In the same units.
        is_inverted: The file's white is zero, and Pillow has not turned it round.
        depth: What notices call such input.
    """

    tagged: float | None = None
    white: float | None = None
    black: float = 0.0
    is_inverted: bool = False
    depth: str = "16-bit"

    @property
    def is_float(self) -> bool:
        """Whether values need not be integers."""
        return self.depth == "float"


@dataclass(frozen=True, slots=True)
class Range:
    """The values of black and white; where `is_inverted`, of white and black."""

    black: float
    white: float
    is_inverted: bool = False


def is_deep(mode: str) -> bool:
    """Whether a mode of Pillow's is grey with more than 8 bits."""
    return mode[0] in "IF"


def scale_of(image: Image.Image) -> ValueScale:
    """What the file of an image that Pillow opened says of its deep grey values."""
    depth = _WIDE.get(image.mode, "16-bit")
    white: float | None = 65535.0 if image.mode.startswith("I;16") else None
    if image.mode == "I" and image.format in ("PPM", "PNG"):
        white, depth = 65535.0, "16-bit"  # Pillow has scaled to it
    tags: Any = getattr(image, "tag_v2", None)
    if tags is None:
        return ValueScale(None, white, depth=depth)
    bits = _number(tags.get(_BITS_PER_SAMPLE))
    if image.mode.startswith("I;16") and bits is not None and bits < 16:
        white, depth = 2.0**bits - 1, f"{bits:g}-bit"
    elif image.mode == "I" and bits == 16:
        white, depth = 32767.0, "16-bit"  # with a sign, or Pillow would call it I;16
    low = next((v for v in map(_number, map(tags.get, _MIN_SAMPLE)) if v is not None), 0.0)
    high = next((v for v in map(_number, map(tags.get, _MAX_SAMPLE)) if v is not None), None)
    black = min(low, 0.0)
    tagged = high if high is not None and high > black else None
    is_inverted = tags.get(_PHOTOMETRIC, _WHITE_IS_ZERO) == _WHITE_IS_ZERO
    return ValueScale(tagged, white, black if tagged else 0.0, is_inverted, depth)


def range_of(values: NDArray[Any], scale: ValueScale, name: str, notices: list[str]) -> Range:
    """Black and white of values `[H, W]` of any integer or float type.

    Args:
        values: What Pillow read.
        scale: What the file says of them.
        name: What messages call the picture.
        notices: Gets what the user may not expect.

    Raises:
        ImageError: There is no white that fits: values that are not finite, or out of range.
    """
    low, high = values.min(), values.max()
    if not np.isfinite(low) or not np.isfinite(high):  # NaN if there is one
        raise ImageError(f"{name}: pixels that are not finite; replace them first")
    black, white = scale.black, scale.tagged
    is_tagged = white is not None and _holds(values, white)
    if not is_tagged:
        black, white = 0.0, _white(values, scale)
    if white is None or (low < black and not (scale.is_float or is_tagged)):
        raise ImageError(f"{name}: grey values {low:g}...{high:g}; scale them to 0...65535 first")
    found = Range(black, white, scale.is_inverted)
    _note(values, found, scale.depth, notices)
    return found


def to_bytes(values: NDArray[Any], ends: Range, curve: Curve | None = None) -> Pixels:
    """Values `[H, W]` as 8-bit grey `[H, W, 1]`, cut to the range.

    Args:
        values: Of any integer or float type.
        ends: Black and white of them.
        curve: From a fraction of white to another; applied before anything is rounded.
    """
    result = np.empty((*values.shape, 1), np.uint8)
    for top in range(0, len(values), _ROWS):  # so that no float copy of a whole picture is made
        rows = values[top : top + _ROWS].astype(np.float64)
        grey = np.clip((rows - ends.black) * (255 / (ends.white - ends.black)), 0, 255)
        if ends.is_inverted:
            grey = 255 - grey
        if curve is not None:
            grey = curve(grey / 255) * 255
        result[top : top + _ROWS, :, 0] = np.floor(grey + 0.5)
    return result


def _white(values: NDArray[Any], scale: ValueScale) -> float | None:
    """White where no tag tells, or None if there is none that fits."""
    high = values.max()
    if scale.is_float:
        return next((w for w in _WHITES if high <= 2 * w or _holds(values, w)), None)
    if scale.white is not None:
        return scale.white if high <= scale.white else None
    return next((w for w in _WHITES[1:] if high <= w), None)


def _holds(values: NDArray[Any], white: float) -> bool:
    """Whether nearly all of what is not black is at most white."""
    return int((values > white).sum()) <= _OVERSHOOT * int((values > 0).sum())


def _note(values: NDArray[Any], ends: Range, depth: str, notices: list[str]) -> None:
    """Say what is lost, which white was taken, what was clipped, and that little is used."""
    black, white = ends.black, ends.white
    low, high = float(values.min()), float(values.max())
    # The white of 16 bits, or fewer that Pillow has scaled to it.
    is_plain = white == _WHITES[-1] and depth not in _WIDE.values()
    told = "" if is_plain else f", white {white:g}"
    notices.append(f"{depth} input coded as 8-bit{told}")
    if clipped := int(((values < black) | (values > white)).sum()):
        notices.append(f"{clipped} of {values.size} pixels outside {black:g}...{white:g} clipped")
    span = white - black
    is_dark = 0 < high - black <= _SMALL * span
    if is_dark or 0 < high - low < _FLAT * span:
        notices.append(
            f"values {low:g}...{high:g} fill little of {black:g}...{white:g}; "
            "scale them first for more contrast"
        )


def _number(value: Any) -> float | None:
    """A tag's first value, if it is a number."""
    if isinstance(value, tuple):
        value = value[0] if value else None
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None
