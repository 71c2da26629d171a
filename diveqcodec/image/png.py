"""Large PNG files, by several threads: bands of rows are filtered and deflated on their own.

What stands around the pixels is Pillow's, of a picture of one row; so there is one place that knows
profiles and texts. Bands are the same for any number of threads, and so are the bytes. The whole of
the pixels is never copied. Source: PNG (ISO/IEC 15948), chapters 5 to 9. Reads nothing.
"""

import zlib
from collections.abc import Iterator
from io import BytesIO
from struct import Struct
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diveqcodec.threads import ordered_map

Pixels = NDArray[np.uint8]

BAND: Final = 1 << 20  # bytes of pixels, about; each begins without what was before it
_HEAD: Final = 8
_CHUNK: Final = Struct(">I4s")
_CRC: Final = Struct(">I")
_SIZE: Final = Struct(">II")
_ZLIB_HEAD: Final = b"\x78\x9c"  # deflate, a window of 32 kB, the default level
_LEVEL: Final = 6


def is_large(pixels: Pixels) -> bool:
    """Whether a picture has more than one band; Pillow writes others as well."""
    return pixels.size > BAND


def write(
    file: BinaryIO,
    pixels: Pixels,
    alpha: Pixels | None,
    options: dict[str, Any],
    workers: int = 1,
) -> None:
    """Write a PNG file.

    Args:
        file: Where to.
        pixels: `[h, w, 1 or 3]`.
        alpha: `[h, w]`, or None.
        options: Pillow's, of metadata.
        workers: Threads that filter and deflate.
    """
    rows = _Rows(pixels, alpha)
    start = 0
    for kind, body in _chunks(rows.frame(options)):
        if kind == b"IHDR":
            file.write(b"\x89PNG\r\n\x1a\n")
            height, width = pixels.shape[:2]
            _put(file, kind, _SIZE.pack(width, height) + body[_SIZE.size :])
        elif kind != b"IDAT":
            _put(file, kind, body)
        elif not start:
            start = 1
            for part in _deflated(rows, workers):
                _put(file, kind, part)


class _Rows:
    """The rows of a picture as PNG has them, made band by band."""

    def __init__(self, pixels: Pixels, alpha: Pixels | None) -> None:
        self.pixels, self.alpha = pixels, alpha
        self.height, width, channels = pixels.shape
        self.step = channels + (alpha is not None)  # bytes of a pixel
        self.stride = width * self.step
        self.count = max(1, BAND // self.stride)  # rows of a band

    def frame(self, options: dict[str, Any]) -> bytes:
        """The file of the first row alone."""
        row = self.raw(0, 1).reshape(1, -1, self.step)
        stream = BytesIO()
        Image.fromarray(row[..., 0] if self.step == 1 else row).save(stream, "PNG", **options)
        return stream.getvalue()

    def raw(self, top: int, bottom: int) -> Pixels:
        """Bytes of some rows, `[rows, stride]`."""
        part = self.pixels[top:bottom]
        if self.alpha is not None:
            part = np.concatenate([part, self.alpha[top:bottom, :, None]], axis=2)
        return part.reshape(len(part), self.stride)

    def filtered(self, top: int) -> Pixels:
        """A band with the filter of every row in front of it, `[rows, 1 + stride]`."""
        bottom = min(top + self.count, self.height)
        first = np.zeros((1, self.stride), np.uint8) if not top else self.raw(top - 1, top)
        rows = np.concatenate([first, self.raw(top, bottom)])
        result = np.empty((bottom - top, 1 + self.stride), np.uint8)
        least: NDArray[np.uint32] | None = None
        for number, values in enumerate(_candidates(rows, self.step)):
            # as most programs choose: the least sum of values, taken as numbers with a sign
            cost = np.abs(values.view(np.int8)).view(np.uint8).sum(axis=1, dtype=np.uint32)
            better = slice(None) if least is None else cost < least
            result[better, 0] = number
            result[better, 1:] = values[better]
            least = cost if least is None else np.minimum(least, cost)
        return result


def _candidates(rows: Pixels, step: int) -> Iterator[Pixels]:
    """What the filters None, Sub, Up, Average and Paeth make of all rows but the first."""
    values, above = rows[1:], rows[:-1]
    left = np.zeros_like(values)
    left[:, step:] = values[:, :-step]
    corner = np.zeros_like(values)
    corner[:, step:] = above[:, :-step]
    yield values
    yield values - left
    yield values - above
    yield values - ((left & above) + ((left ^ above) >> 1))
    down = above.astype(np.int16) - corner
    right = left.astype(np.int16) - corner
    to_left, to_above, to_corner = np.abs(down), np.abs(right), np.abs(down + right)
    nearest = np.where(to_above <= to_corner, above, corner)
    is_left = (to_left <= to_above) & (to_left <= to_corner)
    yield values - np.where(is_left, left, nearest)


def _deflated(rows: _Rows, workers: int) -> Iterator[bytes]:
    """One zlib stream of all rows, a band at a time."""
    checksum = 1
    tops = range(0, rows.height, rows.count)

    def work(top: int) -> tuple[memoryview, bytes]:
        band = rows.filtered(top).data
        packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_FILTERED)
        is_last = top == tops[-1]
        data = packer.compress(band)
        return band, data + packer.flush(zlib.Z_FINISH if is_last else zlib.Z_SYNC_FLUSH)

    for top, (band, data) in zip(tops, ordered_map(work, tops, workers), strict=True):
        checksum = zlib.adler32(band, checksum)
        front = _ZLIB_HEAD if not top else b""
        yield front + data + (_CRC.pack(checksum) if top == tops[-1] else b"")


def _put(file: BinaryIO, kind: bytes, body: bytes) -> None:
    file.write(_CHUNK.pack(len(body), kind))
    file.write(body)
    file.write(_CRC.pack(zlib.crc32(body, zlib.crc32(kind))))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a file."""
    position = _HEAD
    while position < len(data):
        length, kind = _CHUNK.unpack_from(data, position)
        start = position + _CHUNK.size
        yield kind, data[start : start + length]
        position = start + length + _CRC.size
