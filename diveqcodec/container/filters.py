"""Filters of a tile <-> bytes. FORMAT.md, "FILT", has the layout; `wiener` says what they do.

A tile has up to three of them, for the components of a colour: brightness and two differences.
Each has a row of coefficients for every class of blocks. Rows of neighbouring classes are often the
same, so runs of classes are sent, and the coefficients of a run as differences to those of the run
before. Knows nothing of pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from diveqcodec.errors import DamagedError

CLASSES: Final = 16  # of blocks, by their activity
TAPS: Final = 12  # coefficients of a class
LARGEST: Final = 255  # magnitude of a coefficient

Rows = NDArray[np.int16]

_CODE_BITS: Final = 4  # of the number of a threshold
_RICE_BITS: Final = 3  # of the parameter of a run


@dataclass(frozen=True, slots=True, eq=False)
class Filter:
    """Of one component.

    Attributes:
        threshold: Number of the threshold, 0 ... 15.
        rows: int16 `[CLASSES, TAPS]`; a row of zeros changes nothing.
    """

    threshold: int
    rows: Rows

    def __eq__(self, other: object) -> bool:
        """Whether all numbers are the same."""
        if not isinstance(other, Filter):
            return NotImplemented
        return self.threshold == other.threshold and np.array_equal(self.rows, other.rows)

    __hash__ = None  # type: ignore[assignment]


Filters = tuple[Filter | None, ...]  # one a component: three, or one of a grey picture


def pack(filters: Filters) -> bytes:
    """Code the filters of a tile; the inverse of `unpack`. None at all gives no bytes."""
    if all(one is None for one in filters):
        return b""
    bits: list[str] = []
    for one in filters:
        bits.append("0" if one is None else "1" + format(one.threshold, f"0{_CODE_BITS}b"))
        if one is not None:
            _pack_rows(one.rows, bits)
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def unpack(data: bytes, components: int, name: str = "chunk FILT") -> Filters:
    """The inverse of `pack`.

    Args:
        data: The coded filters.
        components: 3, or 1 of a grey picture.
        name: What messages call the data.

    Raises:
        DamagedError: They are no filters, or more than that.
    """
    if not data:
        return (None,) * components
    reader = _Reader(data, name)
    filters: list[Filter | None] = []
    for _ in range(components):
        if not reader.number(1):
            filters.append(None)
            continue
        threshold = reader.number(_CODE_BITS)
        filters.append(Filter(threshold, _unpack_rows(reader)))
    reader.finish()
    return tuple(filters)


def rice_bits(differences: NDArray[np.int64], parameter: int) -> int:
    """Bits of coefficients' differences under a parameter, which is not among them."""
    folded = _folded(differences)
    return int((folded >> parameter).sum()) + len(folded) * (1 + parameter)


def best_parameter(differences: NDArray[np.int64]) -> int:
    """The parameter that makes differences shortest."""
    return min(range(1 << _RICE_BITS), key=lambda k: rice_bits(differences, k))


def _pack_rows(rows: Rows, bits: list[str]) -> None:
    """Runs of classes: whether one goes on, and what begins."""
    known = np.zeros(TAPS, np.int64)
    previous = np.zeros(TAPS, np.int64)
    for number, row in enumerate(rows.astype(np.int64)):
        if number:
            is_same = np.array_equal(row, previous)
            bits.append("1" if is_same else "0")
            if is_same:
                continue
        if not number or previous.any():
            bits.append("1" if row.any() else "0")
        if row.any():
            differences = row - known
            parameter = best_parameter(differences)
            bits.append(format(parameter, f"0{_RICE_BITS}b"))
            for value in _folded(differences).tolist():
                bits.append("1" * (value >> parameter) + "0")
                if parameter:
                    bits.append(format(value & (1 << parameter) - 1, f"0{parameter}b"))
            known = row
        previous = row


def _unpack_rows(reader: _Reader) -> Rows:
    rows = np.zeros((CLASSES, TAPS), np.int16)
    known = [0] * TAPS
    is_on = True
    for number in range(CLASSES):
        if number and reader.number(1):
            rows[number] = rows[number - 1]
            continue
        is_row_due = number and not is_on  # else it would be the same as the class before
        is_on = bool(is_row_due or reader.number(1))
        if is_on:
            parameter = reader.number(_RICE_BITS)
            known = [value + reader.rice(parameter) for value in known]
            if max(map(abs, known)) > LARGEST:
                raise DamagedError(f"damaged: {reader.name} has a coefficient that is too large")
            rows[number] = known
    return rows


def _folded(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, -1, 1, -2, … as 0, 1, 2, 3, …."""
    return np.where(values < 0, -2 * values - 1, 2 * values)


class _Reader:
    """Bits, the highest of a byte first."""

    def __init__(self, data: bytes, name: str) -> None:
        self.name = name
        self._data = data
        self._position = 0

    def number(self, bits: int) -> int:
        """The next bits as a number."""
        value = 0
        for _ in range(bits):
            byte, bit = divmod(self._position, 8)
            if byte >= len(self._data):
                raise DamagedError(f"damaged: {self.name} is truncated")
            value = value << 1 | self._data[byte] >> 7 - bit & 1
            self._position += 1
        return value

    def rice(self, parameter: int) -> int:
        """A number with a sign."""
        high = 0
        while self.number(1):
            high += 1
            if high > 4 * LARGEST:
                raise DamagedError(f"damaged: {self.name} has a coefficient that is too large")
        value = high << parameter | self.number(parameter)
        return -(value + 1) // 2 if value & 1 else value // 2

    def finish(self) -> None:
        """Check that nothing but the zeros that fill a byte is left.

        Raises:
            DamagedError: there is more.
        """
        rest = 8 * len(self._data) - self._position
        if rest >= 8 or self.number(rest):
            raise DamagedError(f"damaged: {self.name} does not end with its last coefficient")
