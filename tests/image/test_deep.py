"""More than 8 bits in formats that Pillow cuts to 8: the values are right, and it is said."""

import contextlib
import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, features

from diveqcodec.errors import ImageError
from diveqcodec.image import jpeg2000, load
from tests.support.tiny import drawn

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


needs_openjpeg = pytest.mark.skipif(
    not features.check("jpg_2000"), reason="this Pillow was built without OpenJPEG"
)


@needs_openjpeg
@pytest.mark.parametrize("bits", [10, 12, 16])
def test_jpeg2000(bits: int) -> None:
    check(FOLDER / f"{bits}.jp2", 0.02 + 0.96 * SHARES, bits)
    check(FOLDER / f"grey-{bits}.jp2", SHARES[..., :1], bits)


@needs_openjpeg
@pytest.mark.parametrize(
    "name",
    ["full-9.jp2", "full-12.j2k", "full-16.jp2", "lossy-12.jp2", "lossy-16.jp2"]
    + ["full-signed-12.jp2", "lossy-signed-12.jp2"],
)
def test_jpeg2000_from_black_to_white(name: str) -> None:
    check(FOLDER / name, SHARES, int(Path(name).stem.rpartition("-")[2]))


@needs_openjpeg
@pytest.mark.parametrize("bits", [9, 20])
@pytest.mark.parametrize("how", ["full", "lossy"])
def test_grey_jpeg2000_of_bits_that_pillow_cuts(how: str, bits: int) -> None:
    check(FOLDER / f"{how}-grey-{bits}.jp2", SHARES[..., :1], bits)


@needs_openjpeg
@pytest.mark.parametrize("how", ["full", "lossy"])
def test_jpeg2000_with_transparency(how: str) -> None:
    for kind, colours, opacity in (
        ("rgba", SHARES, SHARES[..., 2]),
        ("la", SHARES[..., :1], SHARES[..., 1]),
    ):
        path = FOLDER / f"{how}-{kind}-16.jp2"
        check(path, colours, 16)
        alpha = load(path).alpha
        assert alpha is not None
        assert np.abs(alpha - 255 * opacity).max() <= 1.5


@needs_openjpeg
@pytest.mark.parametrize("how", ["full", "lossy"])
def test_jpeg2000_of_other_colours(how: str) -> None:
    picture = load(FOLDER / f"{how}-sycc-12.jp2")
    assert np.abs(picture.pixels - 255 * SHARES).max() <= 4  # 8-bit YCbCr is between them
    assert picture.notices == ("12-bit input coded as 8-bit",)
    picture = load(FOLDER / f"{how}-cmyk-12.jp2")
    assert np.abs(picture.pixels - 255 * SHARES * SHARES[..., 2:]).max() <= 3


@needs_openjpeg
def test_tiles_of_jpeg2000() -> None:
    """Of floats it is enough to declare 12 bits: samples are scaled to them."""
    stream = BytesIO()
    image = Image.fromarray((255 * np.tile(SHARES, (3, 2, 1))).astype(np.uint8))
    image.save(stream, "JPEG2000", irreversible=True, tile_size=(16, 16))
    eight = load(stream).pixels
    data = bytearray(stream.getvalue())
    headers = jpeg2000.look(stream)
    assert headers is not None
    data[headers.start + 42 : headers.start + 51 : 3] = bytes([11] * 3)
    picture = load(BytesIO(data))
    assert picture.notices == ("12-bit input coded as 8-bit",)
    assert (picture.pixels == eight).all()


@needs_openjpeg
def test_white_of_jpeg2000_is_not_coded_as_black() -> None:
    assert (load(FOLDER / "white.jp2").pixels == 255).all()


@needs_openjpeg
@pytest.mark.parametrize("name", ["full-16.jp2", "lossy-16.jp2"])
def test_a_large_box_may_come_before_the_samples(name: str) -> None:
    data = (FOLDER / name).read_bytes()
    place = data.index(b"jp2c") - 4
    box = b"xml " + b"<a/>" * 10000
    body = struct.pack(">I", len(box) + 4) + box
    check(BytesIO(data[:place] + body + data[place:]), SHARES, 16)
    long = struct.pack(">I4sQ", 1, b"xml ", len(box) + 12) + box[4:]  # its length in 8 bytes
    check(BytesIO(data[:place] + long + data[place:]), SHARES, 16)


@needs_openjpeg
def test_jpeg2000_of_mixed_transforms_is_refused() -> None:
    """The second component by floats, which Pillow cannot be made to read rightly."""
    data = (FOLDER / "full-12.j2k").read_bytes()
    place = data.index(b"\xff\x52")  # COD
    place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    own = b"\xff\x53\0\x09\1\0" + bytes([5, 4, 4, 0, 0])  # COC
    with pytest.raises(ImageError) as refused:
        load(BytesIO(data[:place] + own + data[place:]), name="a.j2k")
    assert str(refused.value) == (
        "a.j2k: 12-bit JPEG 2000: Pillow would read white as black, and tiles or components of "
        "several transforms leave no way round it; make a PNG of it first, such as with "
        "opj_decompress"
    )


@needs_openjpeg
@pytest.mark.parametrize("irreversible", [False, True])
@pytest.mark.parametrize("options", [{}, {"tile_size": (16, 16), "plt": True}, {"no_jp2": True}])
def test_headers_of_jpeg2000(irreversible: bool, options: dict[str, Any]) -> None:
    stream = BytesIO()
    image = Image.fromarray(drawn(40, 50, 1))
    image.save(stream, "JPEG2000", irreversible=irreversible, **options)
    stream.seek(7)
    headers = jpeg2000.look(stream)
    assert stream.tell() == 7
    assert headers is not None
    assert headers.bits == (8, 8, 8)
    assert headers.transforms == {0 if irreversible else 1}
    data = stream.getvalue()
    assert data[headers.start :].startswith(b"\xff\x4f\xff\x51")
    assert not headers.is_luma
    if headers.colours_at is None:
        assert "no_jp2" in options
    else:
        assert data[headers.colours_at[0] :].startswith(struct.pack(">I", 16))
    for length in range(len(data)):  # and what is cut off is no trouble
        cut = jpeg2000.look(BytesIO(data[:length]))
        assert cut is None or (cut.bits == headers.bits and cut.transforms <= headers.transforms)


@needs_openjpeg
@pytest.mark.parametrize("name", ["full-16.jp2", "lossy-sycc-12.jp2", "full-sycc-12.jp2"])
def test_damaged_deep_jpeg2000_is_a_picture_or_an_error(name: str) -> None:
    data = (FOLDER / name).read_bytes()
    for place in range(0, len(data), 2):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        for damaged in (bytes(flipped), data[:place]):
            with contextlib.suppress(ImageError):
                load(BytesIO(damaged), max_pixels=10_000)


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
