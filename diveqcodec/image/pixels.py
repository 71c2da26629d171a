"""Any mode of Pillow's -> 8-bit pixels and transparency that look the same.

Some of it must be asked before an image is loaded, which is `samples_of`; the rest is `to_pixels`.
"""

from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any, Final

import numpy as np
from PIL import Image, ImageCms

from diveqcodec.image import grey, jpeg2000
from diveqcodec.image.colour import Colours, colours_of
from diveqcodec.image.metadata import is_profile
from diveqcodec.image.picture import Pixels

_CONVERTED: Final = 1 << 22  # pixels at once
_LOOKED_AT: Final = 1 << 14  # bytes in which a file says how many bits its samples have
_AV1_CONFIGURATION: Final = b"av1C"


@dataclass(frozen=True, slots=True)
class Samples:
    """What is known of a file's samples, and lost when they are loaded.

    Attributes:
        is_grey: There is one colour channel, whatever the mode says.
        bits: Of a colour that Pillow cuts to 8 without a word, else 8.
        scale: Of deep grey, else None.
        colours: What the file says of them, a profile aside.
        opacity: By a transparent colour that 8 bits would take others for, else None.
        repair: Of an image whose white Pillow takes for black, else None.
        doubt: What is wrong with it where that cannot be repaired, and what to do; else None.
    """

    is_grey: bool
    bits: int = 8
    scale: grey.ValueScale | None = None
    colours: Colours = Colours()
    opacity: Image.Image | None = None
    repair: jpeg2000.Repair | None = None
    doubt: str | None = None

    def settle(self, image: Image.Image) -> None:
        """Finish an image that was just loaded."""
        if self.opacity is not None:
            image.putalpha(self.opacity)
        if self.repair is not None:
            self.repair.run(image)


def samples_of(image: Image.Image) -> Samples:
    """What an image that was opened, but not loaded, is made of.

    Its transparent colour, if it has one, is brought to the samples that Pillow will make of it;
    where these would be wrong Pillow is told to make others.
    """
    raw_mode = _raw_mode(image)
    is_grey = image.mode in ("1", "L", "LA", "La") or raw_mode.startswith("LA;")
    _mend_transparency(image, raw_mode)
    found = Samples(is_grey, colours=colours_of(image))
    if image.format == "JPEG2000":
        found = _of_jpeg2000(image, found)
    else:
        found = replace(found, bits=_bits(image, raw_mode))
    if grey.is_deep(image.mode):
        scale, bits = grey.scale_of(image), found.bits
        if bits > 8 and ";16" not in raw_mode:  # more than 8 that Pillow has scaled to 16
            scale = replace(scale, depth=f"{bits}-bit")
        return replace(found, is_grey=True, bits=8, scale=scale)
    return replace(found, opacity=_opacity_of_deep(image, raw_mode))


def _of_jpeg2000(image: Image.Image, found: Samples) -> Samples:
    file: Any = getattr(image, "fp", None)
    is_loaded = not getattr(image, "tile", None)
    headers = None if file is None or is_loaded else jpeg2000.look(file)
    if headers is None:
        return found
    found = replace(found, bits=max(8, *headers.bits))
    try:
        return replace(found, repair=jpeg2000.prepare(image, headers))
    except ValueError as error:
        return replace(found, doubt=f"{found.bits}-bit JPEG 2000: {error}")


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
        ImageError: Deep grey whose white cannot be told.
    """
    encoding, notice = samples.colours.encoding, samples.colours.notice
    if encoding is not None:
        notices.append(encoding.notice)
    if notice is not None:
        notices.append(notice)
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
    return pixels if encoding is None else encoding.convert(pixels), alpha


def _eight_bits(
    image: Image.Image, icc: bytes | None, is_grey: bool, notices: list[str]
) -> tuple[Pixels, Pixels | None]:
    if image.mode == "CMYK" and icc is not None:
        through = _through_profile(image, icc)
        if through is not None:
            return through, None
        is_other = icc[16:20] != b"CMYK" and is_profile(icc)
        what = "ICC profile of another colour space" if is_other else "unreadable ICC profile"
        notices.append(f"CMYK converted without its {what}")
    pixels, alpha = _planes(image, "L" if is_grey else "RGB")
    if image.mode in ("P", "PA") and icc is None and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., :1].copy()  # a palette of greys
    return pixels, alpha


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
    if image.format != "AVIF":
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
    """Bits of a sample in an AVIF file that begins like this; 8 if it does not say."""
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
