"""The range coder: both directions agree, the bytes are exact, garbage does no harm."""

import constriction
import numpy as np
import pytest

from diveqcodec.container.entropy import TOTAL, Decoder, Encoder, Tables, ideal_bits, normalise
from diveqcodec.errors import DamagedError


def random_tables(rng, rows, symbols, concentration=0.1):
    return Tables(normalise(rng.dirichlet(np.full(symbols, concentration), size=rows)))


def draw(rng, tables, classes):
    """Symbols that follow their class's frequencies."""
    cumulative = np.cumsum(tables.frequencies, axis=1, dtype=np.int64)
    points = rng.integers(0, TOTAL, size=len(classes))
    return np.array(
        [np.searchsorted(cumulative[c], p, "right") for c, p in zip(classes, points, strict=True)],
        dtype=np.int32,
    ).reshape(-1)


class IntegerDecoder:
    """An independent decoder in plain integers: the proof of what FORMAT.md says."""

    def __init__(self, payload):
        self.payload = payload
        self.position = 8
        self.range = 2**64 - 1
        self.offset = int.from_bytes(payload[:8].ljust(8, b"\0"), "big")

    def symbol(self, frequencies):
        scale = self.range >> 24
        point = self.offset // scale
        assert point < 2**24
        left = 0
        symbol = 0
        while point >= left + frequencies[symbol]:
            left += frequencies[symbol]
            symbol += 1
        frequency = frequencies[symbol]
        self.offset -= scale * left
        self.range = scale * frequency
        if self.range < 2**32:
            word = self.payload[self.position : self.position + 4].ljust(4, b"\0")
            self.position += 4
            self.offset = self.offset << 32 | int.from_bytes(word, "big")
            self.range <<= 32
        return symbol


@pytest.mark.parametrize("count", [0, 1, 2, 7, 1000])
def test_decoder_inverts_encoder(count):
    rng = np.random.default_rng(count)
    fine, coarse = random_tables(rng, 12, 257), random_tables(rng, 3, 5)
    single = Tables(np.full((2, 1), TOTAL, dtype=np.uint32))
    classes = [rng.integers(0, t.rows, size=count) for t in (fine, coarse, single)]
    symbols = [draw(rng, t, c) for t, c in zip((fine, coarse, single), classes, strict=True)]
    raw = {size: rng.integers(0, size, size=count) for size in (1, 2, 3, 256, TOTAL - 1, TOTAL)}

    def traverse(coder, symbols, raw):
        coded = [
            coder.code(t, c, s)
            for t, c, s in zip((fine, coarse, single), classes, symbols, strict=True)
        ]
        return coded, {size: coder.uniform(size, count, v) for size, v in raw.items()}

    encoder = Encoder()
    written, written_raw = traverse(encoder, symbols, raw)
    payload = encoder.finish()
    decoder = Decoder(payload)
    read, read_raw = traverse(decoder, [None] * 3, dict.fromkeys(raw))
    decoder.finish()
    for expected, *others in zip(symbols, written, read, strict=True):
        for other in others:
            assert other.dtype == np.int32
            np.testing.assert_array_equal(other, expected)
    for size in raw:
        np.testing.assert_array_equal(written_raw[size], raw[size])
        np.testing.assert_array_equal(read_raw[size], raw[size])


def test_payload_is_close_to_its_information():
    rng = np.random.default_rng(1)
    tables = random_tables(rng, 64, 257)
    for count in (1, 50, 20_000):
        classes = rng.integers(0, 64, size=count)
        symbols = draw(rng, tables, classes)
        encoder = Encoder()
        encoder.code(tables, classes, symbols)
        ideal = ideal_bits(tables, classes, symbols) / 8
        assert ideal - 1 <= len(encoder.finish()) <= ideal * 1.001 + 2


def test_ideal_bits_by_hand():
    tables = Tables(np.array([[TOTAL // 2, TOTAL // 4, TOTAL // 4]], dtype=np.uint32))
    assert ideal_bits(tables, np.zeros(4, int), np.array([0, 0, 1, 2])) == 1 + 1 + 2 + 2


def test_an_integer_decoder_reads_every_payload():
    rng = np.random.default_rng(2)
    for trial in range(150):
        tables = random_tables(rng, 4, int(rng.integers(2, 40)), rng.choice([0.02, 0.3, 5.0]))
        classes = rng.integers(0, 4, size=rng.integers(0, 60))
        symbols = draw(rng, tables, classes)
        if trial % 3 == 0:  # first and last symbols visit the edges of the interval: carries
            symbols = rng.choice([0, tables.symbols - 1], size=len(classes))
        values = rng.integers(0, 1000, size=3)
        encoder = Encoder()
        encoder.code(tables, classes, symbols)
        encoder.uniform(1000, 3, values)
        reader = IntegerDecoder(encoder.finish())
        for i in np.argsort(classes, kind="stable"):
            assert reader.symbol(tables.frequencies[classes[i]].tolist()) == symbols[i]
        flat = [TOTAL // 1000] * 999 + [TOTAL - 999 * (TOTAL // 1000)]
        assert [reader.symbol(flat) for _ in range(3)] == values.tolist()


def test_the_payload_is_the_shortest():
    rng = np.random.default_rng(3)
    tables = random_tables(rng, 1, 9, 1.0)
    for count in range(12):
        classes = np.zeros(count, dtype=np.int64)
        symbols = draw(rng, tables, classes)
        encoder = Encoder()
        encoder.code(tables, classes, symbols)
        payload = encoder.finish()
        if not payload:
            continue
        # Nothing one byte shorter decodes to the same: try the two numbers around it.
        number = int.from_bytes(payload[:-1], "big")
        for shorter in (number, number + 1):
            if shorter >> 8 * (len(payload) - 1):
                continue
            decoder = Decoder(shorter.to_bytes(len(payload) - 1, "big"))
            assert decoder.code(tables, classes, None).tolist() != symbols.tolist()


def test_weights_give_the_same_bytes_in_any_float():
    rng = np.random.default_rng(4)
    tables = random_tables(rng, 1, 300)
    symbols = draw(rng, tables, np.zeros(500, dtype=np.int64))
    streams = set()
    for dtype in (np.float32, np.float64):
        for lazy in (False, True):
            weights = (tables.frequencies[0].astype(np.int64) - 1).astype(dtype)
            model = constriction.stream.model.Categorical(weights, perfect=False, lazy=lazy)
            coder = constriction.stream.queue.RangeEncoder()
            coder.encode(symbols, model)
            streams.add(coder.get_compressed().tobytes())
    assert len(streams) == 1


def test_golden_bytes():
    tables = Tables(
        np.array([[1, 2, TOTAL - 3], [TOTAL // 2, TOTAL // 4, TOTAL // 4]], dtype=np.uint32)
    )
    encoder = Encoder()
    encoder.code(tables, np.array([1, 0, 1, 0]), np.array([0, 2, 1, 0]))
    encoder.uniform(256, 2, np.array([255, 7]))
    # Order: class 1 comes after class 0, so the symbols are written as 2, 0, 0, 1, 255, 7.
    assert encoder.finish().hex() == "0000035fdf61"


def test_only_the_order_of_classes_decides():
    tables = random_tables(np.random.default_rng(5), 3, 8)
    classes, symbols = np.array([2, 0, 2, 1, 0]), np.array([7, 1, 3, 4, 0])
    mixed, ordered = Encoder(), Encoder()
    mixed.code(tables, classes, symbols)
    ordered.code(tables, np.array([0, 0, 1, 2, 2]), np.array([1, 0, 4, 7, 3]))
    assert mixed.finish() == ordered.finish()


def test_garbage_decodes_to_some_symbols_or_damage():
    rng = np.random.default_rng(6)
    tables = random_tables(rng, 5, 257)
    classes = rng.integers(0, 5, size=300)
    outcomes = set()
    for trial in range(400):
        payload = b"\xff" * 12 if trial == 0 else rng.bytes(int(rng.integers(0, 60)))
        decoder = Decoder(payload)
        try:
            symbols = decoder.code(tables, classes, None)
            assert decoder.uniform(TOTAL, 3, None).max() < TOTAL
            decoder.finish()
        except DamagedError:
            outcomes.add("damaged")
        else:
            outcomes.add("symbols")
            assert symbols.min() >= 0
            assert symbols.max() < 257
    assert outcomes == {"damaged", "symbols"}


def test_finish_reports_bytes_left():
    tables = random_tables(np.random.default_rng(7), 1, 16, 5.0)
    classes, symbols = np.zeros(40, dtype=np.int64), np.arange(40) % 16
    encoder = Encoder()
    encoder.code(tables, classes, symbols)
    payload = encoder.finish()
    for wrong in (payload + b"\0", payload + b"\1", payload + b"12345678"):
        decoder = Decoder(wrong)
        decoder.code(tables, classes, None)
        with pytest.raises(DamagedError, match="does not end"):
            decoder.finish()


@pytest.mark.parametrize(
    ("frequencies", "message"),
    [
        (np.array([[TOTAL - 1, 2]], dtype=np.uint32), "row 0 sum"),
        (np.array([[TOTAL, 0]], dtype=np.uint32), "at least 1"),
        (np.array([[TOTAL - 1, 1]], dtype=np.int64), "uint32"),
        (np.array([TOTAL], dtype=np.uint32), "rows, symbols"),
    ],
)
def test_tables_refuse(frequencies, message):
    with pytest.raises(ValueError, match=message):
        Tables(frequencies)


def test_encoder_refuses_values_out_of_range():
    tables = Tables(np.array([[TOTAL - 1, 1]], dtype=np.uint32))
    zero = np.zeros(1, dtype=np.int64)
    for classes, symbols in [(zero, zero + 2), (zero, zero - 1), (zero + 1, zero), (zero, None)]:
        with pytest.raises(ValueError, match="symbol|class"):
            Encoder().code(tables, classes, symbols)
    with pytest.raises(ValueError, match="size"):
        Encoder().uniform(TOTAL + 1, 1, zero)


def test_normalise_by_hand_and_at_extremes():
    assert normalise(np.array([[1.0, 1.0, 2.0]])).tolist() == [[4194304, 4194304, 8388608]]
    # Thirds: 1 + (2^24 - 3) / 3 = 5592405.33, and the one left over goes to the first.
    assert normalise(np.ones((1, 3))).tolist() == [[5592406, 5592405, 5592405]]
    extreme = normalise(np.array([[1e-300, 1e300, 0.0], [0.0, 0.0, 5e-324]]))
    assert extreme.tolist() == [[1, TOTAL - 2, 1], [1, 1, TOTAL - 2]]
    for size in (1, 2, 257, 2049):
        rows = normalise(np.random.default_rng(size).dirichlet(np.full(size, 0.05), size=8))
        assert (rows.sum(axis=1) == TOTAL).all()
        assert rows.min() >= 1
    for bad in ([[0.0, 0.0]], [[-1.0, 2.0]], [[np.nan, 1.0]]):
        with pytest.raises(ValueError, match="finite"):
            normalise(np.array(bad))
