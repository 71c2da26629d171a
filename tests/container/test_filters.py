"""Coded filters: inverse of each other, damage named; filters that are found pay."""

import numpy as np
import pytest
from numpy.typing import NDArray

from diveqcodec.container import filterfit, filters, wiener
from diveqcodec.container.filters import CLASSES, TAPS, Filter, pack, unpack
from diveqcodec.errors import DamagedError
from tests.support.tiny import drawn
from tests.support.wieners import random_filters


@pytest.mark.parametrize("components", [1, 3])
def test_unpack_inverts_pack(components: int) -> None:
    assert pack((None,) * components) == b""
    assert unpack(b"", components) == (None,) * components
    for seed in range(40):
        found = random_filters(components, seed)
        assert unpack(pack(found), components) == found


def test_filters_are_equal_by_their_numbers() -> None:
    rows = np.ones((CLASSES, TAPS), np.int16)
    assert Filter(3, rows) == Filter(3, rows.copy())
    assert Filter(3, rows) != Filter(4, rows)
    assert Filter(3, rows) != Filter(3, 2 * rows)
    assert Filter(3, rows) != "filter"


def test_every_truncation_and_whatever_follows_is_damage() -> None:
    for seed in range(5):
        data = pack(random_filters(3, seed))
        for length in range(1, len(data)):
            with pytest.raises(DamagedError, match=r"^damaged: chunk FILT 7 [^\n]*$"):
                unpack(data[:length], 3, "chunk FILT 7")
        with pytest.raises(DamagedError, match="does not end with its last coefficient"):
            unpack(data + b"\0", 3)


def test_bits_that_only_fill_are_zero() -> None:
    data = pack((Filter(6, np.zeros((CLASSES, TAPS), np.int16)),))
    assert data[-1] & 7 == 0  # 1 + 4 + 1 + 15 bits: three are left
    with pytest.raises(DamagedError, match="does not end"):
        unpack(data[:-1] + bytes([data[-1] | 1]), 1)


def test_coefficients_past_their_limit_are_damage() -> None:
    bits = "1" + "0110" + "1" + "111"  # a row of its own at once, k = 7
    for value, count in ((510, 3), (512, 4)):  # 255, and 256
        one = "1" * count + "0" + format(value & 127, "07b")
        text = bits + one + ("0" + "0000000") * 11 + "1" * 15
        data = int(text.ljust(-len(text) % 8 + len(text), "0"), 2).to_bytes(
            -(-len(text) // 8), "big"
        )
        if value == 510:
            (found,) = unpack(data, 1)
            assert found is not None
            assert found.rows[:, 0].tolist() == [255] * CLASSES
        else:
            with pytest.raises(DamagedError, match="coefficient that is too large"):
                unpack(data, 1)
    with pytest.raises(DamagedError, match="coefficient that is too large"):
        unpack(b"\xb5" + b"\xff" * 400, 1)


def test_random_bytes_are_filters_or_damage() -> None:
    random = np.random.default_rng(3)
    for _ in range(2000):
        data = random.integers(0, 256, random.integers(1, 60), np.uint8).tobytes()
        try:
            found = unpack(data, 3)
        except DamagedError:
            continue
        assert all(one is None or abs(one.rows).max() <= filters.LARGEST for one in found)


def padded(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.pad(pixels, ((3, 3), (3, 3), (0, 0)), mode="edge")


@pytest.mark.parametrize("colours", [1, 3])
def test_filters_that_are_found_save_more_than_they_cost(colours: int) -> None:
    target = drawn(128, 160, seed=9)[..., :colours]
    noise = np.random.default_rng(0).normal(0, 6, target.shape)
    decoded = (target + noise).round().clip(0, 255).astype(np.uint8)
    window = wiener.BlockWindow.of(padded(decoded))
    seen = np.ones(target.shape[:2], np.bool_)
    sums = [[filterfit.sums(window, target, i, 6, seen)] for i in range(colours)]
    price = 0.2
    found = filterfit.best(sums, price)
    result = wiener.filtered(padded(decoded), found)
    before, after = (
        np.square(x.astype(np.int64) - target).sum() * 3 / colours for x in (decoded, result)
    )
    assert price * (before - after) > 8 * len(pack(found))
    assert after < 0.6 * before  # smooth ground with noise: much of it goes
    # What costs more than it saves is not sent; nor is anything where nothing is missing.
    assert filterfit.best(sums, 1e-9) == (None,) * colours
    window = wiener.BlockWindow.of(padded(target))
    sums = [[filterfit.sums(window, target, i, 6, seen)] for i in range(colours)]
    assert filterfit.best(sums, 1e3) == (None,) * colours


def test_sums_say_what_is_saved() -> None:
    """The error that falls by the sums is that which filters make fall, but for rounding."""
    target = drawn(96, 96, seed=4)
    decoded = (target + np.random.default_rng(1).normal(0, 5, target.shape)).clip(30, 220)
    decoded = decoded.round().astype(np.uint8)
    window = wiener.BlockWindow.of(padded(decoded))
    seen = np.ones((96, 96), np.bool_)
    rows = np.random.default_rng(2).integers(-12, 13, (CLASSES, TAPS)).astype(np.int16)
    for component, weight in enumerate((3, 2, 6)):
        found: list[Filter | None] = [None] * 3
        found[component] = Filter(5, rows)
        result = wiener.filtered(padded(decoded), tuple(found))
        before, after = (np.square(x.astype(np.int64) - target).sum() for x in (decoded, result))
        moments = filterfit.sums(window, target, component, 5, seen).moments
        saved = 0.0
        for row, matrix in zip(rows / 256, moments, strict=True):
            saved += 2 * row @ matrix[:-1, -1] - weight * row @ matrix[:-1, :-1] @ row
        assert before - after == pytest.approx(saved, rel=0.02, abs=6000)


def test_pixels_that_are_not_seen_do_not_count() -> None:
    target, decoded = drawn(64, 64, seed=5), drawn(64, 64, seed=6)
    seen = np.zeros((64, 64), np.bool_)
    seen[:30, 7:] = True
    window = wiener.BlockWindow.of(padded(decoded))
    other = np.where(seen[..., None], target, 255 - target)
    sums = [filterfit.sums(window, x, 0, 4, seen) for x in (target, other)]
    assert np.array_equal(sums[0].moments, sums[1].moments)
    assert sums[0].counts.sum() == seen.sum()


def test_a_share_that_was_seen_is_doubted() -> None:
    """Of noise, nothing can be filtered; what looks so in samples is not sent."""
    random = np.random.default_rng(7)
    decoded = random.integers(100, 130, (64, 64, 1)).astype(np.uint8)
    target = random.integers(100, 130, (64, 64, 1)).astype(np.uint8)
    target = ((decoded.astype(int) + target) // 2).astype(np.uint8)
    window = wiener.BlockWindow.of(padded(decoded))
    sums = [[filterfit.sums(window, target, 0, 6, np.ones((64, 64), np.bool_))]]
    bits = [len(pack(filterfit.best(sums, 0.05, share))) for share in (1.0, 0.5, 0.1)]
    assert bits[0] >= bits[1] >= bits[2]
