import math

import numpy as np
import pytest
import torch

from diveqcodec.errors import DiveqError
from diveqcodec.evaluate.compressai_compat import import_compressai
from diveqcodec.evaluate.metrics import Pixels, ms_ssim, psnr
from tests.support.learned import with_compressai


def drawn(height: int, width: int, seed: int = 0) -> Pixels:
    """Gradients, a sharp disc and noise."""
    rows, columns = np.mgrid[:height, :width]
    noise = np.random.default_rng(seed).normal(0, 6, (height, width, 3))
    smooth = np.stack([rows * 1.1, columns * 0.9, rows + columns], axis=-1) % 256
    smooth[(rows - height / 2) ** 2 + (columns - width / 2) ** 2 < height**2 / 16] = (200, 30, 90)
    return (smooth + noise).clip(0, 255).astype(np.uint8)


def test_psnr_of_one_changed_value() -> None:
    original = np.zeros((2, 5, 3), np.uint8)
    decoded = original.copy()
    decoded[1, 4, 2] = 3
    # 30 values, one squared error of 9: MSE 0.3
    assert psnr(original, decoded) == pytest.approx(10 * math.log10(255**2 / 0.3), abs=1e-12)


def test_psnr_of_black_against_white_is_zero() -> None:
    assert psnr(np.zeros((9, 7, 3), np.uint8), np.full((9, 7, 3), 255, np.uint8)) == 0


def test_equal_pictures() -> None:
    picture = drawn(170, 161)
    assert psnr(picture, picture) == math.inf
    assert ms_ssim(picture, picture) == pytest.approx(1, abs=1e-6)


def test_grey_counts_as_three_equal_channels() -> None:
    grey, decoded = drawn(180, 170)[:, :, :1], drawn(180, 170, seed=1)[:, :, :1]
    colour, decoded_colour = (np.repeat(one, 3, axis=2) for one in (grey, decoded))
    assert psnr(grey, decoded) == psnr(colour, decoded_colour) == psnr(grey, decoded_colour)
    assert ms_ssim(grey, decoded) == ms_ssim(colour, decoded_colour)


@pytest.mark.parametrize(("height", "width"), [(160, 400), (400, 160), (1, 1)])
def test_no_ms_ssim_below_161_pixels(height: int, width: int) -> None:
    assert ms_ssim(drawn(height, width), drawn(height, width, seed=1)) is None


def test_ms_ssim_from_161_pixels_on() -> None:
    value = ms_ssim(drawn(161, 161), drawn(161, 161, seed=1))
    assert value is not None
    assert 0.5 < value < 0.999


def test_sizes_must_agree() -> None:
    with pytest.raises(DiveqError, match="5x4 pixels, the original 4x4"):
        psnr(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8))


@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)]
)
def test_only_8_bit_grey_or_colour(pixels: Pixels) -> None:
    with pytest.raises(DiveqError, match="8-bit pixels"):
        psnr(pixels, pixels)


@with_compressai
def test_the_same_as_compressai() -> None:
    threads = torch.get_num_threads()
    deterministic = torch.backends.cudnn.deterministic
    theirs = import_compressai("compressai.utils.eval_model.__main__")
    torch.set_num_threads(threads)  # importing that module sets both
    torch.backends.cudnn.deterministic = deterministic
    darker: Pixels = drawn(200, 176) // np.uint8(2)
    for decoded in (drawn(200, 176, seed=1), darker):
        original = drawn(200, 176)
        tensors = [
            torch.from_numpy(one).permute(2, 0, 1)[None] / 255 for one in (original, decoded)
        ]
        expected = theirs.compute_metrics(*tensors)
        assert psnr(original, decoded) == pytest.approx(expected["psnr-rgb"], abs=1e-4)
        assert ms_ssim(original, decoded) == pytest.approx(expected["ms-ssim-rgb"], abs=1e-6)
