"""Integer symbols under integer frequencies <-> bytes: the range coder of a tile.

`Encoder` and `Decoder` share the protocol `EntropyCoder`, so that the order in which a tile is
traversed is written once and serves both directions. All that decides how a symbol is read is
integer arithmetic: frequencies sum to 2^24, and constriction is given weights for which its own
scaling factor is exactly 1 (see `Tables.model`).

It does not know what the symbols mean, where the classes come from, nor the file around a payload.
"""

from typing import Any, Protocol

import constriction
import numpy as np
from numpy.typing import NDArray

from diveqcodec.errors import DamagedError

# The precision of constriction's default range coder. Part of the file format.
PRECISION = 24
TOTAL = 1 << PRECISION

# constriction's coder emits 32-bit words and keeps a 64-bit window of its interval.
_WORD_BYTES = 4
_WINDOW_BITS = 64

# Probabilities are put on this many bits before `normalise` continues in integers: the product
# with TOTAL stays below 2^63.
_PROBABILITY_BITS = 38

IntArray = NDArray[np.integer[Any]]
Symbols = NDArray[np.int32]


class Tables:
    """Frequency tables: row t holds the integer frequencies of all symbols of class t."""

    __slots__ = ("_models", "frequencies")

    def __init__(self, frequencies: NDArray[np.uint32]) -> None:
        """Check and keep frequencies; do not change the array afterwards.

        Args:
            frequencies: uint32 `[rows, symbols]`; each entry at least 1, each row sums to 2^24.
                A row of a single symbol costs nothing and is never coded.

        Raises:
            ValueError: The array has another type or shape, a zero, or a row with another sum.
        """
        if frequencies.dtype != np.uint32 or frequencies.ndim != 2 or not frequencies.size:
            raise ValueError(
                "frequencies must be a non-empty uint32 array [rows, symbols], "
                f"not {frequencies.dtype} {list(frequencies.shape)}"
            )
        if frequencies.min() < 1:
            raise ValueError("every frequency must be at least 1")
        sums = frequencies.sum(axis=1, dtype=np.uint64)
        if (sums != TOTAL).any():
            row = int(np.flatnonzero(sums != TOTAL)[0])
            raise ValueError(f"frequencies of row {row} sum to {sums[row]}, not {TOTAL}")
        self.frequencies = frequencies
        self._models: list[Any] = [None] * len(frequencies)

    @property
    def rows(self) -> int:
        """The number of classes."""
        return len(self.frequencies)

    @property
    def symbols(self) -> int:
        """The size of the alphabet."""
        return self.frequencies.shape[1]

    def model(self, row: int) -> Any:
        """The constriction model of a row, built at its first use and kept.

        constriction gives every symbol one unit and shares the other `2^24 - symbols` out in
        proportion to the weights. The weights `F - 1` sum to just that, so its scaling factor is
        exactly 1 and the frequencies arrive unchanged, free of any float rounding.
        `perfect=True`, its default, would use logarithms. A model kept and used again is ten
        times faster without `lazy`.
        """
        model = self._models[row]
        if model is None:
            weights = self.frequencies[row].astype(np.float64) - 1.0
            model = constriction.stream.model.Categorical(weights, perfect=False, lazy=False)
            self._models[row] = model
        return model


class EntropyCoder(Protocol):
    """What a tile's traversal needs: the same calls write symbols or read them."""

    def code(self, tables: Tables, classes: IntArray, symbols: IntArray | None) -> Symbols:
        """Code `[n]` symbols, symbol i under row `classes[i]`; in order of class, stably sorted.

        Args:
            tables: The frequencies.
            classes: Integers `[n]` in `[0, tables.rows)`.
            symbols: Integers `[n]` in `[0, tables.symbols)` to write; ignored when reading.

        Returns:
            The symbols, int32 `[n]`, in the order of `classes`.

        Raises:
            ValueError: A class or symbol is out of range, or the lengths differ.
            DamagedError: The payload cannot have been written by an encoder.
        """
        ...

    def uniform(self, size: int, count: int, values: IntArray | None) -> Symbols:
        """Code `count` integers, all equally likely in `[0, size)`.

        A size that is a power of two costs exactly log2(size) bits; for others the last value
        takes the remainder of 2^24 / size, so keep them small. Raises as `code` does.
        """
        ...


class Encoder:
    """Writes symbols; `finish` gives the payload."""

    def __init__(self) -> None:
        """Start with nothing written."""
        self._coder = constriction.stream.queue.RangeEncoder()

    def code(self, tables: Tables, classes: IntArray, symbols: IntArray | None) -> Symbols:
        """See `EntropyCoder.code`."""
        values = _checked_values(symbols, len(classes), tables.symbols)
        order, runs = _runs_of_classes(tables, classes)
        in_order = values[order]
        for row, start, stop in runs:
            self._coder.encode(in_order[start:stop], tables.model(row))
        return values

    def uniform(self, size: int, count: int, values: IntArray | None) -> Symbols:
        """See `EntropyCoder.uniform`."""
        _check_uniform(size, count)
        checked = _checked_values(values, count, size)
        if count and size > 1:
            self._coder.encode(checked, constriction.stream.model.Uniform(size))
        return checked

    def finish(self) -> bytes:
        """The payload: the shortest bytes that select the final interval.

        The payload is read as one binary fraction, most significant byte first, that goes on with
        zeros for ever. No symbols give no bytes.
        """
        return _shortest_payload(self._coder)


class Decoder:
    """Reads the symbols of a payload, given the same calls as its `Encoder` got.

    Damage is often invisible here: most wrong bytes decode to wrong symbols. Checksums around the
    payload and over the decoded symbols are the container's and the codec's part.
    """

    def __init__(self, payload: bytes) -> None:
        """Start at the first byte of what `Encoder.finish` gave."""
        padded = payload + b"\0" * (-len(payload) % _WORD_BYTES)
        words = np.frombuffer(padded, dtype=">u4").astype(np.uint32)
        self._payload = payload
        self._coder = constriction.stream.queue.RangeDecoder(words)
        self._mirror = constriction.stream.queue.RangeEncoder()

    def code(self, tables: Tables, classes: IntArray, symbols: IntArray | None) -> Symbols:
        """See `EntropyCoder.code`."""
        order, runs = _runs_of_classes(tables, classes)
        in_order = np.zeros(len(classes), dtype=np.int32)
        for row, start, stop in runs:
            in_order[start:stop] = self._decode(tables.model(row), stop - start)
        values = np.empty_like(in_order)
        values[order] = in_order
        return values

    def uniform(self, size: int, count: int, values: IntArray | None) -> Symbols:
        """See `EntropyCoder.uniform`."""
        _check_uniform(size, count)
        if not count or size == 1:
            return np.zeros(count, dtype=np.int32)
        return self._decode(constriction.stream.model.Uniform(size), count)

    def finish(self) -> None:
        """Check that the payload is exactly what an encoder writes for the symbols read.

        constriction cannot tell where its data end, so each run of symbols is encoded again as it
        is read, at a third of the cost of reading it.

        Raises:
            DamagedError: Bytes are left, or are not those of an encoder. (Missing bytes cannot
                be told: what is left is the payload of other symbols.)
        """
        if _shortest_payload(self._mirror) != self._payload:
            raise DamagedError("damaged: the payload does not end with its last symbol")

    def _decode(self, model: Any, count: int) -> Symbols:
        try:
            symbols: Symbols = self._coder.decode(model, count)
        except AssertionError as error:
            # constriction's only report: a number outside of the coder's interval.
            raise DamagedError("damaged: the payload is not one that an encoder writes") from error
        self._mirror.encode(symbols, model)
        return symbols


def ideal_bits(tables: Tables, classes: IntArray, symbols: IntArray) -> float:
    """The information of symbols `[n]` under their classes' tables, in bits.

    A lower bound on the payload; the range coder adds a few bytes a payload.
    """
    frequencies = tables.frequencies[classes, symbols]
    return float((PRECISION - np.log2(frequencies, dtype=np.float64)).sum())


def normalise(probabilities: NDArray[np.float64]) -> NDArray[np.uint32]:
    """Turn weights into frequencies for `Tables`: at export, never when coding.

    Every symbol gets 1; the rest of 2^24 is shared in proportion by integer division, and what is
    left goes to the largest remainders, the first of equals first.

    Args:
        probabilities: float64 `[rows, symbols]`, finite and not negative; rows need not sum to 1.

    Returns:
        uint32 `[rows, symbols]`, each entry at least 1, each row summing to 2^24.

    Raises:
        ValueError: A weight is negative or not finite, a row is all zero, or has no symbols.
    """
    if probabilities.ndim != 2 or not 1 <= probabilities.shape[1] <= 1 << 16:
        raise ValueError(f"probabilities must be [rows, symbols], not {probabilities.shape}")
    peaks = probabilities.max(axis=1, keepdims=True)
    if not np.isfinite(probabilities).all() or (probabilities < 0).any() or (peaks <= 0).any():
        raise ValueError("probabilities must be finite, not negative, and not all zero in a row")
    scaled = probabilities / peaks
    scaled /= scaled.sum(axis=1, keepdims=True)
    weights = np.floor(scaled * (1 << _PROBABILITY_BITS)).astype(np.int64)
    sums = weights.sum(axis=1, keepdims=True)
    share = weights * (TOTAL - weights.shape[1])
    frequencies = 1 + share // sums
    left = TOTAL - frequencies.sum(axis=1, keepdims=True)
    by_remainder = np.argsort(-(share % sums), axis=1, kind="stable")
    ranks = np.argsort(by_remainder, axis=1, kind="stable")
    frequencies += ranks < left
    return np.asarray(frequencies, dtype=np.uint32)


def _runs_of_classes(
    tables: Tables, classes: IntArray
) -> tuple[NDArray[np.intp], list[tuple[int, int, int]]]:
    """The stable order by class, and (class, start, stop) of each run that is to be coded."""
    if classes.ndim != 1 or classes.dtype.kind not in "iu":
        raise ValueError(f"classes must be integers [n], not {classes.dtype} {classes.shape}")
    if not len(classes):
        return np.zeros(0, dtype=np.intp), []
    if classes.min() < 0 or classes.max() >= tables.rows:
        raise ValueError(f"classes reach {classes.min()}...{classes.max()} of {tables.rows} rows")
    if tables.rows <= 1 << 16:
        classes = classes.astype(np.uint16)  # numpy sorts these ten times faster, by radix
    order = np.argsort(classes, kind="stable")
    ordered = classes[order]
    if tables.symbols == 1:
        return order, []
    edges = [0, *(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1).tolist(), len(ordered)]
    rows = ordered[edges[:-1]].tolist()
    return order, list(zip(rows, edges[:-1], edges[1:], strict=True))


def _checked_values(values: IntArray | None, count: int, size: int) -> Symbols:
    """The values to write as contiguous int32, refused if they are not `count` in [0, size)."""
    if values is None or values.shape != (count,):
        raise ValueError(f"an encoder needs {count} symbols")
    if count and (values.min() < 0 or values.max() >= size):
        raise ValueError(f"symbols reach {values.min()}...{values.max()} of {size}")
    return np.ascontiguousarray(values, dtype=np.int32)


def _shortest_payload(coder: Any) -> bytes:
    """The number with the most trailing zero bytes in the coder's interval, without those bytes.

    constriction ends with whole words instead, which costs up to seven bytes more.
    """
    position, (lower, width) = coder.pos()
    data = coder.get_compressed().astype(">u4").tobytes()
    split = position * _WORD_BYTES
    head, window = data[:split], int.from_bytes(data[split:].ljust(_WORD_BYTES * 2, b"\0"))
    # constriction's number lies in the interval too; `lower` is known modulo 2^64 only.
    start = window - (window - lower) % (1 << _WINDOW_BITS)
    for zeros in range(_WINDOW_BITS, -1, -8):
        rounded = -(-start >> zeros) << zeros
        if rounded < start + width:
            break
    carry = rounded >> _WINDOW_BITS  # -1, 0 or 1
    if carry:
        head = (int.from_bytes(head) + carry).to_bytes(split)
    tail = (rounded - (carry << _WINDOW_BITS)).to_bytes(_WORD_BYTES * 2)
    return bytes(head + tail).rstrip(b"\0")


def _check_uniform(size: int, count: int) -> None:
    if not 1 <= size <= TOTAL or count < 0:
        raise ValueError(f"uniform needs a size of 1...{TOTAL} and a count, not {size}, {count}")
