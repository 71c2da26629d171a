"""Files that are damaged or unusual where it does not matter -> files that Pillow reads.

Only what leaves every pixel of the picture as it was: a JPEG that lacks its end marker and nothing
else, a WebP cut off behind its first picture, and PNG's texts that are too large for Pillow. Does
not decide what is let pass: `image.load` does.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diveqcodec.image.ends import CUT
from diveqcodec.limits import MAX_METADATA

_END: Final = b"\xff\xd9"
# What is read after the last byte of a scan, instead of nothing: any bits but those of the end.
_FILLERS: Final = (b"", b"\x55" * 4096, b"\xa6\x0b\x91" * 1400)
_START_OF_FRAME: Final = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_BARE: Final = {0x01, *range(0xD0, 0xD9)}  # markers without a length
_COEFFICIENTS: Final = 64

_WEBP_PICTURES: Final = {b"VP8 ", b"VP8L", b"ANMF"}

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_XMP: Final = b"XML:com.adobe.xmp\0"
_TOO_LARGE: Final = re.compile("too large|Too much memory")  # as Pillow says it
_TEXTS: Final = (b"tEXt", b"zTXt", b"iTXt")


@dataclass(frozen=True, slots=True)
class Mended:
    """A file that can be read instead, and what to say; `is_damage` is False for mere size."""

    file: BytesIO
    notice: str
    is_damage: bool


def mend(file: BinaryIO, error: Exception) -> Mended | None:
    """What to read instead of a file that Pillow refused, or None if there is nothing.

    Args:
        file: Seekable; its position is lost.
        error: What Pillow said.
    """
    file.seek(0)
    head = file.read(len(_PNG))
    if head.startswith(b"\xff\xd8\xff") and isinstance(error, OSError):
        file.seek(0)
        whole = _with_end(file.read())
        if whole is None:
            return None
        return Mended(BytesIO(whole), "damaged: the JPEG end marker is missing", True)
    if head.startswith(b"RIFF"):
        file.seek(0)
        whole = _without_cut_chunks(file.read())
        return None if whole is None else Mended(BytesIO(whole), CUT, True)
    if head == _PNG and _TOO_LARGE.search(str(error)):
        file.seek(0)
        limit = f"over {MAX_METADATA >> 20} MiB"
        data, lost = _without_texts(file.read())
        return Mended(BytesIO(data), f"{' and '.join(lost)} left out: {limit}", False)
    return None


def _with_end(data: bytes) -> bytes | None:
    """A JPEG with its end marker, if nothing else is missing.

    Bits past a scan that is whole are never looked at; where one is cut short they become a part
    of the picture. So all fillers give the same pixels just where the scan is whole.
    """
    data = data[:-1] if data.endswith(b"\xff") else data
    if data.endswith(_END) or not _has_all_scans(data):
        return None
    first = None
    for filler in _FILLERS:
        pixels = _decoded(data + filler + _END)
        if pixels is None or (first is not None and not np.array_equal(first, pixels)):
            return None
        first = pixels
    return data + _END


def _without_cut_chunks(data: bytes) -> bytes | None:
    """A WebP without the chunk that was cut off; None if no picture stands before it."""
    if data[8:12] != b"WEBP":
        return None
    end, kinds = 12, set[bytes]()
    while end + 8 <= len(data):
        following = end + 8 + (int.from_bytes(data[end + 4 : end + 8], "little") + 1 & -2)
        if following > len(data):
            break
        kinds.add(data[end : end + 4])
        end = following
    if not kinds & _WEBP_PICTURES:
        return None
    return b"RIFF" + struct.pack("<I", end - 8) + data[8:end]


def _decoded(data: bytes) -> NDArray[np.uint8] | None:
    try:
        with Image.open(BytesIO(data), formats=["JPEG"]) as image:
            return np.asarray(image)
    except Exception:  # Pillow's plugins raise nearly anything on damaged files
        return None


def _has_all_scans(data: bytes) -> bool:
    """Whether scans for all coefficients of all components have begun, to their last bit."""
    components: list[int] = []
    last: dict[tuple[int, int], int] = {}  # (component, coefficient) -> its lowest bit so far
    for marker, body in _segments(data):
        if marker in _START_OF_FRAME:
            if len(body) < 6 or len(body) < 6 + 3 * body[5]:
                return False
            components = [body[6 + 3 * i] for i in range(body[5])]
        elif marker == 0xDA:
            if not body or len(body) < 4 + 2 * body[0]:
                return False
            start, end, bits = body[1 + 2 * body[0] :][:3]
            for i in range(body[0]):
                for k in range(start, min(end, _COEFFICIENTS - 1) + 1):
                    last[body[1 + 2 * i], k] = bits & 15
    return bool(components) and all(
        last.get((component, k), 1) == 0 for component in components for k in range(_COEFFICIENTS)
    )


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Markers of a JPEG and their bodies; what lies between is passed over."""
    position = 2
    while True:
        position = data.find(b"\xff", position)
        if position < 0 or position + 4 > len(data):
            return
        marker = data[position + 1]
        if marker in (0x00, 0xFF) or marker in _BARE:
            position += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        yield marker, data[position + 4 : position + 2 + length]
        position += 2 + length


def _without_texts(data: bytes) -> tuple[bytes, list[str]]:
    """A PNG without texts but XMP, and without a profile or XMP over the limit; what was lost."""
    parts, lost, position = [_PNG], [], len(_PNG)
    while position + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        kind = data[position + 4 : position + 8]
        body = data[position + 8 : position + 8 + length]
        end = position + 12 + length
        name = {b"iCCP": "ICC profile", b"iTXt": "XMP data"}.get(kind)
        is_kept = kind not in _TEXTS or body.startswith(_XMP)
        if is_kept and name is not None and _inflates_past(body, kind):
            is_kept = False
            lost.append(name)
        if is_kept:
            parts.append(data[position:end])
        position = end
    return b"".join(parts), lost or ["texts"]


def _inflates_past(body: bytes, kind: bytes) -> bool:
    """Whether what a chunk holds is over the limit."""
    name_end = body.find(b"\0")
    if kind == b"iCCP":
        packed = body[name_end + 2 :]
    elif body[name_end + 1 : name_end + 2] == b"\0":  # not compressed
        return len(body) > MAX_METADATA
    else:
        packed = body[name_end + 3 :].split(b"\0", 2)[-1]
    try:
        inflater = zlib.decompressobj()
        return len(inflater.decompress(packed, MAX_METADATA + 1)) > MAX_METADATA
    except zlib.error:
        return False  # Pillow leaves it out
