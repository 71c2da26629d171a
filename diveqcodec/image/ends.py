"""Whether a file that Pillow has opened goes on to its end.

Pillow stops reading where a picture is whole, and says nothing of a file that is cut off after it:
of later frames that are gone, or of metadata that stood behind. Knows no pixels.
"""

from typing import Any, BinaryIO, Final

from PIL import Image

from diveqcodec.image.frames import is_cut_png

CUT: Final = "damaged: the file is cut off after the picture"

_GIF_HEAD: Final = 13
_GIF_IMAGE, _GIF_EXTENSION, _GIF_END = b",", b"!", b";"
_MP_ENTRIES: Final = 0xB002  # the tag of the index of pictures in an MPO file
_MP_MARK: Final = b"MPF\0"  # stands before what its offsets are counted from
_LOOKED_AT: Final = 1 << 18


def is_cut(image: Image.Image) -> bool:
    """Whether the file of an image that was opened lacks its end; its position is kept."""
    file: Any = getattr(image, "fp", None)
    test = {"PNG": is_cut_png, "GIF": _is_cut_gif}.get(image.format or "")
    if file is None or not (test or image.format == "MPO"):
        return False
    back = file.tell()
    size = file.seek(0, 2)
    try:
        return test(file, size) if test else _is_cut_mpo(image, file, size)
    finally:
        file.seek(back)


def _is_cut_gif(file: BinaryIO, size: int) -> bool:
    file.seek(_GIF_HEAD - 3)
    position = _GIF_HEAD + _table(file.read(1))
    while position < size:
        file.seek(position)
        kind = file.read(1)
        if kind == _GIF_END:
            return False
        if kind == _GIF_EXTENSION:
            position = _after_blocks(file, position + 2)
        elif kind == _GIF_IMAGE:
            flags = file.read(9)[8:]
            position = _after_blocks(file, position + 11 + _table(flags))
        else:  # what stands between blocks is passed over
            position += 1
    return True


def _table(flags: bytes) -> int:
    """Bytes of the colour table that some flags of GIF announce."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _after_blocks(file: BinaryIO, position: int) -> int:
    """Where a row of GIF's data blocks ends: with one of no bytes."""
    file.seek(position)
    while length := file.read(1):
        position += 1 + length[0]
        if not length[0]:
            break
        file.seek(position)
    else:
        position += 1  # past the end
    return position


def _is_cut_mpo(image: Image.Image, file: BinaryIO, size: int) -> bool:
    """By the index in the first picture, and by how the file ends.

    An index alone may be wrong: Pillow 12 writes one too large for three pictures and more.
    """
    file.seek(0)
    start = file.read(_LOOKED_AT).find(_MP_MARK) + len(_MP_MARK)
    index: Any = getattr(image, "mpinfo", None) or {}
    ends = [
        entry["DataOffset"] + entry["Size"] + start * bool(entry["DataOffset"])
        for entry in index.get(_MP_ENTRIES, ())
    ]
    if max(ends, default=0) <= size:
        return False
    file.seek(max(0, size - _LOOKED_AT))
    return not file.read().rstrip(b"\0").endswith(b"\xff\xd9")
