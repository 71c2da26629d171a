"""Lossless pixels: pack and unpack are inverses; damage and limits are errors; what looks drawn."""

import json

import numpy as np
import pytest

from diveqcodec.container import bitstream, lossless, pixelfile
from diveqcodec.errors import DamagedError, FormatError
from scripts.drawings import DRAWINGS
from scripts.make_golden_lossless import digest
from tests.support.drawings import SMALL_DRAWINGS, small_drawing
from tests.support.places import GOLDEN
from tests.support.tiny import drawn, few_values

SIZES = [(1, 1), (1, 2), (2, 1), (1, 67), (67, 1), (3, 5), (16, 16), (61, 67)]


def same(one, other) -> bool:
    return one is other is None or np.array_equal(one, other)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("transparent", [False, True])
def test_unpack_inverts_pack(size: tuple[int, int], channels: int, transparent: bool) -> None:
    random = np.random.default_rng(0)
    alpha = random.integers(0, 3, size, np.uint8) * np.uint8(127) if transparent else None
    for step in (1, 85, 256):  # noise, few values, one value
        values = random.integers(0, 256, (*size, channels)) // step * step
        pixels = values.astype(np.uint8)
        if step == 256 and alpha is not None:
            alpha = np.full(size, 7, np.uint8)
        packed = lossless.pack(pixels, alpha, is_hidden_kept=True)
        found = lossless.unpack(packed, *size, is_grey=channels == 1, has_alpha=alpha is not None)
        assert same(found[0], pixels)
        assert same(found[1], alpha)


def test_hidden_colours_are_free_unless_they_are_kept() -> None:
    pixels = drawn(40, 50, 1)
    alpha = np.where(np.arange(50) < 25, 0, 255).astype(np.uint8)[None].repeat(40, axis=0)
    sizes = []
    for is_kept in (False, True):
        packed = lossless.pack(pixels, alpha, is_hidden_kept=is_kept)
        found, transparency = lossless.unpack(packed, 40, 50, is_grey=False, has_alpha=True)
        assert same(transparency, alpha)
        assert same(found[alpha > 0], pixels[alpha > 0])
        assert same(found, pixels) == is_kept
        sizes.append(len(packed))
    assert sizes[0] < 0.7 * sizes[1]


def test_an_opaque_part_of_a_transparent_picture() -> None:
    pixels = drawn(20, 30, 2)
    packed = lossless.pack(pixels, np.full((20, 30), 255, np.uint8))
    found, alpha = lossless.unpack(packed, 20, 30, is_grey=False, has_alpha=True)
    assert same(found, pixels)
    assert alpha is not None
    assert alpha.min() == 255


def test_golden_bytes() -> None:
    """One colour, by hand; and WebP's bits of another writer, which must be read for ever."""
    grey, colour = np.full((7, 9, 1), 5, np.uint8), np.full((7, 9, 3), (5, 6, 255), np.uint8)
    assert lossless.pack(grey).hex() == "0005"
    assert lossless.pack(colour).hex() == "000506ff"
    assert lossless.pack(colour, np.full((7, 9), 128, np.uint8)).hex() == "000506ff80"
    board = bytes.fromhex(GOLDEN_BOARD)
    pixels, _ = lossless.unpack(board, 6, 8, is_grey=True, has_alpha=False)
    assert same(pixels[..., 0], np.add.outer(np.arange(6), np.arange(8)) % 2 * 255)


GOLDEN_BOARD = "010f30fff33ffff31f7878956a44ffa302"


LOSSLESS = GOLDEN / "lossless"
EXPECTED = json.loads((LOSSLESS / "golden.json").read_text("utf-8"))


@pytest.mark.parametrize("name", EXPECTED)
def test_golden_files_decode_to_golden_pixels(name: str) -> None:
    data = (LOSSLESS / f"{name}.dvq").read_bytes()
    assert digest(pixelfile.decompress(data)) == EXPECTED[name]["pixels"]


def test_golden_files_exercise_the_format() -> None:
    files = [bitstream.read((LOSSLESS / f"{name}.dvq").read_bytes()) for name in EXPECTED]
    assert {part.packed[0] for file in files for part in file.lossless} == {0, 1, 0x11}
    assert {file.header.is_grey for file in files} == {False, True}
    assert any(part.columns * part.rows > 1 for file in files for part in file.lossless)


def test_larger_effort_is_not_larger() -> None:
    pixels = np.asarray(DRAWINGS["palette"]().convert("RGB"))[:200, :300]
    sizes = [len(lossless.pack(pixels, effort=effort)) for effort in (1, 5, 9)]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "lossless pixels are missing"),
        (b"\0", "one colour in 0 bytes"),
        (b"\0\1\2\3\4", "one colour in 4 bytes"),
        (b"\1", "cannot be decoded"),
        (b"\1\0\0\0", "cannot be decoded"),
        (b"\x11\0\0\0", "transparency in a picture without"),
    ],
)
def test_damage_is_named(data: bytes, message: str) -> None:
    with pytest.raises(DamagedError, match=message):
        lossless.unpack(data, 20, 30, is_grey=False, has_alpha=False)


def test_unknown_kinds() -> None:
    for kind in (2, 0x10, 0x21, 0xFF):
        with pytest.raises(FormatError, match=f"of kind {kind}"):
            lossless.unpack(bytes([kind]) + b"abc", 2, 2, is_grey=False, has_alpha=True)


@pytest.mark.parametrize("size", [(1, 16_384), (6000, 6000)])
def test_sizes_past_the_limits(size: tuple[int, int]) -> None:
    with pytest.raises(FormatError, match="lossless pixels; the limit"):
        lossless.unpack(b"\1abc", *size, is_grey=False, has_alpha=False)
    pixels = np.broadcast_to(np.arange(size[1], dtype=np.uint8)[None, :, None], (*size, 1))
    with pytest.raises(FormatError, match="lossless pixels; the limit"):
        lossless.pack(pixels)


def test_colours_in_a_grey_picture_are_damage() -> None:
    packed = lossless.pack(drawn(9, 9, 3))
    with pytest.raises(DamagedError, match="colours in a grey picture"):
        lossless.unpack(packed, 9, 9, is_grey=True, has_alpha=False)


def test_every_truncation_and_flip_is_an_error_or_pixels_of_that_size() -> None:
    packed = lossless.pack(few_values(drawn(19, 23, 4)))
    outcomes = {"error": 0, "pixels": 0}
    cut = [packed[:length] for length in range(len(packed))]
    flips = []
    for bit in range(8, 8 * len(packed), 5):
        flipped = bytearray(packed)
        flipped[bit // 8] ^= 1 << bit % 8
        flips.append(bytes(flipped))
    for data in cut + flips:
        try:
            pixels, _ = lossless.unpack(data, 19, 23, is_grey=False, has_alpha=False)
        except FormatError:
            outcomes["error"] += 1
        else:
            outcomes["pixels"] += 1
            assert pixels.shape == (19, 23, 3)
    assert min(outcomes.values()) > 20


def test_drawings_look_drawn_and_photographs_do_not() -> None:
    for name, draw in DRAWINGS.items():
        image = draw()
        pixels = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
        assert lossless.is_drawn(pixels.reshape(*pixels.shape[:2], -1)), name
    for name in SMALL_DRAWINGS:
        for size in ((160, 120), (400, 300)):
            assert lossless.is_drawn(small_drawing(name, size)[1]), name
    noisy = drawn(300, 300, 5)  # like a photograph, it has noise
    assert not lossless.is_drawn(noisy)
    assert not lossless.is_drawn(noisy[..., :1])
    assert lossless.is_drawn(noisy[:16, :16])  # an icon has few colours


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_one_colour(channels: int) -> None:
    planes = np.full((30, 40, channels), 9, np.uint8)
    assert lossless.is_constant(planes)
    for place in ((0, 0), (0, 39), (29, 0), (17, 21)):
        other = planes.copy()
        other[(*place, channels - 1)] = 10
        assert not lossless.is_constant(other)
