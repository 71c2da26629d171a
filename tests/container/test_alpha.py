"""Transparency: lossless for all sizes and contents, small where simple, safe when damaged."""

import tracemalloc

import numpy as np
import pytest

from diveqcodec.container.alpha import fill_hidden, pack_alpha, unpack_alpha
from diveqcodec.container.chunks import deflate
from diveqcodec.errors import DamagedError


def soft_disc(height, width):
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(y - height / 2, x - width / 2)
    return np.clip((min(height, width) / 3 - distance) * 16, 0, 255).astype(np.uint8)


def contents(height, width):
    rng = np.random.default_rng(height * 1000 + width)
    yield np.full((height, width), 7, dtype=np.uint8)
    yield rng.choice(np.array([3, 200], dtype=np.uint8), size=(height, width))
    yield rng.integers(0, 256, size=(height, width), dtype=np.uint8)
    yield np.add.outer(np.arange(height), 3 * np.arange(width)).astype(np.uint8)
    yield soft_disc(height, width)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (7, 13), (64, 8), (31, 257)])
def test_unpack_inverts_pack(size):
    for alpha in contents(*size):
        restored = unpack_alpha(pack_alpha(alpha), *size)
        assert restored.dtype == np.uint8
        np.testing.assert_array_equal(restored, alpha)


def test_golden_bytes():
    assert pack_alpha(np.full((40, 30), 255, dtype=np.uint8)) == b"\x00\xff"
    mask = np.array([[0, 255, 255], [0, 255, 255]], dtype=np.uint8)
    assert pack_alpha(mask) == b"\x01\x00\xff" + deflate(b"\x60\x00")
    # Row 0 unfiltered or from the left costs the same: the first wins. Row 1 follows from above.
    slope = np.array([[0, 0, 1], [100, 100, 101], [100, 101, 103]], dtype=np.uint8)
    assert (
        unpack_alpha(
            b"\x02" + deflate(bytes([0, 3, 1, 0, 0, 1, 100, 0, 0, 100, 1, 2])), 3, 3
        ).tolist()
        == slope.tolist()
    )


def test_simple_masks_are_small():
    disc = soft_disc(1024, 1024)
    mask = np.where(disc > 127, 255, 0).astype(np.uint8)
    assert len(pack_alpha(mask)) < 2200  # PNG with one bit a pixel: 2,774
    assert len(pack_alpha(disc)) < 14_000  # PNG: 14,291
    gradient = np.add.outer(np.arange(512), np.arange(512)).astype(np.uint8)
    assert len(pack_alpha(gradient)) < 1000


def test_every_truncation_and_tail_is_damage():
    for alpha in contents(12, 9):
        data = pack_alpha(alpha)
        for wrong in [*(data[:n] for n in range(len(data))), data + b"\0"]:
            with pytest.raises(DamagedError):
                unpack_alpha(wrong, 12, 9)


def test_garbage_gives_a_tile_or_damage():
    rng = np.random.default_rng(0)
    for _ in range(2000):
        data = bytes([rng.integers(0, 4)]) + rng.bytes(int(rng.integers(0, 20)))
        try:
            assert unpack_alpha(data, 5, 6).shape == (5, 6)
        except DamagedError:
            continue


def test_inflation_is_capped():
    bomb = b"\x02" + deflate(bytes(10_000_000))
    tracemalloc.start()
    with pytest.raises(DamagedError, match="does not inflate to 7 bytes"):
        unpack_alpha(bomb, 1, 6)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x02" + deflate(b"\4" + bytes(6)), "unknown filter 4"),
        (b"\x02" + deflate(bytes(8)), "does not inflate to 7 bytes"),
        (b"\x02\xff\xff", "cannot be inflated"),
        (b"\x09\x00", "unknown kind"),
    ],
)
def test_damage_is_named(data, message):
    with pytest.raises(DamagedError, match=message):
        unpack_alpha(data, 1, 6)


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (7, 1), (5, 9), (33, 64), (100, 71)])
def test_filling_changes_hidden_pixels_only(size):
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    alpha = rng.choice(np.array([0, 1, 255], dtype=np.uint8), size)
    before = pixels.copy()
    filled = fill_hidden(pixels, alpha)
    assert filled.shape == pixels.shape
    assert filled.dtype == np.uint8
    np.testing.assert_array_equal(filled[alpha > 0], before[alpha > 0])
    np.testing.assert_array_equal(pixels, before)
    pixels[alpha == 0] = 77  # what was hidden has no influence
    np.testing.assert_array_equal(fill_hidden(pixels, alpha), filled)


def test_filling_is_smooth_and_stays_among_the_visible_colours():
    pixels = np.full((64, 80, 1), 9, dtype=np.uint8)
    alpha = np.zeros((64, 80), dtype=np.uint8)
    pixels[:, :8], pixels[:, -8:] = 50, 200
    alpha[:, :8] = alpha[:, -8:] = 255
    filled = fill_hidden(pixels, alpha)[..., 0].astype(int)
    assert filled.min() == 50
    assert filled.max() == 200
    assert np.abs(np.diff(filled, axis=1)).max() < 40
    assert np.abs(np.diff(filled, axis=0)).max() <= 1


def test_filling_without_anything_visible_or_hidden():
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert (fill_hidden(pixels, np.zeros((4, 4), np.uint8)) == 128).all()
    assert fill_hidden(pixels, np.ones((4, 4), np.uint8)) is pixels
