"""Where a tile looks drawn: captions are found to the pixel, photographs have none."""

import numpy as np
import pytest
from numpy.typing import NDArray

from diveqcodec.container import drawnparts
from diveqcodec.container.bitstream import Tile
from tests.support.tiny import caption, captioned, drawn

PLACE = Tile(37, 45, 150, 61)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("place", [PLACE, Tile(0, 0, 120, 40), Tile(201, 143, 55, 57)])
def test_a_caption_is_found_to_the_pixel(place: Tile, channels: int) -> None:
    pixels = captioned(200, 256, place, seed=3)[..., :channels].copy()
    assert drawnparts.find(pixels) == [place]


def test_several_captions_the_largest_first() -> None:
    pixels = captioned(200, 256, PLACE, seed=4)
    pixels[140:180, 10:110] = caption(40, 100)
    assert drawnparts.find(pixels) == [PLACE, Tile(10, 140, 100, 40)]


def test_a_photograph_in_a_page_is_left_out() -> None:
    page = caption(256, 256)
    page[80:160, 64:192] = drawn(80, 128, seed=5)
    found = drawnparts.find(page)
    covered = np.zeros((256, 256), np.bool_)
    for place in found:
        covered[place.y : place.y + place.height, place.x : place.x + place.width] = True
    assert not covered[88:152, 72:184].any()
    outside = np.ones_like(covered)
    outside[72:168, 56:200] = False
    assert covered[outside].mean() > 0.95


@pytest.mark.parametrize("seed", range(12))
def test_no_two_share_a_pixel(seed: int) -> None:
    """Pages with holes of noise, whose rectangles reach into the blocks around them."""
    random = np.random.default_rng(seed)
    page = caption(*(int(side) for side in random.integers(300, 420, 2)))
    for _ in range(random.integers(1, 6)):
        side = random.integers(40, 80)
        top, left = (random.integers(0, full - 80) for full in page.shape[:2])
        hole = page[top : top + side, left : left + side]
        hole[:] = random.integers(0, 256, hole.shape)
    found = drawnparts.find(page)
    assert len(found) > 1
    counts = np.zeros(page.shape[:2], np.int64)
    for place in found:
        counts[place.y : place.y + place.height, place.x : place.x + place.width] += 1
    assert counts.max() == 1
    assert sum(place.width * place.height for place in found) <= counts.size


@pytest.mark.parametrize("seed", range(5))
def test_photographs_have_none(seed: int) -> None:
    assert drawnparts.find(drawn(200, 300, seed)) == []


def test_what_is_flat_or_small_is_not_worth_a_try() -> None:
    for shape in ((1, 1), (7, 500), (8, 8), (500, 5), (300, 300)):
        assert drawnparts.find(np.full((*shape, 3), 200, np.uint8)) == []
    sky = drawn(200, 256, 6)
    sky[:80] = (120, 160, 255)
    assert drawnparts.find(sky) == []


def brute(chosen: NDArray[np.bool_]) -> int:
    height, width = chosen.shape
    return max(
        (
            (b - a) * (d - c)
            for a in range(height)
            for b in range(a + 1, height + 1)
            for c in range(width)
            for d in range(c + 1, width + 1)
            if chosen[a:b, c:d].all()
        ),
        default=0,
    )


@pytest.mark.parametrize("seed", range(6))
def test_the_largest_rectangle(seed: int) -> None:
    random = np.random.default_rng(seed)
    chosen = random.random((7, 9)) < (0, 0.3, 0.6, 0.8, 0.95, 1.1)[seed]
    rows, columns = drawnparts._largest(chosen)
    assert chosen[rows, columns].all()
    assert (rows.stop - rows.start) * (columns.stop - columns.start) == brute(chosen)
