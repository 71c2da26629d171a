"""PNG files made by hand: any colour type and depth, also those that Pillow does not write."""

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> colour type


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(samples: NDArray[Any], bits: int, *chunks: bytes) -> bytes:
    """A file of samples `[H, W, 1...4]` of 1, 2, 4, 8 or 16 bits; the chunks stand before IDAT."""
    height, width, channels = samples.shape
    rows = samples.reshape(height, -1)
    if bits == 16:
        packed = rows.astype(">u2").view(np.uint8)
    elif bits == 8:
        packed = rows.astype(np.uint8)
    else:
        spread = (rows[..., None].astype(np.uint8) >> np.arange(bits - 1, -1, -1)) & 1
        packed = np.packbits(spread.reshape(height, -1), axis=1)
    lines = np.concatenate([np.zeros((height, 1), np.uint8), packed], axis=1)
    head = struct.pack(">IIBBBBB", width, height, bits, _TYPES[channels], 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(lines.tobytes()))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(chunks) + data + chunk(b"IEND", b"")
    )
