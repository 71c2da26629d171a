"""Deep grey: white by the file's tags first, then by its bits, then by its values."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from diveqcodec.errors import ImageError
from diveqcodec.image import load
from tests.support.tiffs import page, tiff

RAMP = np.linspace(0, 1, 240).reshape(12, 20)


def loaded(
    values: NDArray[np.generic], photometric: int = 1, order: str = "<", **tags: int
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    pixels = values.astype(np.dtype(f"{order}{values.dtype.str[1:]}"))
    picture = load(BytesIO(tiff([page(pixels, photometric, **tags)], order)), name="x")
    assert picture.pixels.shape == (*values.shape, 1)
    return picture.pixels[..., 0], picture.notices


def expected(fractions: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.floor(fractions * 255 + 0.5).astype(np.uint8)


@pytest.mark.parametrize(
    ("dtype", "white", "told"),
    [
        (np.uint16, 65535, "16-bit input coded as 8-bit"),
        (np.int16, 32767, "16-bit input coded as 8-bit, white 32767"),
        (np.int32, 255, "32-bit input coded as 8-bit, white 255"),
        (np.int32, 65535, "32-bit input coded as 8-bit, white 65535"),
        (np.float32, 1, "float input coded as 8-bit, white 1"),
        (np.float32, 255, "float input coded as 8-bit, white 255"),
        (np.float32, 65535, "float input coded as 8-bit, white 65535"),
    ],
)
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("order", ["<", ">"])
def test_white(dtype: Any, white: int, told: str, photometric: int, order: str) -> None:
    if photometric == 0 and (np.dtype(dtype).kind == "i" or (dtype is np.uint16 and order == ">")):
        pytest.skip("Pillow does not read these")
    values = (RAMP * white).astype(dtype)
    pixels, notices = loaded(values, photometric, order)
    fractions = values / white
    wanted = expected(fractions if photometric else 1 - fractions)
    assert np.abs(pixels.astype(int) - wanted).max() <= 1  # ties of 1 - x
    assert notices == (told,)


@pytest.mark.parametrize("overshoot", [1.02, 1.9, 37.0, 1e6])
def test_one_float_above_white_is_clipped_and_said(overshoot: float) -> None:
    values = (RAMP * 0.94).astype(np.float32)
    values[3, 4] = overshoot
    pixels, notices = loaded(values)
    wanted = expected(RAMP * 0.94)
    wanted[3, 4] = 255
    assert np.abs(pixels.astype(int) - wanted).max() <= 1
    assert notices == (
        "float input coded as 8-bit, white 1",
        "1 of 240 pixels outside 0...1 clipped",
    )


def test_negative_floats_are_clipped_and_said() -> None:
    values = RAMP.astype(np.float32)
    values[0, :3] = -0.5
    pixels, notices = loaded(values)
    assert pixels[0, :3].tolist() == [0, 0, 0]
    assert notices[1] == "3 of 240 pixels outside 0...1 clipped"


def test_few_bright_points_on_black_are_no_overshoot() -> None:
    values = np.zeros((20, 20), np.float32)
    values[2:4, 5] = (200, 90)
    assert loaded(values)[0][2:4, 5].tolist() == [200, 90]


@pytest.mark.parametrize("tag", ["t281", "t341"])
@pytest.mark.parametrize("photometric", [0, 1])
def test_a_tag_comes_first(tag: str, photometric: int) -> None:
    tags: Any = {tag: 4095}
    values = (RAMP * 4095).astype(np.uint16)
    pixels, notices = loaded(values, photometric, **tags)
    fractions = values / 4095
    np.testing.assert_array_equal(pixels, expected(fractions if photometric else 1 - fractions))
    assert notices == ("16-bit input coded as 8-bit, white 4095",)


def test_a_tag_that_the_values_contradict_is_not_believed() -> None:
    values = (RAMP * 65535).astype(np.uint16)
    pixels, notices = loaded(values, t281=255)
    np.testing.assert_array_equal(pixels, expected(values / 65535))
    assert notices == ("16-bit input coded as 8-bit",)


@pytest.mark.parametrize(
    ("low", "high", "is_told"),
    [(0, 4095, True), (0, 16383, True), (0, 30000, False), (30000, 31000, True), (9, 65535, False)],
)
def test_values_in_a_small_part_of_the_range_are_told(low: int, high: int, is_told: bool) -> None:
    values = np.round(low + RAMP * (high - low)).astype(np.uint16)
    pixels, notices = loaded(values)
    np.testing.assert_array_equal(pixels, expected(values / 65535))
    told = f"values {low}...{high} fill little of 0...65535; scale them first for more contrast"
    assert notices[1:] == ((told,) if is_told else ())


def test_black_is_no_small_part() -> None:
    assert loaded(np.zeros((3, 3), np.uint16))[1] == ("16-bit input coded as 8-bit",)
    assert loaded(np.full((3, 3), 30000, np.uint16))[1] == ("16-bit input coded as 8-bit",)


def test_dark_pgm_stays_dark() -> None:
    """Pillow's mode I here means 16 bits, scaled: there is nothing to guess."""
    data = b"P5 2 1 65535\n" + (200).to_bytes(2, "big") + (65535).to_bytes(2, "big")
    assert load(BytesIO(data)).pixels[..., 0].tolist() == [[1, 255]]
    data = b"P5 2 1 65535\n" + (200).to_bytes(2, "big") + (100).to_bytes(2, "big")
    assert load(BytesIO(data)).pixels[..., 0].tolist() == [[1, 0]]


def test_12_bits_are_white_at_4095() -> None:
    values = np.array([0x000, 0x800, 0xFFF, 0x7FF], np.uint16)
    packed = bytes([0x00, 0x08, 0x00, 0xFF, 0xF7, 0xFF])
    directory = page(values.reshape(2, 2))
    directory.tags[258], directory.strip = (3, (12,)), packed
    picture = load(BytesIO(tiff([directory])))
    assert picture.pixels[..., 0].tolist() == [[0, 128], [255, 127]]
    assert picture.notices == ("12-bit input coded as 8-bit, white 4095",)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0, 70000]], np.int32), "x: grey values 0...70000; scale them to 0...65535"),
        (np.array([[-5, 200]], np.int16), "x: grey values -5...200; scale them to 0...65535"),
        (np.array([[1e6, 2e6]], np.float32), r"x: grey values 1e\+06...2e\+06; scale them"),
        (np.array([[np.inf, 1]], np.float32), "x: pixels that are not finite; replace them"),
    ],
)
def test_what_no_rule_covers_is_refused(values: NDArray[np.generic], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        loaded(values)


def test_large_pictures_are_converted_in_parts() -> None:
    values = (np.arange(700 * 3).reshape(700, 3) * 31).astype(np.uint16)
    with_rows = np.asarray(Image.fromarray(values))
    np.testing.assert_array_equal(loaded(with_rows)[0], expected(values / 65535))
