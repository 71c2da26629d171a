"""Colour profile, EXIF and XMP of pictures: read from Pillow's images, and as its options to save.

Orientation is never kept, since pictures are stored upright; resolution is kept as a part of EXIF.
"""

import math
import re
import struct
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final, Literal

import numpy as np
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from diveqcodec.limits import MAX_METADATA

Format = Literal["png", "jpeg", "webp", "tiff", "ppm"]

# An APP1 segment of JPEG, less its length field and the longest prefix (that of XMP).
_JPEG_SEGMENT: Final = 65535 - 2 - 29
EXIF_PREFIX: Final = b"Exif\0\0"  # Pillow's `info` has it; pictures and files have not
_ORIENTATION: Final = ExifTags.Base.Orientation
_RESOLUTION: Final = (
    ExifTags.Base.XResolution,
    ExifTags.Base.YResolution,
    ExifTags.Base.ResolutionUnit,
)
_RESOLUTION_TAGS: Final = frozenset(map(int, _RESOLUTION))
_INCH: Final = 2
_CENTIMETRE: Final = 3
_DPI_PARTS: Final = 10_000  # the denominator of a stored resolution
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
EXIF_ERRORS: Final = (SyntaxError, ValueError, KeyError, TypeError, struct.error, OSError)
XMP_ORIENTATION: Final = re.compile(
    rb"""\s*(tiff:Orientation\s*=\s*("[^"]*"|'[^']*')"""
    rb"""|<tiff:Orientation>[^<]*</tiff:Orientation>)"""
)
UNREADABLE_EXIF: Final = "unreadable EXIF data left out"
# How far, in 8-bit steps, a profile may move colours and still be called sRGB.
_SRGB_TOLERANCE: Final = 1


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a file holds beside pixels, as `Picture` keeps it, but for the profile, which is raw."""

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None


def read_metadata(image: Image.Image, notices: list[str]) -> Metadata:
    """The metadata of a file's own image: an upright copy has no EXIF for TIFF."""
    icc = _as_bytes(image.info.get("icc_profile"))
    xmp = XMP_ORIENTATION.sub(b"", _as_bytes(image.info.get("xmp")) or b"") or None
    exif = None
    try:
        exif = _stored_exif(image)
    except EXIF_ERRORS:
        notices.append(UNREADABLE_EXIF)
    found = {"ICC profile": icc, "EXIF data": exif, "XMP data": xmp}
    for name, data in found.items():
        if data is not None and len(data) > MAX_METADATA:
            notices.append(f"{name} left out: over {MAX_METADATA >> 20} MiB")
            found[name] = None
    return Metadata(*found.values())


def stored_icc(icc: bytes, mode: str, channels: int, notices: list[str]) -> bytes | None:
    """The profile if it describes the pixels and is not sRGB."""
    if mode in ("CMYK", "LAB"):  # the pixels went through it, or could not; Pillow has made sRGB
        return None
    space = icc[16:20]
    try:
        if space == (b"GRAY" if channels == 1 else b"RGB "):
            return None if _is_srgb(icc, channels) else icc
        if channels == 1 and space == b"RGB " and _is_srgb(icc, 3):
            return None
    except (ImageCms.PyCMSError, OSError):
        notices.append("unreadable ICC profile left out")
        return None
    what = "ICC profile of another colour space" if is_profile(icc) else "unreadable ICC profile"
    notices.append(f"{what} left out")
    return None


def is_profile(icc: bytes) -> bool:
    """Whether a profile can be read, whatever it describes."""
    try:
        ImageCms.ImageCmsProfile(BytesIO(icc))
    except (ImageCms.PyCMSError, OSError):
        return False
    return True


def fits(icc: bytes, channels: int) -> bool:
    """Whether a profile is one of pixels with 1 or 3 channels."""
    return icc[16:20] == (b"GRAY" if channels == 1 else b"RGB ")


def grey_as_srgb(pixels: Any, icc: bytes) -> Any:
    """8-bit grey `[H, W, 1]` of a grey profile as colours `[H, W, 3]` of sRGB.

    A profile that cannot be read changes nothing.
    """
    grey = Image.fromarray(pixels[..., 0])
    try:
        converted = _to_srgb(grey, icc)
    except (ImageCms.PyCMSError, OSError):
        converted = None
    return np.asarray(grey.convert("RGB") if converted is None else converted)


def _to_srgb(image: Image.Image, icc: bytes) -> Any:
    """An 8-bit image of a profile, as RGB in sRGB."""
    return ImageCms.profileToProfile(
        image,
        ImageCms.ImageCmsProfile(BytesIO(icc)),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
    )


def _is_srgb(icc: bytes, channels: int) -> bool:
    """Whether colours stay the same from this profile to sRGB: names and versions vary too much."""
    ramp = np.arange(256, dtype=np.uint8)
    if channels == 1:
        colours = ramp[:, None]
    else:
        grid = np.stack(np.meshgrid(*[ramp[::51]] * 3), axis=-1).reshape(-1, 3)
        colours = np.concatenate([grid, np.repeat(ramp[:, None], 3, axis=1)])
    image = Image.fromarray(colours[None] if channels == 3 else colours.T)
    converted = _to_srgb(image, icc)
    moved = np.asarray(converted).reshape(-1, 3).astype(np.int16) - colours
    return bool(np.abs(moved).max() <= _SRGB_TOLERANCE)


def _stored_exif(image: Image.Image) -> bytes | None:
    """The EXIF block without orientation, and with the file's resolution."""
    exif = _own_exif(image)
    dpi = _dpi_of(image)
    if dpi is None or (exif is not None and not _RESOLUTION_TAGS.isdisjoint(_tags(exif))):
        return exif
    return _with_resolution(exif, dpi)


def _own_exif(image: Image.Image) -> bytes | None:
    raw = _as_bytes(image.info.get("exif"))
    if raw is not None:
        return _without_orientation(raw.removeprefix(EXIF_PREFIX))
    source = image.getexif()
    kept = Image.Exif()
    for tag in _DESCRIPTIVE:
        if tag in source:
            kept[tag] = source[tag]
    for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        if entries := source.get_ifd(directory):
            kept[directory] = entries
    return kept.tobytes().removeprefix(EXIF_PREFIX) if len(kept) else None


def _without_orientation(exif: bytes) -> bytes | None:
    """Cut orientation out of the first directory of a TIFF block; nothing else moves.

    Written anew, the block would lose its thumbnail and the maker's notes, which hold offsets.
    None if nothing is left. Raises ValueError if it is no TIFF block.
    """
    first = _Directory(exif)
    kept = [entry for entry in first.entries if first.tag(entry) != _ORIENTATION]
    if not kept and first.next == bytes(4):
        return None
    directory = struct.pack(first.order + "H", len(kept)) + b"".join(kept) + first.next
    size = first.end + 4 - first.start
    return exif[: first.start] + directory.ljust(size, b"\0") + exif[first.end + 4 :]


def exif_of_srgb(exif: bytes | None) -> bytes | None:
    """EXIF of pixels that are sRGB: where it says Adobe RGB it says sRGB instead, in place.

    As DCF 2.0 has it: interoperability index R03 becomes R98, and the colour space 1. Nothing
    moves, and a block that cannot be followed stays as it is.
    """
    if exif is None:
        return None
    try:
        details = _Directory(exif).below(exif, ExifTags.Base.ExifOffset)
        rules = details.below(exif, ExifTags.IFD.Interop)
        index = rules.where(ExifTags.Interop.InteropIndex)
        if exif[index + 8 : index + 11] != b"R03":
            return exif
        block = bytearray(exif)
        block[index + 8 : index + 11] = b"R98"
        if ExifTags.Base.ColorSpace in map(details.tag, details.entries):
            at = details.where(ExifTags.Base.ColorSpace) + 8
            struct.pack_into(details.order + "H", block, at, 1)
    except (ValueError, struct.error):
        return exif
    return bytes(block)


def _tags(exif: bytes) -> set[int]:
    """The tags of the first directory."""
    first = _Directory(exif)
    return {first.tag(entry) for entry in first.entries}


class _Directory:
    """A directory of a TIFF block, the first by default.

    Raises ValueError or struct.error if there is none.
    """

    def __init__(self, exif: bytes, start: int | None = None) -> None:
        order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
        if order is None:
            raise ValueError("no TIFF header")
        self.order = order
        self.start: int
        (self.start,) = (start,) if start is not None else struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, self.start)
        self.end = self.start + 2 + 12 * count
        if self.end + 4 > len(exif):
            raise ValueError("directory past the end")
        self.entries = [exif[i : i + 12] for i in range(self.start + 2, self.end, 12)]
        self.next = exif[self.end : self.end + 4]

    def tag(self, entry: bytes) -> int:
        """The tag of an entry."""
        tag: int = struct.unpack_from(self.order + "H", entry)[0]
        return tag

    def where(self, tag: int) -> int:
        """Where in the block the entry of a tag begins; ValueError if there is none."""
        return self.start + 2 + 12 * [self.tag(entry) for entry in self.entries].index(tag)

    def below(self, exif: bytes, tag: int) -> "_Directory":
        """The directory that a tag points to; ValueError if there is none."""
        (start,) = struct.unpack_from(self.order + "I", exif, self.where(tag) + 8)
        return _Directory(exif, start)


def _with_resolution(exif: bytes | None, dpi: tuple[float, float]) -> bytes:
    """Put a resolution into a TIFF block that has none.

    The first directory is written anew at the end: all that offsets point to stays where it was.
    """
    if exif is None:
        exif = b"II*\0" + struct.pack("<IHI", 8, 0, 0)
    first = _Directory(exif)
    order = first.order
    body = exif[:4] + struct.pack(order + "I", len(exif) + len(exif) % 2) + exif[8:]
    body += bytes(len(exif) % 2)
    values = len(body) + 2 + 12 * (len(first.entries) + 3) + 4  # where the two fractions will be
    x, y, unit = _RESOLUTION
    entries = [
        *first.entries,
        struct.pack(order + "HHII", x, 5, 1, values),
        struct.pack(order + "HHII", y, 5, 1, values + 8),
        struct.pack(order + "HHIHH", unit, 3, 1, _INCH, 0),
    ]
    entries.sort(key=first.tag)
    fractions = [n for value in dpi for n in (round(value * _DPI_PARTS), _DPI_PARTS)]
    directory = struct.pack(order + "H", len(entries)) + b"".join(entries) + first.next
    return body + directory + struct.pack(order + "4I", *fractions)


def _dpi_of(image: Image.Image) -> tuple[float, float] | None:
    """Dots per inch that a file states itself; Pillow makes some up where it does not."""
    tags: Any = getattr(image, "tag_v2", None)
    if tags is not None and not all(tag in tags for tag in _RESOLUTION):
        return None
    if image.format in ("JPEG", "MPO") and image.info.get("jfif_unit") not in (1, 2):
        return None
    try:
        x, y = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    limit = 2**32 / _DPI_PARTS
    return (x, y) if 0 < x < limit and 0 < y < limit else None


def _resolution(exif: bytes) -> tuple[float, float] | None:
    """Dots per inch that a TIFF block states."""
    block = Image.Exif()
    try:
        block.load(EXIF_PREFIX + exif)
        values: list[Any] = [block.get(tag) for tag in _RESOLUTION]
        x, y, unit = values
        scale = 2.54 if unit == _CENTIMETRE else 1.0
        dpi = float(x) * scale, float(y) * scale
    except EXIF_ERRORS + (ZeroDivisionError,):
        return None
    is_absolute = unit in (None, _INCH, _CENTIMETRE)
    return dpi if is_absolute and all(math.isfinite(v) and v > 0 for v in dpi) else None


def save_options(
    metadata: Metadata, channels: int, format: Format
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Pillow's options for the metadata that a format holds, and notices of the rest."""
    icc, exif, xmp = metadata.icc, metadata.exif, metadata.xmp
    lost = []
    is_colour = channels == 3 or format == "webp"  # WebP has no grey pictures
    if icc and (format == "ppm" or not fits(icc, 3 if is_colour else 1)):
        lost.append("ICC profile")
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
        options["exif"] = EXIF_PREFIX + exif
        if format != "webp" and (dpi := _resolution(exif)):
            options["dpi"] = dpi
    if xmp and format == "png":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
    elif xmp and format == "tiff":
        options["exif"] = Image.Exif()
        options["exif"].load(EXIF_PREFIX + exif if exif else None)
        options["exif"][_TIFF_XMP] = xmp
    elif xmp:
        options["xmp"] = xmp
    return options, tuple(f"{format} cannot hold the {what}" for what in lost)


def _is_readable(exif: bytes) -> bool:
    """Whether Pillow can read a block, which it must to write it as a part of a TIFF file."""
    block = Image.Exif()
    try:
        block.load(EXIF_PREFIX + exif)
        block.tobytes()
    except EXIF_ERRORS:
        return False
    return True


def _as_bytes(value: object) -> bytes | None:
    """Metadata as Pillow's plugins give them, or None when there are none."""
    if isinstance(value, str):
        value = value.encode()
    return value if isinstance(value, bytes) and value else None
