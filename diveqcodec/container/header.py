"""The header of a `.dvq` file <-> bytes: all that is known before any chunk is read.

FORMAT.md, "Header". Knows nothing of chunks but how numbers and checksums are written.
"""

import struct
import zlib
from dataclasses import dataclass
from typing import Final

from diveqcodec.container.chunks import CRC, parse_varint, varint_bytes
from diveqcodec.errors import DamagedError, FormatError
from diveqcodec.limits import MAX_PIXELS, MAX_SIDE

# The first byte is not ASCII, so that no text file is taken for a picture.
MAGIC: Final = b"\x8bDVQ"
VERSION: Final = 1
SUFFIX: Final = ".dvq"
MIME: Final = "image/x-dvq"

# Bytes of a file that are enough for `read_header`.
HEADER_BYTES: Final = 64

# The model id of a file that needs none: all of its tiles are lossless.
NO_MODEL: Final = bytes(8)

_GREY_FLAG: Final = 0x01
_ALPHA_FLAG: Final = 0x02
_NO_MODEL_FLAG: Final = 0x04
_FILTERS_FLAG: Final = 0x08
_PATCHES_FLAG: Final = 0x10
_MIRROR_FLAG: Final = 0x20

# Magic, version, flags; then model id and gain index, unless the flags say that there are none;
# width, height and the checksum follow.
_FIXED: Final = struct.Struct("<4sBB")
_MODEL: Final = struct.Struct("<8sH")


@dataclass(frozen=True, slots=True)
class Header:
    """What is known before any chunk is read.

    Attributes:
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
        model_id: The eight bytes that name the model; `NO_MODEL` if no tile needs one.
        gain_index: Quality as the model's 16-bit index of log gain.
        is_grey: One colour channel instead of three.
        has_alpha: Each tile has an ALPH chunk, or its transparency in a PIXL chunk.
        has_filters: Each tile that networks code has a FILT chunk.
        has_patches: Each tile that networks code has a PTCH chunk.
        has_mirror: The synthesis is averaged over the picture and its mirror image.
    """

    width: int
    height: int
    model_id: bytes
    gain_index: int
    is_grey: bool = False
    has_alpha: bool = False
    has_filters: bool = False
    has_patches: bool = False
    has_mirror: bool = False


def header_bytes(header: Header) -> bytes:
    """The bytes of a header; the inverse of `parse_header`.

    Raises:
        FormatError: The picture passes a limit, or model and gain index are none.
    """
    _check_size(header)
    if len(header.model_id) != 8:
        raise FormatError(f"a model id has 8 bytes, not {len(header.model_id)}")
    if not 0 <= header.gain_index < 1 << 16:
        raise FormatError(f"gain index {header.gain_index} is not in 0...65535")
    flags = _GREY_FLAG * header.is_grey | _ALPHA_FLAG * header.has_alpha
    flags |= _FILTERS_FLAG * header.has_filters | _PATCHES_FLAG * header.has_patches
    flags |= _MIRROR_FLAG * header.has_mirror
    if header.model_id == NO_MODEL:
        if header.has_filters or header.has_patches or header.has_mirror:
            raise FormatError("filters, patches or a mirror without a model")
        if header.gain_index:
            raise FormatError(f"gain index {header.gain_index} without a model")
        fixed = _FIXED.pack(MAGIC, VERSION, flags | _NO_MODEL_FLAG)
    else:
        fixed = _FIXED.pack(MAGIC, VERSION, flags)
        fixed += _MODEL.pack(header.model_id, header.gain_index)
    data = fixed + varint_bytes(header.width) + varint_bytes(header.height)
    return data + CRC.pack(zlib.crc32(data))


def parse_header(data: bytes) -> tuple[Header, int]:
    """The header and the position after it; see `read_header`."""
    if not data.startswith(MAGIC):
        raise FormatError("not a .dvq file" if data else "not a .dvq file: it is empty")
    if len(data) > len(MAGIC) and data[len(MAGIC)] != VERSION:
        raise FormatError(
            f"written in bitstream version {data[len(MAGIC)]}; this program reads {VERSION}"
        )
    if len(data) < _FIXED.size:
        raise DamagedError("damaged: truncated in the header")
    _, _, flags = _FIXED.unpack_from(data)
    model_id, gain_index, position = NO_MODEL, 0, _FIXED.size
    if not flags & _NO_MODEL_FLAG:
        if len(data) < _FIXED.size + _MODEL.size:
            raise DamagedError("damaged: truncated in the header")
        model_id, gain_index = _MODEL.unpack_from(data, position)
        position += _MODEL.size
    width, position = parse_varint(data, position, "the header")
    height, position = parse_varint(data, position, "the header")
    end = position + CRC.size
    if end > len(data):
        raise DamagedError("damaged: truncated in the header")
    if zlib.crc32(data[:position]) != CRC.unpack_from(data, position)[0]:
        raise DamagedError("damaged: the checksum of the header does not match")
    kinds = _GREY_FLAG, _ALPHA_FLAG, _FILTERS_FLAG, _PATCHES_FLAG, _MIRROR_FLAG
    if flags & ~(sum(kinds) | _NO_MODEL_FLAG):
        raise FormatError(f"flags {flags:#04x} are unknown to this program; use a newer version")
    header = Header(width, height, model_id, gain_index, *(bool(flags & flag) for flag in kinds))
    if model_id == NO_MODEL and not flags & _NO_MODEL_FLAG:
        raise DamagedError("damaged: the header names model 0, which there is none of")
    if model_id == NO_MODEL and (header.has_filters or header.has_patches or header.has_mirror):
        raise DamagedError("damaged: the header tells of what a model does, but of no model")
    _check_size(header)
    return header, end


def read_header(data: bytes) -> Header:
    """The header alone, from the first `HEADER_BYTES` bytes of a file or more.

    Raises:
        FormatError: Not a `.dvq` file, of another version, or past a limit.
        DamagedError: The header is truncated or its checksum does not match.
    """
    return parse_header(data)[0]


def _check_size(header: Header) -> None:
    """Raise FormatError if the picture has no pixels or too many."""
    width, height = header.width, header.height
    if width < 1 or height < 1:
        raise FormatError(f"claims {width}x{height} pixels; a picture has at least one")
    if width * height > MAX_PIXELS:
        raise FormatError(
            f"claims {width}x{height} pixels; the limit is {MAX_PIXELS // 1_000_000} million"
        )
    if max(width, height) > MAX_SIDE:
        raise FormatError(f"claims {width}x{height} pixels; the limit of a side is {MAX_SIDE}")
