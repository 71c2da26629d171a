"""CRC-32 of any part of some bytes, however long, by reading a few thousand of them.

Damaged data are searched for chunks at every position, and a position may claim any length. A
checksum is a remainder of polynomials over two elements: that of what stands between two borders is
known from those of all that stands before each (as in zlib's `crc32_combine`). Knows no chunks.
"""

import zlib
from typing import Final

_POLYNOMIAL: Final = 0xEDB88320  # of CRC-32, bits reversed: bit 31 is the coefficient of x^0
_ONE: Final = 1 << 31
_BLOCK: Final = 4096  # bytes; a power of two


class PartialSums:
    """Checksums of the parts of `data`."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._before = [0]  # checksum of all before a border
        for start in range(0, len(data) - _BLOCK + 1, _BLOCK):
            block = self._data[start : start + _BLOCK]
            self._before.append(zlib.crc32(block, self._before[-1]))
        self._powers = [_ONE]  # of what a block of zeros behind a part makes of its checksum

    def crc32(self, start: int, end: int, value: int = 0) -> int:
        """`zlib.crc32(data[start:end], value)`, for 0 <= start <= end <= len(data)."""
        first, last = -(-start // _BLOCK), end // _BLOCK
        if last <= first:
            return zlib.crc32(self._data[start:end], value)
        head = zlib.crc32(self._data[start : first * _BLOCK], value)
        moved = _product(head ^ self._before[first], self._power(last - first))
        return zlib.crc32(self._data[last * _BLOCK : end], moved ^ self._before[last])

    def _power(self, blocks: int) -> int:
        while len(self._powers) <= blocks:
            self._powers.append(_product(self._powers[-1], _SHIFT))
        return self._powers[blocks]


def _product(a: int, b: int) -> int:
    """Of two polynomials, modulo that of CRC-32."""
    product, bit = 0, _ONE
    while bit:
        if a & bit:
            product ^= b
        bit >>= 1
        b = (b >> 1) ^ _POLYNOMIAL if b & 1 else b >> 1
    return product


def _shift() -> int:
    """X to the number of bits of a block."""
    power, exponent = _ONE >> 1, 1
    while exponent < 8 * _BLOCK:
        power, exponent = _product(power, power), 2 * exponent
    return power


_SHIFT: Final = _shift()
