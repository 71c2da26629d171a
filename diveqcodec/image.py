"""Any picture file <-> 8-bit pixels, transparency and metadata, by way of Pillow.

`load` makes every mode that Pillow opens into one or three 8-bit channels that look the same, and
says in `notices` what it had to change. `save` writes them again. It does not know models, the
`.dvq` container, or who prints.
"""

import re
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError

from diveqcodec.errors import ImageError

Pixels = NDArray[np.uint8]
Format = Literal["png", "jpeg", "webp", "tiff", "ppm"]

# The same limits as the container's: a test compares them, because neither may import the other.
MAX_PIXELS: Final = 1 << 28
MAX_SIDE: Final = 1 << 18

# Pillow would start Ghostscript for the first, and the second is drawn by Windows alone.
_DRAWINGS: Final = ("EPS", "WMF")
# Formats that Pillow writes without transparency, and those that lose it without an error.
_OPAQUE: Final = ("jpeg", "ppm")
# An APP1 segment of JPEG, less its length field and the longest prefix (that of XMP).
_JPEG_SEGMENT: Final = 65535 - 2 - 29

_EXIF_PREFIX: Final = b"Exif\0\0"
_ORIENTATION: Final = ExifTags.Base.Orientation
# What is kept of a TIFF's own tags, where EXIF and the layout of the file share one directory.
_DESCRIPTIVE: Final = (
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.Software,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.Copyright,
)
_TIFF_XMP: Final = 700
# What Pillow and `_without_orientation` raise on a block that is none.
_EXIF_ERRORS: Final = (SyntaxError, ValueError, KeyError, TypeError, struct.error, OSError)
_XMP_ORIENTATION: Final = re.compile(
    rb"""\s*(tiff:Orientation\s*=\s*("[^"]*"|'[^']*')"""
    rb"""|<tiff:Orientation>[^<]*</tiff:Orientation>)"""
)
# How far, in 8-bit steps, a profile may move colours and still be called sRGB.
_SRGB_TOLERANCE: Final = 1


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


def load(
    source: str | Path | BinaryIO, *, name: str | None = None, max_pixels: int = MAX_PIXELS
) -> Picture:
    """Decode a picture of any format that Pillow reads, recognised by content.

    Args:
        source: A path, or a binary file.
        name: What messages call it; by default the path.
        max_pixels: Width times height above which a picture is refused before it is decoded.

    Raises:
        ImageError: It cannot be opened or decoded, or is too large.
    """
    name = name or str(source if isinstance(source, str | Path) else "<stream>")
    try:
        file = open(source, "rb") if isinstance(source, str | Path) else source  # noqa: SIM115
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise ImageError(f"{name}: {str(reason).lower()}") from error
    try:
        with _without_pillow_limit(), Image.open(file) as image:
            return _decode(image, name, max_pixels)
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: not an image that Pillow can read") from error
    except ImageError:
        raise
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{name}: cannot be decoded ({reason})") from error
    finally:
        if file is not source:
            file.close()


def save(picture: Picture, target: str | Path | BinaryIO, format: Format) -> tuple[str, ...]:
    """Write a picture; lossless except as JPEG (quality 95, no chroma subsampling).

    Metadata go with it where the format holds them. JPEG and PPM cannot hold transparency, which
    is an error rather than a guess at the background: `flatten` first.

    Returns:
        Notices of metadata that the format could not hold.

    Raises:
        ImageError: The format cannot hold the picture, or writing fails.
    """
    if format not in get_args(Format):
        raise ImageError(f"unknown format {format}; use one of {', '.join(get_args(Format))}")
    if picture.alpha is not None and format in _OPAQUE:
        raise ImageError(
            f"{format} cannot hold transparency; use png, webp or tiff, or give a background"
        )
    options, notices = _metadata_options(picture, format)
    if format == "jpeg":
        options |= {"quality": 95, "subsampling": 0}
    elif format == "webp":
        options |= {"lossless": True, "exact": True}
    elif format == "tiff" and picture.exif is None:
        options |= {"compression": "tiff_adobe_deflate"}  # libtiff cannot write EXIF directories
    planes = picture.pixels
    if picture.alpha is not None:
        planes = np.concatenate([planes, picture.alpha[..., None]], axis=2)
    image = Image.fromarray(planes[..., 0] if planes.shape[2] == 1 else planes)
    try:
        image.save(target, format, **options)
    except Exception as error:  # as for reading
        raise ImageError(f"cannot be written as {format} ({error})") from error
    return notices


def flatten(picture: Picture, background: tuple[int, int, int]) -> Picture:
    """Put a picture on a background of one colour (red, green, blue in 0...255).

    A grey picture turns to RGB when the background is not grey.
    """
    if picture.alpha is None:
        return picture
    pixels = picture.pixels
    if pixels.shape[2] == 1 and len(set(background)) > 1:
        pixels = np.repeat(pixels, 3, axis=2)
    alpha = picture.alpha[..., None].astype(np.uint16)
    colour = np.array(background[: pixels.shape[2]], dtype=np.uint16)
    mixed = (pixels * alpha + colour * (255 - alpha) + 127) // 255  # at most 65152: fits
    return replace(picture, pixels=mixed.astype(np.uint8), alpha=None)


def _decode(image: Image.Image, name: str, max_pixels: int) -> Picture:
    width, height = image.size
    if width * height > max_pixels or max(width, height) > MAX_SIDE:
        limit = f"{max_pixels // 1_000_000} million" if max_pixels >= 1_000_000 else max_pixels
        side = f", {MAX_SIDE} a side" if max(width, height) > MAX_SIDE else ""
        raise ImageError(f"{name}: {width}x{height} pixels; the limit is {limit}{side}")
    if image.format in _DRAWINGS:
        raise ImageError(f"{name}: a drawing ({image.format}); convert it to PNG first")
    notices = []
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        notices.append(f"the first of {frames} frames coded")
    image.load()
    icc = _as_bytes(image.info.get("icc_profile"))
    xmp = _XMP_ORIENTATION.sub(b"", _as_bytes(image.info.get("xmp")) or b"") or None
    exif, is_exif_readable = None, True
    try:
        exif = _stored_exif(image)  # of the file's own image: the upright copy has none for TIFF
    except _EXIF_ERRORS:
        is_exif_readable = False
    try:
        image = ImageOps.exif_transpose(image)  # a block cut short may still say what is up
    except _EXIF_ERRORS:
        exif, is_exif_readable = None, False
    if not is_exif_readable:
        notices.append("unreadable EXIF data left out")
    pixels, alpha = _to_pixels(image, icc, name, notices)
    if icc is not None:
        icc = _stored_icc(icc, image.mode, pixels.shape[2], notices)
    if alpha is not None and alpha.min() == 255:
        alpha = None
    return Picture(pixels, alpha, icc, exif, xmp, tuple(notices))


def _to_pixels(
    image: Image.Image, icc: bytes | None, name: str, notices: list[str]
) -> tuple[Pixels, Pixels | None]:
    """Pixels `[H, W, 1 or 3]` and alpha `[H, W]` that look like the image, whatever its mode."""
    if image.mode[0] in "IF":
        return _scaled_grey(image, name, notices)
    if image.mode == "CMYK" and icc is not None:
        try:
            profile = ImageCms.ImageCmsProfile(BytesIO(icc))
            srgb = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            notices.append("CMYK converted without its unreadable ICC profile")
        else:
            if converted is not None:
                return np.array(converted), None
    is_grey = image.mode in ("1", "L", "LA", "La")
    if not image.has_transparency_data:
        pixels = np.array(image.convert("L" if is_grey else "RGB"))
        alpha = None
    else:
        planes = np.array(image.convert("LA" if is_grey else "RGBA"))
        pixels, alpha = planes[..., :-1].copy(), planes[..., -1].copy()
    if image.mode in ("P", "PA") and icc is None and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., :1].copy()  # a palette of greys
    return pixels.reshape(*pixels.shape[:2], -1), alpha


def _scaled_grey(image: Image.Image, name: str, notices: list[str]) -> tuple[Pixels, Pixels | None]:
    """8-bit grey of modes with more bits.

    Integers are taken for 16-bit. Floats have no agreed white: 1, 255 or 65535, whichever is the
    least that holds them.
    """
    values = np.asarray(image)
    low, high = values.min(), values.max()
    white = 65535
    if image.mode == "F":
        if not np.isfinite(values).all():
            raise ImageError(f"{name}: pixels that are not finite; replace them first")
        white = next((w for w in (1, 255) if high <= w), white)
    if low < 0 or high > white:
        raise ImageError(f"{name}: grey values {low:g}...{high:g}; scale them to 0...65535 first")
    alpha = None
    key = image.info.get("transparency")
    if isinstance(key, int):
        alpha = np.where(values == key, 0, 255).astype(np.uint8)
    depth = "float" if image.mode == "F" else "16-bit"
    notices.append(f"{depth} input coded as 8-bit" + (f", white {white}" * (image.mode == "F")))
    pixels = np.floor(values * (255.0 / white) + 0.5).astype(np.uint8)
    return pixels[..., None], alpha


def _stored_icc(icc: bytes, mode: str, channels: int, notices: list[str]) -> bytes | None:
    """The profile if it describes the pixels and is not sRGB."""
    if mode == "CMYK":
        return None  # the pixels went through it, or could not
    space = icc[16:20]
    try:
        if space == (b"GRAY" if channels == 1 else b"RGB "):
            return None if _is_srgb(icc, channels) else icc
        if channels == 1 and space == b"RGB " and _is_srgb(icc, 3):
            return None
    except (ImageCms.PyCMSError, OSError):
        notices.append("unreadable ICC profile left out")
        return None
    notices.append("ICC profile of another colour space left out")
    return None


def _is_srgb(icc: bytes, channels: int) -> bool:
    """Whether colours stay the same from this profile to sRGB: names and versions vary too much."""
    ramp = np.arange(256, dtype=np.uint8)
    if channels == 1:
        colours = ramp[:, None]
    else:
        grid = np.stack(np.meshgrid(*[ramp[::51]] * 3), axis=-1).reshape(-1, 3)
        colours = np.concatenate([grid, np.repeat(ramp[:, None], 3, axis=1)])
    image = Image.fromarray(colours[None] if channels == 3 else colours.T)
    converted = ImageCms.profileToProfile(
        image,
        ImageCms.ImageCmsProfile(BytesIO(icc)),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
    )
    moved = np.asarray(converted).reshape(-1, 3).astype(np.int16) - colours
    return bool(np.abs(moved).max() <= _SRGB_TOLERANCE)


def _stored_exif(image: Image.Image) -> bytes | None:
    """The EXIF block without orientation."""
    raw = _as_bytes(image.info.get("exif"))
    if raw is not None:
        return _without_orientation(raw.removeprefix(_EXIF_PREFIX))
    source = image.getexif()
    kept = Image.Exif()
    for tag in _DESCRIPTIVE:
        if tag in source:
            kept[tag] = source[tag]
    for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        if entries := source.get_ifd(directory):
            kept[directory] = entries
    return kept.tobytes().removeprefix(_EXIF_PREFIX) if len(kept) else None


def _without_orientation(exif: bytes) -> bytes | None:
    """Cut orientation out of the first directory of a TIFF block; nothing else moves.

    Written anew, the block would lose its thumbnail and the maker's notes, which hold offsets.
    None if nothing is left. Raises ValueError if it is no TIFF block.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        raise ValueError("no TIFF header")
    (start,) = struct.unpack_from(order + "I", exif, 4)
    (count,) = struct.unpack_from(order + "H", exif, start)
    first, end = start + 2, start + 2 + 12 * count
    if end + 4 > len(exif):
        raise ValueError("directory past the end")
    entries = [exif[i : i + 12] for i in range(first, end, 12)]
    kept = [e for e in entries if struct.unpack_from(order + "H", e)[0] != _ORIENTATION]
    if not kept and exif[end : end + 4] == bytes(4):
        return None
    directory = struct.pack(order + "H", len(kept)) + b"".join(kept) + exif[end : end + 4]
    return exif[:start] + directory.ljust(end + 4 - start, b"\0") + exif[end + 4 :]


def _metadata_options(picture: Picture, format: Format) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Pillow's options for the metadata that a format holds, and notices of the rest."""
    icc, exif, xmp = picture.icc, picture.exif, picture.xmp
    lost = []
    if icc and (format == "ppm" or (format == "webp" and icc[16:20] == b"GRAY")):
        lost.append("ICC profile")  # WebP has no grey pictures
        icc = None
    if exif and (
        format == "ppm"
        or (format == "jpeg" and len(exif) > _JPEG_SEGMENT)
        or (format == "tiff" and not _is_readable(exif))
    ):
        lost.append("EXIF data")
        exif = None
    if xmp and (format == "ppm" or (format == "jpeg" and len(xmp) > _JPEG_SEGMENT)):
        lost.append("XMP data")
        xmp = None
    options: dict[str, Any] = {"icc_profile": icc} if icc else {}
    if exif:
        options["exif"] = _EXIF_PREFIX + exif
    if xmp and format == "png":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
    elif xmp and format == "tiff":
        options["exif"] = Image.Exif()
        options["exif"].load(_EXIF_PREFIX + exif if exif else None)
        options["exif"][_TIFF_XMP] = xmp
    elif xmp:
        options["xmp"] = xmp
    return options, tuple(f"{format} cannot hold the {what}" for what in lost)


def _is_readable(exif: bytes) -> bool:
    """Whether Pillow can read a block, which it must to write it as a part of a TIFF file."""
    block = Image.Exif()
    try:
        block.load(_EXIF_PREFIX + exif)
        block.tobytes()
    except _EXIF_ERRORS:
        return False
    return True


def _as_bytes(value: object) -> bytes | None:
    """Metadata as Pillow's plugins give them, or None when there are none."""
    if isinstance(value, str):
        value = value.encode()
    return value if isinstance(value, bytes) and value else None


class _PillowLimit:
    """Pillow's own limit on pixels, put aside while any thread is in `load`.

    It warns at 89 and refuses at 179 million pixels, below our limit, and is one variable for the
    whole process: the first to enter saves it, the last to leave restores it.
    """

    lock = threading.Lock()
    users = 0
    saved: int | None = None


@contextmanager
def _without_pillow_limit() -> Iterator[None]:
    with _PillowLimit.lock:
        if not _PillowLimit.users:
            _PillowLimit.saved, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _PillowLimit.users += 1
    try:
        yield
    finally:
        with _PillowLimit.lock:
            _PillowLimit.users -= 1
            if not _PillowLimit.users:
                Image.MAX_IMAGE_PIXELS = _PillowLimit.saved
