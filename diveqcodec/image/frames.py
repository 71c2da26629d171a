"""Whether a picture file is all there, by its frame: what its chunks, sizes and marks announce.

Of the formats that are written here. Nothing is decoded and no checksum computed, so this takes a
few reads of a large file. In doubt a file is whole, for one that is not may be written over: bytes
that follow a picture, as some cameras leave them, do not matter. Knows no pixels and not Pillow.
"""

import re
import struct
from typing import BinaryIO, Final, Literal

from diveqcodec.image import tiff

State = Literal["whole", "cut", "else"]  # all there, not all there, no such file at all

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_PNG_FRAME: Final = 12  # length, type and checksum of a chunk
_JPEG: Final = b"\xff\xd8\xff"
_RIFF: Final = b"RIFF"
_TIFF: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PPM: Final = tuple(b"P%d" % kind for kind in range(1, 7))
_PPM_HEAD: Final = re.compile(rb"P([56])\s+(\d+)\s+(\d+)\s+(\d+)\s")
_HEAD_BYTES: Final = 64
_SCAN: Final = 0xDA  # the marker of a JPEG behind which its pixels come
_END: Final = b"\xff\xd9"


def state_of(file: BinaryIO) -> State:
    """What there is of a picture file of a format that `save` writes.

    Args:
        file: Seekable; its position is lost.

    Returns:
        "cut" also for an empty file and one of zeros, which a machine that went down may leave.
    """
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    if not head.strip(b"\0") and is_of_zeros(file):
        return "cut"
    if any(start.startswith(head) for start in (_PNG, _JPEG, _RIFF, *_TIFF, *_PPM)):
        return "cut"  # within the first bytes
    if head.startswith(_PNG):
        return "cut" if is_cut_png(file, size) else "whole"
    if head.startswith(_JPEG):
        file.seek(0)
        return "cut" if _is_cut_jpeg(file.read()) else "whole"
    if head.startswith(_RIFF) and b"WEBP".startswith(head[8:12]):
        is_cut = len(head) < 8 or 8 + int.from_bytes(head[4:8], "little") > size
        return "cut" if is_cut else "whole"
    if head.startswith(_TIFF):
        return "cut" if _is_cut_tiff(file, size) else "whole"
    if head.startswith(_PPM):
        return "cut" if _is_cut_ppm(head, size) else "whole"
    return "else"


def is_of_zeros(file: BinaryIO) -> bool:
    """Whether there is no byte but zeros, as where a system kept a name and a length alone."""
    file.seek(0)
    while block := file.read(1 << 20):
        if block.count(0) < len(block):
            return False
    return True


def is_cut_png(file: BinaryIO, size: int) -> bool:
    """Whether a PNG ends before its last chunk does."""
    position = len(_PNG)
    while position + _PNG_FRAME <= size:
        file.seek(position)
        head = file.read(8)
        position += _PNG_FRAME + int.from_bytes(head[:4], "big")
        if head[4:] == b"IEND":
            return position > size
    return True


def _is_cut_jpeg(data: bytes) -> bool:
    """Whether no end marker follows the first scan; a preview's own lies in a segment before it."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != _SCAN:
        is_filling = data[position + 1] == 0xFF
        position += 1 if is_filling else 2 + struct.unpack_from(">H", data, position + 2)[0]
    return data.find(_END, position) < 0


def _is_cut_tiff(file: BinaryIO, size: int) -> bool:
    try:
        return tiff.extent(file) > size
    except struct.error:  # a directory past the end
        return True
    except ValueError:  # none at all, which no cut leaves
        return False


def _is_cut_ppm(head: bytes, size: int) -> bool:
    if head[1:2] not in b"56":  # written in digits, or in bits, which is never done here
        return False
    match = _PPM_HEAD.match(head)
    if match is None:
        return size < _HEAD_BYTES and b"#" not in head  # a comment makes the head longer
    kind, width, height, largest = map(int, match.groups())
    samples = width * height * (3 if kind == 6 else 1)
    return match.end() + samples * (2 if largest > 255 else 1) > size
