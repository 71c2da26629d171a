"""The `.dvq` container: a header and chunks <-> bytes. FORMAT.md describes it for other programs.

It checks all that can be checked without decoding: magic, version, checksums, limits, and that
each chunk is there exactly once and in order. It does not know models, symbols or pixels, nor the
name of the file, which the caller puts in front of the message.
"""

import struct
import zlib
from dataclasses import dataclass
from typing import Final

from diveqcodec.errors import DamagedError, FormatError

# The first byte is not ASCII, so that no text file is taken for a picture.
MAGIC: Final = b"\x8bDVQ"
VERSION: Final = 1

# Bytes of a file that are enough for `read_header`.
HEADER_BYTES: Final = 64

# Limits of the format, checked before anything is allocated.
MAX_PIXELS: Final = 1 << 28
MAX_SIDE: Final = 1 << 18
MAX_METADATA: Final = 16 << 20

# Tiles are 1024 pixels wide and high; a remainder narrower than 256 joins its neighbour.
TILE_SIZE: Final = 1024
TILE_MIN: Final = 256

# Chunk types. Bit 7 marks those that a program may skip when it does not know them.
_ANCILLARY: Final = 0x80
_TILE: Final = 0x01
_ALPHA: Final = 0x02
_ICC: Final = 0x81
_EXIF: Final = 0x82
_XMP: Final = 0x83
_NAMES: Final = {_TILE: "TILE", _ALPHA: "ALPH", _ICC: "ICC", _EXIF: "EXIF", _XMP: "XMP"}
_METADATA: Final = (_ICC, _EXIF, _XMP)

_GREY_FLAG: Final = 0x01
_ALPHA_FLAG: Final = 0x02

# Magic, version, flags, model id, gain index; width, height and the checksum follow.
_FIXED: Final = struct.Struct("<4sBB8sH")
_CRC: Final = struct.Struct("<I")
# Type, length, tile index, checksum of the indices, empty payload, checksum.
_SMALLEST_TILE_CHUNK: Final = 1 + 1 + 1 + 4 + 0 + 4
# Five bytes hold 35 bits: more than any number of this format.
_MAX_VARINT_BYTES: Final = 5


@dataclass(frozen=True, slots=True)
class Header:
    """What is known before any chunk is read.

    Attributes:
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
        model_id: The eight bytes that name the model.
        gain_index: Quality as the model's 16-bit index of log gain.
        is_grey: One colour channel instead of three.
        has_alpha: Each tile has an ALPH chunk.
    """

    width: int
    height: int
    model_id: bytes
    gain_index: int
    is_grey: bool = False
    has_alpha: bool = False


@dataclass(frozen=True, slots=True)
class Tile:
    """Position of an independently coded rectangle in its picture, in pixels."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class TileData:
    """The bytes of one tile.

    Attributes:
        index_crc: CRC-32 of the decoded indices: tells a wrong decoding from a right one.
        payload: The entropy-coded indices.
        alpha: The losslessly coded transparency; None unless the header says `has_alpha`.
    """

    index_crc: int
    payload: bytes
    alpha: bytes | None = None


@dataclass(frozen=True, slots=True)
class DvqFile:
    """A whole file: its header, its tiles in the order of `tile_grid`, and its metadata."""

    header: Header
    tiles: tuple[TileData, ...]
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None


def tile_grid(width: int, height: int) -> list[Tile]:
    """The tiles of a picture in raster order.

    Each side is cut every 1024 pixels; a last piece under 256 joins the one before it.
    Example: `width=2100, height=1300` gives columns 1024, 1076 and rows 1024, 276: four tiles.
    """
    return [
        Tile(x, y, tile_width, tile_height)
        for y, tile_height in _cut(height)
        for x, tile_width in _cut(width)
    ]


def write(file: DvqFile) -> bytes:
    """Turn a file into bytes; the inverse of `read`.

    Raises:
        FormatError: The picture or its metadata pass a limit, or tiles and header do not fit.
    """
    header = file.header
    _check_size(header)
    tile_count = len(tile_grid(header.width, header.height))
    if len(file.tiles) != tile_count:
        raise FormatError(f"{len(file.tiles)} tiles given for a picture of {tile_count}")
    parts = [_header_bytes(header)]
    for kind, data in zip(_METADATA, (file.icc, file.exif, file.xmp), strict=True):
        if data is None:
            continue
        if len(data) > MAX_METADATA:
            raise FormatError(
                f"{_NAMES[kind]} data of {len(data)} bytes; the limit is {MAX_METADATA}"
            )
        parts.append(_chunk_bytes(kind, _deflate(data)))
    for index, tile in enumerate(file.tiles):
        if (tile.alpha is not None) != header.has_alpha:
            raise FormatError(f"tile {index} and the header disagree about transparency")
        if tile.alpha is not None:
            parts.append(_chunk_bytes(_ALPHA, _varint_bytes(index) + tile.alpha))
        body = _varint_bytes(index) + _CRC.pack(tile.index_crc) + tile.payload
        parts.append(_chunk_bytes(_TILE, body))
    return b"".join(parts)


def read(data: bytes) -> DvqFile:
    """Turn the bytes of a whole file into its parts; the inverse of `write`.

    Raises:
        FormatError: Not a `.dvq` file, of another version, past a limit, or with an unknown chunk.
        DamagedError: Truncated, a wrong checksum, or chunks missing, repeated or out of order.
    """
    header, position = _parse_header(data)
    tile_count = len(tile_grid(header.width, header.height))
    if len(data) - position < tile_count * _SMALLEST_TILE_CHUNK:
        raise DamagedError(
            f"damaged: truncated, {len(data)} bytes cannot hold the {tile_count} tiles "
            f"of {header.width}x{header.height} pixels"
        )
    metadata: dict[int, bytes] = {}
    tiles: list[TileData] = []
    alpha: bytes | None = None
    while len(tiles) < tile_count:
        kind, body, position = _parse_chunk(data, position)
        if kind in _METADATA:
            if kind in metadata:
                raise DamagedError(f"damaged: a second {_NAMES[kind]} chunk")
            if tiles or alpha is not None or any(kind < earlier for earlier in metadata):
                raise DamagedError(f"damaged: chunk {_NAMES[kind]} is out of order")
            metadata[kind] = _inflate(body, _NAMES[kind])
        elif kind == _ALPHA:
            body = _after_index(body, _ALPHA, len(tiles) + (alpha is not None), tile_count)
            if not header.has_alpha:
                raise DamagedError("damaged: chunk ALPH in a picture without transparency")
            alpha = body
        elif kind == _TILE:
            body = _after_index(body, _TILE, len(tiles), tile_count)
            if header.has_alpha and alpha is None:
                raise DamagedError(f"damaged: chunk ALPH {len(tiles)} is missing")
            if len(body) < _CRC.size:
                raise DamagedError(f"damaged: chunk TILE {len(tiles)} is too short")
            (index_crc,) = _CRC.unpack_from(body)
            tiles.append(TileData(index_crc, body[_CRC.size :], alpha))
            alpha = None
        elif not kind & _ANCILLARY:
            raise FormatError(
                f"chunk type {kind} is unknown to this program; use a newer version of it"
            )
    if position != len(data):
        raise DamagedError(f"damaged: {len(data) - position} bytes follow the last tile")
    return DvqFile(header, tuple(tiles), *(metadata.get(kind) for kind in _METADATA))


def read_header(data: bytes) -> Header:
    """The header alone, from the first `HEADER_BYTES` bytes of a file or more.

    Raises:
        FormatError: Not a `.dvq` file, of another version, or past a limit.
        DamagedError: The header is truncated or its checksum does not match.
    """
    return _parse_header(data)[0]


def _cut(size: int) -> list[tuple[int, int]]:
    """(start, length) of the pieces of one side."""
    count = max(1, (size + TILE_SIZE - TILE_MIN) // TILE_SIZE)
    starts = [TILE_SIZE * i for i in range(count)]
    return [(a, b - a) for a, b in zip(starts, [*starts[1:], size], strict=True)]


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


def _header_bytes(header: Header) -> bytes:
    if len(header.model_id) != 8:
        raise FormatError(f"a model id has 8 bytes, not {len(header.model_id)}")
    if not 0 <= header.gain_index < 1 << 16:
        raise FormatError(f"gain index {header.gain_index} is not in 0...65535")
    flags = _GREY_FLAG * header.is_grey | _ALPHA_FLAG * header.has_alpha
    fixed = _FIXED.pack(MAGIC, VERSION, flags, header.model_id, header.gain_index)
    data = fixed + _varint_bytes(header.width) + _varint_bytes(header.height)
    return data + _CRC.pack(zlib.crc32(data))


def _parse_header(data: bytes) -> tuple[Header, int]:
    """The header and the position after it."""
    if not data.startswith(MAGIC):
        raise FormatError("not a .dvq file" if data else "not a .dvq file: it is empty")
    if len(data) > len(MAGIC) and data[len(MAGIC)] != VERSION:
        raise FormatError(
            f"written in bitstream version {data[len(MAGIC)]}; this program reads {VERSION}"
        )
    if len(data) < _FIXED.size:
        raise DamagedError("damaged: truncated in the header")
    _, _, flags, model_id, gain_index = _FIXED.unpack_from(data)
    width, position = _parse_varint(data, _FIXED.size, "the header")
    height, position = _parse_varint(data, position, "the header")
    end = position + _CRC.size
    if end > len(data):
        raise DamagedError("damaged: truncated in the header")
    if zlib.crc32(data[:position]) != _CRC.unpack_from(data, position)[0]:
        raise DamagedError("damaged: the checksum of the header does not match")
    if flags & ~(_GREY_FLAG | _ALPHA_FLAG):
        raise FormatError(f"flags {flags:#04x} are unknown to this program; use a newer version")
    header = Header(
        width, height, model_id, gain_index, bool(flags & _GREY_FLAG), bool(flags & _ALPHA_FLAG)
    )
    _check_size(header)
    return header, end


def _chunk_bytes(kind: int, body: bytes) -> bytes:
    data = bytes([kind]) + _varint_bytes(len(body)) + body
    return data + _CRC.pack(zlib.crc32(data))


def _parse_chunk(data: bytes, start: int) -> tuple[int, bytes, int]:
    """Type and body of the chunk at `start`, and the position after it."""
    if start >= len(data):
        raise DamagedError("damaged: truncated, a chunk TILE is missing")
    kind = data[start]
    name = _NAMES.get(kind, f"type {kind}")
    length, position = _parse_varint(data, start + 1, f"chunk {name}")
    end = position + length
    if end + _CRC.size > len(data):
        raise DamagedError(f"damaged: truncated in chunk {name}")
    body = data[position:end]
    if zlib.crc32(data[start:end]) != _CRC.unpack_from(data, end)[0]:
        if kind in (_TILE, _ALPHA) and body:
            name += f" {body[0]}" if body[0] < 0x80 else ""
        raise DamagedError(f"damaged: the checksum of chunk {name} does not match")
    return kind, body, end + _CRC.size


def _after_index(body: bytes, kind: int, expected: int, count: int) -> bytes:
    """The rest of a chunk's body after its tile index, which must be the expected one."""
    index, position = _parse_varint(body, 0, f"chunk {_NAMES[kind]}")
    if index >= count:
        raise DamagedError(f"damaged: chunk {_NAMES[kind]} {index}, but there are {count} tiles")
    if index < expected:
        raise DamagedError(f"damaged: chunk {_NAMES[kind]} {index} is repeated or out of order")
    if index > expected:
        raise DamagedError(f"damaged: chunk {_NAMES[kind]} {expected} is missing or out of order")
    return body[position:]


def _deflate(data: bytes) -> bytes:
    """Raw deflate: the chunk has its own checksum."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9)
    return compressor.compress(data) + compressor.flush()


def _inflate(data: bytes, name: str) -> bytes:
    """The inverse of `_deflate`; never more than MAX_METADATA bytes are made."""
    decompressor = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = decompressor.decompress(data, MAX_METADATA + 1)
    except zlib.error as error:
        raise DamagedError(f"damaged: chunk {name} cannot be inflated") from error
    if len(inflated) > MAX_METADATA:
        raise FormatError(f"chunk {name} inflates past the limit of {MAX_METADATA} bytes")
    if not decompressor.eof or decompressor.unused_data:
        raise DamagedError(f"damaged: chunk {name} does not end with its deflated data")
    return inflated


def _varint_bytes(value: int) -> bytes:
    """LEB128: seven bits a byte, the lowest first, bit 7 set on all but the last. 300 -> ac 02."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def _parse_varint(data: bytes, position: int, where: str) -> tuple[int, int]:
    """The value at `position` and the position after it; overlong forms are errors."""
    value = 0
    for i, byte in enumerate(data[position : position + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            if i and not byte:
                raise DamagedError(f"damaged: a number in {where} is longer than it need be")
            return value, position + i + 1
    if position + _MAX_VARINT_BYTES > len(data):
        raise DamagedError(f"damaged: truncated in {where}")
    raise DamagedError(f"damaged: a number in {where} is too long")
