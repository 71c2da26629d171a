"""Any mode of Pillow's -> 8-bit pixels and transparency that look the same.

Some of it must be asked before an image is loaded, which is `samples_of`; the rest is `to_pixels`.
"""

from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any, Final

import numpy as np
from PIL import Image, ImageCms

from diveqcodec.errors import ImageError
from diveqcodec.image import grey
from diveqcodec.image.colour import Encoding, encoding_of, unknown_code
from diveqcodec.image.picture import Pixels

_CONVERTED: Final = 1 << 22  # pixels at once
_LOOKED_AT: Final = 1 << 14  # bytes in which a file says how many bits its samples have
_JP2_SIZE: Final = b"\xff\x4f\xff\x51"
_JP2_BITS_AT: Final = 42  # of the first component, from the start of the codestream
_AV1_CONFIGURATION: Final = b"av1C"


@dataclass(frozen=True, slots=True)
class Samples:
    """What is known of a file's samples, and lost when they are loaded.

    Attributes:
        is_grey: There is one colour channel, whatever the mode says.
        bits: Of a colour that Pillow cuts to 8 without a word, else 8.
        scale: Of deep grey, else None.
        encoding: Of colours that are not those of sRGB, else None.
        notice: Of colours that are taken for sRGB although they are not.
        opacity: By a transparent colour that 8 bits would take others for, else None.
    """

    is_grey: bool
    bits: int = 8
    scale: grey.ValueScale | None = None
    encoding: Encoding | None = None
    notice: str | None = None
    opacity: Image.Image | None = None


def samples_of(image: Image.Image) -> Samples:
    """What an image that was opened, but not loaded, is made of.

    Its transparent colour, if it has one, is brought to the samples that Pillow will make of it.
    """
    raw_mode = _raw_mode(image)
    is_grey = image.mode in ("1", "L", "LA", "La") or raw_mode.startswith("LA;")
    _mend_transparency(image, raw_mode)
    encoding, notice = encoding_of(image), unknown_code(image)
    if grey.is_deep(image.mode):
        scale, bits = grey.scale_of(image), _bits(image, raw_mode)
        if bits > 8 and ";16" not in raw_mode:  # more than 8 that Pillow has scaled to 16
            scale = replace(scale, depth=f"{bits}-bit")
        return Samples(True, 8, scale, encoding, notice)
    opacity = _opacity_of_deep(image, raw_mode)
    return Samples(is_grey, _bits(image, raw_mode), None, encoding, notice, opacity)


def to_pixels(
    image: Image.Image, samples: Samples, icc: bytes | None, name: str, notices: list[str]
) -> tuple[Pixels, Pixels | None]:
    """Pixels `[H, W, 1 or 3]` and alpha `[H, W]` that look like a loaded image.

    Args:
        image: Upright.
        samples: What `samples_of` said of it.
        icc: Its profile, for CMYK.
        name: What messages call it.
        notices: Gets what had to be changed.

    Raises:
        ImageError: Deep grey whose white cannot be told, or deep JPEG 2000 whose black cannot.
    """
    encoding = samples.encoding
    if encoding is not None:
        notices.append(encoding.notice)
    if samples.notice is not None:
        notices.append(samples.notice)
    if samples.scale is not None:
        values = np.asarray(image)
        ends = grey.range_of(values, samples.scale, name, notices)
        key = image.info.get("transparency")
        alpha = np.where(values == key, 0, 255).astype(np.uint8) if isinstance(key, int) else None
        curve = None if encoding is None else encoding.curve
        return grey.to_bytes(values, ends, curve), alpha
    if samples.bits > 8:
        notices.append(f"{samples.bits}-bit input coded as 8-bit")
    pixels, alpha = _eight_bits(image, icc, samples.is_grey, notices)
    if samples.bits > 8 and image.format == "JPEG2000":
        _check_white(pixels, alpha, f"{name}: {samples.bits}-bit JPEG 2000")
    return pixels if encoding is None else encoding.convert(pixels), alpha


def _eight_bits(
    image: Image.Image, icc: bytes | None, is_grey: bool, notices: list[str]
) -> tuple[Pixels, Pixels | None]:
    if image.mode == "CMYK" and icc is not None:
        through = _through_profile(image, icc)
        if through is not None:
            return through, None
        notices.append("CMYK converted without its unreadable ICC profile")
    pixels, alpha = _planes(image, "L" if is_grey else "RGB")
    if image.mode in ("P", "PA") and icc is None and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., :1].copy()  # a palette of greys
    return pixels, alpha


def _check_white(pixels: Pixels, alpha: Pixels | None, what: str) -> None:
    """Refuse samples that may be white or black.

    Pillow (13, and those before) rounds more than 8 bits of colours in JPEG 2000 without a look at
    the end of the range: white is 256 then, and comes out as 0.
    """
    doubtful = int((pixels == 0).sum()) + (0 if alpha is None else int((alpha == 0).sum()))
    if doubtful:
        raise ImageError(
            f"{what}: Pillow reads white as black, which {doubtful} samples may be; "
            "make a PNG of it first, such as with opj_decompress"
        )


def _planes(image: Image.Image, mode: str) -> tuple[Pixels, Pixels | None]:
    """Pixels `[H, W, 1 or 3]` in mode L or RGB, and alpha `[H, W]` of an image.

    Some rows at a time, for Pillow would hold all of them three times more.
    """
    width, height = image.size
    pixels = np.empty((height, width, len(mode)), np.uint8)
    alpha = np.empty((height, width), np.uint8) if image.has_transparency_data else None
    step = max(1, _CONVERTED // width)
    for top in range(0, height, step):
        part = image.crop((0, top, width, min(height, top + step)))
        rows = np.asarray(part.convert(mode if alpha is None else mode + "A"))
        rows = rows.reshape(*rows.shape[:2], -1)
        pixels[top : top + step] = rows[..., : len(mode)]
        if alpha is not None:
            alpha[top : top + step] = rows[..., -1]
    return pixels, alpha


def _through_profile(image: Image.Image, icc: bytes) -> Pixels | None:
    """CMYK as sRGB `[H, W, 3]`, or None if the profile cannot be read."""
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(icc))
        srgb = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return None
    return None if converted is None else np.array(converted)


def _raw_mode(image: Image.Image) -> str:
    """How samples lie in the file, in Pillow's words."""
    args = _arguments(image)
    if isinstance(args, tuple):
        args = args[0] if args else ""
    return args if isinstance(args, str) else ""


def _arguments(image: Image.Image) -> Any:
    """Those of the decoder that Pillow will use."""
    tiles = getattr(image, "tile", [])
    return tiles[0].args if tiles else None


def _bits(image: Image.Image, raw_mode: str) -> int:
    """How many bits samples have in the file, where they are more than 8; else 8."""
    if ";16" in raw_mode:
        return 16
    if image.format == "PPM":
        args = _arguments(image)
        largest = args[-1] if isinstance(args, tuple) else 0
        return max(8, largest.bit_length()) if isinstance(largest, int) else 8
    if image.format not in ("JPEG2000", "AVIF"):
        return 8
    file: Any = getattr(image, "fp", None)
    if file is None:
        return 8
    position = file.tell()
    file.seek(0)
    head = file.read(_LOOKED_AT)
    file.seek(position)
    return coded_bits(head)


def coded_bits(head: bytes) -> int:
    """Bits of a sample in a JPEG2000 or AVIF file that begins like this; 8 if it does not say."""
    if (start := head.find(_JP2_SIZE)) >= 0:
        bits = head[start + _JP2_BITS_AT : start + _JP2_BITS_AT + 1]
        return max(8, (bits[0] & 0x7F) + 1) if bits else 8
    if (start := head.find(_AV1_CONFIGURATION)) >= 0:
        flags = head[start + 6 : start + 7]
        if flags and flags[0] & 0x40:
            return 12 if flags[0] & 0x20 else 10
    return 8


def _mend_transparency(image: Image.Image, raw_mode: str) -> None:
    key = image.info.get("transparency")
    if image.format != "PNG" or key is None:
        return
    if raw_mode in ("L;2", "L;4"):
        white = (1 << int(raw_mode[-1])) - 1
        image.info["transparency"] = (key & white) * 255 // white
    elif raw_mode == "L":
        image.info["transparency"] = key & 255
    elif raw_mode == "RGB":
        image.info["transparency"] = tuple(value & 255 for value in key)


def _opacity_of_deep(image: Image.Image, raw_mode: str) -> Image.Image | None:
    """Where a PNG of 16-bit colours has not its transparent colour, as Pillow does not say.

    Pillow keeps the high bytes of samples. Read as of the other byte order they are the low ones.
    """
    file: Any = getattr(image, "fp", None)
    if image.format != "PNG" or raw_mode != "RGB;16B" or file is None:
        return None
    if (key := image.info.pop("transparency", None)) is None:
        return None
    back = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(back)
    differs = np.zeros((image.height, image.width), np.bool_)
    for shift, order in ((8, "RGB;16B"), (0, "RGB;16L")):
        with Image.open(BytesIO(data), formats=["PNG"]) as again:
            again.tile = [tile._replace(args=order) for tile in again.tile]
            differs |= (np.asarray(again) != [value >> shift & 255 for value in key]).any(axis=2)
    return Image.fromarray(differs.astype(np.uint8) * np.uint8(255))
