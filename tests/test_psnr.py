"""PSNR of pictures of more rows than are looked at at once."""

import math

import numpy as np
import pytest

from diveqcodec import psnr as module
from diveqcodec.psnr import psnr

RNG = np.random.default_rng(4)


@pytest.mark.parametrize("height", [1, 255, 256, 257, 600])
def test_rows_are_added_up(height: int) -> None:
    one, other = RNG.integers(0, 256, (2, height, 5, 3), dtype=np.uint8)
    seen = RNG.random((height, 5)) < 0.5
    seen[0, 0] = True
    error = np.square(one.astype(float) - other)
    assert psnr(one, other) == pytest.approx(10 * math.log10(255**2 / error.mean()))
    assert psnr(one, other, seen) == pytest.approx(10 * math.log10(255**2 / error[seen].mean()))
    assert psnr(one, one) == psnr(one, one[...], seen) == math.inf


@pytest.mark.parametrize("rows", [module._ROWS, 1, 301])
def test_pictures_of_other_heights_are_refused(rows: int) -> None:
    with pytest.raises(ValueError, match="rows of pixels"):
        psnr(np.zeros((300, 4, 3), np.uint8), np.zeros((rows, 4, 3), np.uint8))
