"""A picture: what can be none, and on a background."""

import numpy as np
import pytest

from diveqcodec.errors import ConfigError
from diveqcodec.image import Picture, flatten
from tests.support.pictures import GREY


def test_flatten_by_hand():
    pixels = np.array([[[200, 100, 0], [200, 100, 0], [200, 100, 0]]], dtype=np.uint8)
    alpha = np.array([[0, 128, 255]], dtype=np.uint8)
    flat = flatten(Picture(pixels, alpha, icc=b"icc"), (255, 0, 50))
    # 200 * 128 / 255 + 255 * 127 / 255 = 227.4; 100 * 128 / 255 = 50.2; 50 * 127 / 255 = 24.9
    assert flat.pixels.tolist() == [[[255, 0, 50], [227, 50, 25], [200, 100, 0]]]
    assert flat.alpha is None
    assert flat.icc == b"icc"


def test_flatten_grey_stays_grey_on_grey():
    grey = Picture(np.full((1, 1, 1), 255, dtype=np.uint8), np.zeros((1, 1), dtype=np.uint8))
    assert flatten(grey, (7, 7, 7)).pixels.tolist() == [[[7]]]
    assert flatten(grey, (7, 8, 9)).pixels.tolist() == [[[7, 8, 9]]]
    opaque = Picture(GREY)
    assert flatten(opaque, (7, 8, 9)) is opaque


def test_rows_are_mixed_some_at_a_time():
    random = np.random.default_rng(2)
    pixels = random.integers(0, 256, (600, 5, 3), dtype=np.uint8)
    alpha = random.integers(0, 256, (600, 5), dtype=np.uint8)
    colour = (7, 200, 99)
    share = alpha[..., None] / 255
    expected = np.floor(pixels * share + np.array(colour) * (1 - share) + 0.5 - 1e-9)
    mixed = flatten(Picture(pixels, alpha), colour).pixels
    assert np.abs(mixed - expected).max() <= 1
    assert (mixed != expected).mean() < 0.01


@pytest.mark.parametrize(
    ("pixels", "alpha"),
    [
        (GREY[..., 0], None),
        (np.zeros((4, 5, 4), np.uint8), None),
        (np.zeros((0, 5, 3), np.uint8), None),
        (np.zeros((4, 5, 3), np.uint16), None),
        (np.zeros((4, 5, 3)), None),
        ([[[0, 0, 0]]], None),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4), np.uint8)),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5, 1), np.uint8)),
        (np.zeros((4, 5, 3), np.uint8), np.ones((4, 5), np.bool_)),
    ],
)
def test_planes_that_are_no_picture_are_refused(pixels, alpha):
    wrong = "alpha" if alpha is not None else "pixels"
    with pytest.raises(ConfigError, match=f"^{wrong} .*must be uint8 .*$"):
        Picture(pixels, alpha)
