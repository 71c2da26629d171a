"""Chunks of a `.dvq` file <-> bytes: numbers, checksums, deflated data. FORMAT.md, "Chunk".

Knows no chunk's meaning but its name for messages, and nothing of what must follow what.
"""

import zlib
from struct import Struct
from typing import Final

from diveqcodec.container.checksums import PartialSums
from diveqcodec.errors import DamagedError, FormatError

# Chunk types. Bit 7 marks those that a program may skip when it does not know them.
ANCILLARY: Final = 0x80
TILE: Final = 0x01
ALPHA: Final = 0x02
PIXELS: Final = 0x03
FILTERS: Final = 0x04
PATCHES: Final = 0x05
ICC: Final = 0x81
EXIF: Final = 0x82
XMP: Final = 0x83
NAMES: Final = {
    TILE: "TILE",
    ALPHA: "ALPH",
    PIXELS: "PIXL",
    FILTERS: "FILT",
    PATCHES: "PTCH",
    ICC: "ICC",
    EXIF: "EXIF",
    XMP: "XMP",
}
METADATA: Final = (ICC, EXIF, XMP)
FRONT: Final = (ALPHA, FILTERS, PATCHES)  # of a tile, before its TILE chunk, in this order
OF_TILES: Final = (TILE, PIXELS, *FRONT)  # their bodies begin with the index of a tile

CRC: Final = Struct("<I")
# Type, length, tile index, one number of each side, what fills them, checksum: a PIXL chunk.
SMALLEST_CHUNK: Final = 1 + 1 + 1 + 2 + 2 + 4
# Five bytes hold 35 bits: more than any number of this format.
_MAX_VARINT_BYTES: Final = 5


def chunk_bytes(kind: int, body: bytes) -> bytes:
    """A chunk of a type, with its length and checksum; the inverse of `parse_chunk`."""
    data = bytes([kind]) + varint_bytes(len(body)) + body
    return data + CRC.pack(zlib.crc32(data))


def parse_chunk(data: bytes, start: int, sums: PartialSums | None = None) -> tuple[int, bytes, int]:
    """Type and body of the chunk at `start`, and the position after it.

    `sums` of the data save time where chunks overlap that are none.

    Raises:
        DamagedError: it is truncated, or its checksum does not match.
    """
    if start >= len(data):
        raise DamagedError("damaged: truncated, a chunk TILE is missing")
    kind = data[start]
    name = NAMES.get(kind, f"type {kind}")
    length, position = parse_varint(data, start + 1, f"chunk {name}")
    end = position + length
    if end + CRC.size > len(data):
        raise DamagedError(f"damaged: truncated in chunk {name}")
    checksum = zlib.crc32(memoryview(data)[start:end]) if sums is None else sums.crc32(start, end)
    if checksum != CRC.unpack_from(data, end)[0]:
        if kind in OF_TILES and length:
            name += f" {data[position]}" if data[position] < 0x80 else ""
        raise DamagedError(f"damaged: the checksum of chunk {name} does not match")
    return kind, data[position:end], end + CRC.size


def deflate(data: bytes) -> bytes:
    """Raw deflate: the chunk has its own checksum."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9)
    return compressor.compress(data) + compressor.flush()


def inflate(data: bytes, name: str, limit: int) -> bytes:
    """The inverse of `deflate`; never more than `limit` bytes are made.

    Raises:
        FormatError: it would be more.
        DamagedError: it is not deflated data, or does not end with it.
    """
    decompressor = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = decompressor.decompress(data, limit + 1)
    except zlib.error as error:
        raise DamagedError(f"damaged: chunk {name} cannot be inflated") from error
    if len(inflated) > limit:
        raise FormatError(f"chunk {name} inflates past the limit of {limit} bytes")
    if not decompressor.eof or decompressor.unused_data:
        raise DamagedError(f"damaged: chunk {name} does not end with its deflated data")
    return inflated


def varint_bytes(value: int) -> bytes:
    """LEB128: seven bits a byte, the lowest first, bit 7 set on all but the last. 300 -> ac 02."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def parse_varint(data: bytes, position: int, where: str) -> tuple[int, int]:
    """The value at `position` and the position after it; overlong forms are errors.

    Raises:
        DamagedError: it is truncated, too long, or longer than it need be.
    """
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
