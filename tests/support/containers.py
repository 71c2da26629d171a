"""`.dvq` files of every kind, with bytes in place of payloads, and the same cut at their chunks."""

import struct
import zlib
from dataclasses import replace

from diveqcodec.container import chunks, header
from diveqcodec.container.bitstream import DvqFile, Header, TileData, write

HEADER = Header(width=512, height=333, model_id=b"modelid8", gain_index=0xABCD)
SMALL = DvqFile(HEADER, (TileData(0x12345678, b"payload"),))
FULL = DvqFile(
    Header(1300, 1400, b"\0\xff345678", 65535, is_grey=True, has_alpha=True),
    tuple(TileData(i, bytes([i]) * i, bytes([255 - i]) * (3 - i)) for i in range(4)),
    icc=b"colours" * 9,
    exif=b"",
    xmp=b"<x/>",
)
FILTERED = replace(
    FULL,
    header=replace(FULL.header, has_filters=True),
    tiles=tuple(
        replace(tile, filters=b"filter"[: 2 * i]) for i, tile in enumerate(FULL.tiles) if tile
    ),
)
PATCHED = replace(
    FILTERED,
    header=replace(FILTERED.header, has_patches=True, has_mirror=True),
    tiles=tuple(
        replace(tile, patches=b"patches"[: 2 * i]) for i, tile in enumerate(FILTERED.tiles) if tile
    ),
)


def chunk(kind, body):
    data = bytes([kind]) + chunks.varint_bytes(len(body)) + body
    return data + struct.pack("<I", zlib.crc32(data))


def header_and_chunks(file):
    """A written file, cut at its chunks."""
    data = write(file)
    position = len(header.header_bytes(file.header))
    parts = [data[:position]]
    while position < len(data):
        end = chunks.parse_chunk(data, position)[2]
        parts.append(data[position:end])
        position = end
    return parts
