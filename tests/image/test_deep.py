"""More than 8 bits in formats that Pillow cuts to 8: the values are right, and it is said."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import features

from diveqcodec.errors import ImageError
from diveqcodec.image import load

FOLDER = Path(__file__).parent / "deep"  # its README says what is in the files
ROWS, COLUMNS = np.mgrid[:8, :12]
SHARES = np.stack([ROWS / 7, COLUMNS / 11, (ROWS + COLUMNS) / 18], axis=-1)


def check(source: Path | BytesIO, shares: NDArray[np.float64], bits: int) -> None:
    picture = load(source)
    assert picture.notices == (f"{bits}-bit input coded as 8-bit",)
    assert picture.pixels.shape == shares.shape
    assert np.abs(picture.pixels - 255 * shares).max() <= 1.5  # Pillow drops bits, and rounds


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")
@pytest.mark.parametrize("bits", [10, 12])
def test_avif(bits: int) -> None:
    check(FOLDER / f"{bits}.avif", SHARES, bits)
    check(FOLDER / f"grey-{bits}.avif", SHARES[..., :1], bits)


@pytest.mark.skipif(not features.check("jpg_2000"), reason="this Pillow was built without OpenJPEG")
@pytest.mark.parametrize("bits", [10, 12, 16])
def test_jpeg2000(bits: int) -> None:
    check(FOLDER / f"{bits}.jp2", 0.02 + 0.96 * SHARES, bits)
    check(FOLDER / f"grey-{bits}.jp2", SHARES[..., :1], bits)


@pytest.mark.skipif(not features.check("jpg_2000"), reason="this Pillow was built without OpenJPEG")
def test_white_of_jpeg2000_is_not_coded_as_black() -> None:
    """Pillow's fault: what comes out as 0 may be either."""
    path = FOLDER / "white.jp2"
    try:
        picture = load(path)
    except ImageError as error:
        text = str(error)
    else:
        assert (picture.pixels == 255).all()  # a Pillow that does not do that
        return
    assert text == (
        f"{path}: 12-bit JPEG 2000: Pillow reads white as black, which 288 samples may be; "
        "make a PNG of it first, such as with opj_decompress"
    )


@pytest.mark.parametrize("white", [1023, 4095, 65535])
@pytest.mark.parametrize("letter", ["P5", "P6", "P2", "P3"])
def test_ppm(letter: str, white: int) -> None:
    channels = 1 if letter in ("P5", "P2") else 3
    values = np.round(SHARES[..., :channels] * white).astype(">u2")
    body = values.tobytes() if letter in ("P5", "P6") else " ".join(map(str, values.flat)).encode()
    data = f"{letter} 12 8 {white}\n".encode() + body
    check(BytesIO(data), SHARES[..., :channels], white.bit_length())


@pytest.mark.parametrize("white", [100, 255])
def test_ppm_of_no_more_than_8_bits_has_no_notice(white: int) -> None:
    values = np.round(SHARES * white).astype(np.uint8)
    picture = load(BytesIO(f"P6 12 8 {white}\n".encode() + values.tobytes()))
    assert picture.notices == ()
    assert np.abs(picture.pixels - values * (255 / white)).max() <= 0.51
