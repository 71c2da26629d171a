"""Patches and their bytes, and what is refused."""

import numpy as np
import pytest

from diveqcodec.container import lossless, patches
from diveqcodec.container.bitstream import Tile
from diveqcodec.container.patches import Patch
from diveqcodec.errors import DamagedError
from tests.support.tiny import drawn, few_values


def patch(x: int, y: int, width: int, height: int, channels: int = 3) -> Patch:
    pixels = few_values(drawn(height, width, x + y))[..., :channels]
    return Patch(Tile(x, y, width, height), lossless.pack(pixels))


def test_unpack_inverts_pack() -> None:
    assert patches.pack([]) == b""
    assert patches.unpack(b"", 5, 5) == []
    for found in ([patch(3, 4, 20, 10)], [patch(0, 0, 1, 1), patch(200, 150, 300, 62)]):
        assert patches.unpack(patches.pack(found), 212, 500) == found


def test_golden_bytes() -> None:
    """By hand: place, size and length as varints, then one colour as in a PIXL chunk."""
    one = Patch(Tile(5, 300, 130, 7), bytes([0, 1, 2, 3]))
    assert patches.pack([one, one]).hex() == "05ac028201070400010203" * 2
    pixels = patches.pixels_of(one, is_grey=False)
    assert pixels.shape == (7, 130, 3)
    assert (pixels == (1, 2, 3)).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_exact(channels: int) -> None:
    found = patch(1, 2, 33, 17, channels)
    pixels = patches.pixels_of(found, is_grey=channels == 1)
    assert np.array_equal(pixels, few_values(drawn(17, 33, 3))[..., :channels])


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((90, 0, 11, 5), "leaves its tile"),
        ((0, 46, 1, 5), "leaves its tile"),
        ((0, 0, 0, 5), "leaves its tile"),
        ((0, 0, 5, 0), "leaves its tile"),
        ((100, 50, 1, 1), "leaves its tile"),
    ],
)
def test_places_that_are_refused(numbers: tuple[int, int, int, int], message: str) -> None:
    data = patches.pack([Patch(Tile(*numbers), b"\0\1\2\3")])
    with pytest.raises(DamagedError, match=f"^damaged: chunk PTCH 3 has a patch that {message}$"):
        patches.unpack(data, 50, 100, "chunk PTCH 3")


def test_more_pixels_than_the_tile_has_are_refused() -> None:
    half = Patch(Tile(0, 0, 50, 50), b"\0\1\2\3")
    assert len(patches.unpack(patches.pack([half, half]), 50, 100)) == 2
    with pytest.raises(DamagedError, match="has more pixels than its tile"):
        patches.unpack(patches.pack([half, half, patch(0, 0, 1, 1)]), 50, 100)


def test_more_patches_than_a_tile_may_have_are_refused() -> None:
    dots = patches.pack([Patch(Tile(0, 0, 1, 1), b"\0\1\2\3")] * patches.MOST)
    assert len(patches.unpack(dots, 100, 100)) == patches.MOST == 4096
    with pytest.raises(DamagedError, match="^damaged: chunk PTCH has more than 4096 patches$"):
        patches.unpack(dots + patches.pack([patch(0, 0, 1, 1)]), 100, 100)


def test_every_truncation_is_an_error() -> None:
    data = patches.pack([patch(3, 4, 20, 10), patch(0, 0, 1, 1)])
    first = len(patches.pack([patch(3, 4, 20, 10)]))
    for length in range(1, len(data)):
        if length == first:
            continue
        with pytest.raises(DamagedError, match="chunk PTCH"):
            patches.unpack(data[:length], 50, 50)


def test_damaged_pixels_are_an_error() -> None:
    for packed in (b"", b"\0\1", b"\1\2\3", b"\x11\0\0"):
        with pytest.raises(DamagedError, match="^damaged: "):
            patches.pixels_of(Patch(Tile(0, 0, 9, 9), packed), is_grey=False)
