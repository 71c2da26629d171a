"""JPEG 2000 of more than 8 bits, which Pillow reads with white as black.

Pillow (13, and those before) rounds such samples to 8 bits without a look at the end of the range:
white becomes 256, and comes out as 0. So the number of bits that the file declares is changed
before Pillow sees it, which the two transforms of JPEG 2000 take differently:

- 9/7, floats: coefficients are scaled by the number of bits. Declared as 8, OpenJPEG itself scales
  the samples, rounds them and clips them.
- 5/3, integers: nothing is scaled, but black lies half of the range below zero. Declared one bit
  deeper, samples come out from a quarter of the range to three quarters. That is too coarse a
  picture, but it tells white from black.

Knows headers of files; samples are decoded by Pillow alone.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, Final

import numpy as np
from PIL import Image

_SIGNATURE: Final = b"\0\0\0\x0cjP  \r\n\x87\n"
_START: Final = b"\xff\x4f\xff\x51"  # of a codestream: SOC and SIZ
_BITS_AT: Final = 42  # of the first component, from the start of a codestream; 3 bytes each
_COD, _COC, _SOT, _SOD, _EOC = 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9
_SRGB, _SYCC = 16, 18  # enumerated colour spaces
_REVERSIBLE, _IRREVERSIBLE = 1, 0
_PART: Final = 1 << 22  # pixels at once


@dataclass(frozen=True, slots=True)
class Headers:
    """What a JPEG 2000 file says of its samples.

    Attributes:
        start: Of the codestream, in bytes.
        bits: Of each component.
        transforms: All that are used, as the file numbers them, as far as headers can be read.
        colours_at: Of the number of the colour space, in bytes, and that number; None without.
    """

    start: int
    bits: tuple[int, ...]
    transforms: frozenset[int]
    colours_at: tuple[int, int] | None

    @property
    def is_luma(self) -> bool:
        """Whether colours are luma and chroma, by the file's own word."""
        return self.colours_at is not None and self.colours_at[1] == _SYCC


@dataclass(frozen=True, slots=True)
class Repair:
    """What is to be done about an image when it is loaded.

    Attributes:
        second: The same, opened only, with samples declared one bit deeper.
        is_luma: Both are luma and chroma, which Pillow was not told.
    """

    second: Image.Image
    is_luma: bool

    def run(self, image: Image.Image) -> None:
        """Make those of the samples white that are 0 and should not be."""
        width, height = image.size
        step = max(1, _PART // width)
        white = 255 if image.mode != "I;16" else 65535
        for top in range(0, height, step):
            box = 0, top, width, min(height, top + step)
            part = image.crop(box)
            samples = np.array(part)
            if not samples.all():
                is_bright = np.asarray(self.second.crop(box)) > white // 2
                samples[is_bright & (samples == 0)] = white
                part = Image.frombytes(image.mode, part.size, samples.tobytes())
            if self.is_luma:
                part = _as_rgb(part)
            image.paste(part, box)


def look(file: BinaryIO) -> Headers | None:
    """The headers of a file, which stays where it is; None if they cannot be read."""
    back = file.tell()
    try:
        file.seek(0)
        start, colours_at = _codestream(file)
        bits = _bits(file, start)
        return Headers(start, bits, _transforms(file, start, len(bits)), colours_at)
    except (struct.error, ValueError, EOFError):
        return None
    finally:
        file.seek(back)


def prepare(image: Image.Image, headers: Headers) -> Repair | None:
    """Let an image that was opened, but not loaded, be read rightly.

    Returns:
        What else is to be done once it is loaded, or None.

    Raises:
        ValueError: white cannot be told from black; the text says why, and what to do.
    """
    file = getattr(image, "fp", None)
    whole = 16 if image.mode == "I;16" else 8  # bits to which Pillow brings samples
    if file is None or max(headers.bits) <= whole:
        return None
    if headers.transforms not in ({_REVERSIBLE}, {_IRREVERSIBLE}):
        raise ValueError(
            "Pillow would read white as black, and tiles or components of several transforms leave "
            "no way round it; make a PNG of it first, such as with opj_decompress"
        )
    file.seek(0)
    data = bytearray(file.read())
    if headers.transforms == {_IRREVERSIBLE}:
        _declare(data, headers, [min(bits, whole) for bits in headers.bits])
        _read_instead(image, data)
        return None
    is_luma = headers.is_luma and image.mode in ("RGB", "RGBA")
    if is_luma and headers.colours_at is not None:  # samples of their own kind, until mended
        data[headers.colours_at[0] : headers.colours_at[0] + 4] = struct.pack(">I", _SRGB)
        _read_instead(image, data)
    _declare(data, headers, [bits + (bits > whole) for bits in headers.bits])
    return Repair(_opened(data), is_luma)


def _read_instead(image: Image.Image, data: bytearray) -> None:
    """Let an image be loaded from other bytes."""
    other = _opened(data)
    if getattr(image, "_exclusive_fp", False):  # Pillow opened it, and would have closed it
        image.fp.close()  # type: ignore[attr-defined]
    image.fp, image.tile = other.fp, other.tile  # type: ignore[attr-defined]


def _opened(data: bytearray) -> Image.Image:
    return Image.open(BytesIO(data), formats=["JPEG2000"])


def _declare(data: bytearray, headers: Headers, bits: list[int]) -> None:
    """Change the number of bits of each component; that they have a sign stays."""
    for number, count in enumerate(bits):
        place = headers.start + _BITS_AT + 3 * number
        data[place] = data[place] & 0x80 | (count - 1)


def _as_rgb(part: Image.Image) -> Image.Image:
    luma, blue, red, *opacity = part.split()
    colours = Image.merge("YCbCr", (luma, blue, red)).convert("RGB")
    for band in opacity:
        colours.putalpha(band)
    return colours


def _codestream(file: BinaryIO) -> tuple[int, tuple[int, int] | None]:
    """Where it starts, and the colour space."""
    head = file.read(len(_SIGNATURE))
    if head.startswith(_START):
        return 0, None
    if head != _SIGNATURE:
        raise ValueError("not JPEG 2000")
    colours: tuple[int, int] | None = None
    for kind, start, end in _boxes(file, len(_SIGNATURE), None):
        if kind == b"jp2h":
            colours = _colours(file, start, end)
        if kind == b"jp2c":
            return start, colours
    raise ValueError("no codestream")


def _colours(file: BinaryIO, start: int, end: int | None) -> tuple[int, int] | None:
    """Of the first box of colours, which is what readers take."""
    for kind, place, _ in _boxes(file, start, end):
        if kind == b"colr":
            file.seek(place)
            method, _, _, space = struct.unpack(">BBBI", _read(file, 7))
            return (place + 3, space) if method == 1 else None
    return None


def _boxes(file: BinaryIO, start: int, end: int | None) -> Iterator[tuple[bytes, int, int | None]]:
    """Kind, start and end of the content of each box; the end is None for the rest of the file."""
    while end is None or start + 8 <= end:
        file.seek(start)
        length, kind = struct.unpack(">I4s", _read(file, 8))
        head = 8
        if length == 1:
            (length,) = struct.unpack(">Q", _read(file, 8))
            head = 16
        if length and length < head:
            raise ValueError("a box shorter than its head")
        stop = start + length if length else end
        yield kind, start + head, stop
        if stop is None:
            return
        start = stop


def _bits(file: BinaryIO, start: int) -> tuple[int, ...]:
    file.seek(start)
    head = _read(file, _BITS_AT)
    if not head.startswith(_START):
        raise ValueError("no codestream")
    (count,) = struct.unpack(">H", head[-2:])
    if not count:
        raise ValueError("no components")
    return tuple((value & 0x7F) + 1 for value in _read(file, 3 * count)[::3])


def _transforms(file: BinaryIO, start: int, components: int) -> frozenset[int]:
    """Those of the main header and of the headers of all parts of tiles, or those before damage."""
    found = set()
    with suppress(struct.error, ValueError, EOFError, IndexError):
        for marker, body in _segments(file, start + 2):
            if marker == _COD:
                found.add(body[9])
            elif marker == _COC:
                found.add(body[7 if components > 256 else 6])
    return frozenset(found)


def _segments(file: BinaryIO, place: int) -> Iterator[tuple[int, bytes]]:
    """Markers of all headers with what belongs to them, without the data of tiles."""
    after: int | None = None  # this part of a tile
    while True:
        file.seek(place)
        (marker,) = struct.unpack(">H", _read(file, 2))
        if marker == _EOC:
            return
        if marker == _SOD:
            if after is None:
                return
            place = after
            continue
        (length,) = struct.unpack(">H", _read(file, 2))
        if length < 2 or marker < 0xFF00:
            raise ValueError("no marker")
        body = _read(file, length - 2)
        if marker == _SOT:
            (part,) = struct.unpack_from(">I", body, 2)
            if 0 < part < 14:
                raise ValueError("a part of a tile shorter than its head")
            after = place + part if part else None
        yield marker, body
        place += 2 + length


def _read(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise EOFError
    return data
