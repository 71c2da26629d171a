"""Pictures through files: what is saved is loaded again, and nothing but ImageError escapes."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from diveqcodec.errors import ImageError
from diveqcodec.image import Picture, load, save
from tests.support.pictures import ALPHA, COLOUR, GREY, RNG, file_of, reload


@pytest.mark.parametrize("pixels", [COLOUR, GREY])
@pytest.mark.parametrize(
    ("format", "alpha"),
    [(format, alpha) for format in ("png", "webp", "tiff") for alpha in (None, ALPHA)]
    + [("ppm", None)],
)
def test_load_inverts_save(format, pixels, alpha):
    stream = BytesIO()
    assert save(Picture(pixels, alpha), stream, format) == ()
    loaded = load(stream)
    expected = np.broadcast_to(pixels, (13, 17, 3)) if format == "webp" else pixels
    np.testing.assert_array_equal(loaded.pixels, expected)
    if alpha is None or loaded.alpha is None:
        assert loaded.alpha is alpha
    else:
        np.testing.assert_array_equal(loaded.alpha, alpha)
    assert loaded.notices == ()


@pytest.mark.parametrize("pixels", [COLOUR, GREY])
def test_jpeg_is_close(pixels):
    smooth = np.broadcast_to(np.arange(0, 240, 4, dtype=np.uint8)[:, None, None], (60, 60, 3))
    smooth = smooth[..., : pixels.shape[2]]
    stream = BytesIO()
    save(Picture(smooth), stream, "jpeg")
    with Image.open(stream) as opened:
        assert isinstance(opened, JpegImagePlugin.JpegImageFile)
        assert JpegImagePlugin.get_sampling(opened) == (0 if pixels is COLOUR else -1)
    loaded = load(stream)
    assert loaded.pixels.shape == smooth.shape
    assert np.abs(loaded.pixels.astype(int) - smooth).max() <= 4


@pytest.mark.parametrize("format", ["jpeg", "ppm"])
def test_transparency_needs_a_format(format):
    with pytest.raises(ImageError, match=f"{format} cannot hold transparency"):
        save(Picture(COLOUR, ALPHA), BytesIO(), format)


def test_save_refuses_unknown_formats_and_too_large_pictures(tmp_path):
    with pytest.raises(ImageError, match="unknown format gif"):
        save(Picture(COLOUR), BytesIO(), "gif")  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="cannot be written as webp"):
        save(Picture(np.zeros((1, 16_384, 1), dtype=np.uint8)), BytesIO(), "webp")
    with pytest.raises(ImageError, match="cannot be written as png"):
        save(Picture(COLOUR), tmp_path / "no" / "such.png", "png")


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (3, 5)])
def test_every_size(size):
    pixels = RNG.integers(0, 256, size=(*size, 3), dtype=np.uint8)
    np.testing.assert_array_equal(reload(Image.fromarray(pixels)).pixels, pixels)


def test_first_frame_with_a_notice():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    loaded = reload(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert loaded.pixels[0, 0].tolist() == [255, 0, 0]
    assert loaded.notices == ("the first of 3 frames coded",)


def png_header(width, height):
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    idat = b"IDAT" + zlib.compress(bytes(10))
    chunk += struct.pack(">I", len(idat) - 4) + idat + struct.pack(">I", zlib.crc32(idat))
    return b"\x89PNG\r\n\x1a\n" + chunk


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((70_000, 70_000), "big.png: 70000x70000 pixels; the limit is 268 million"),
        ((300_000, 2), "the limit is 268 million, 262144 a side"),
    ],
)
def test_too_many_pixels(tmp_path, size, message):
    path = tmp_path / "big.png"
    path.write_bytes(png_header(*size))
    with pytest.raises(ImageError, match=message):
        load(path)


def test_pillows_own_limit_is_put_aside_and_back(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    np.testing.assert_array_equal(reload(Image.fromarray(COLOUR)).pixels, COLOUR)
    with pytest.raises(ImageError):
        load(BytesIO(b"no picture"))
    assert Image.MAX_IMAGE_PIXELS == 10


def test_own_limit():
    assert load(file_of(Image.fromarray(COLOUR)), max_pixels=13 * 17).pixels.shape == (13, 17, 3)
    with pytest.raises(ImageError, match="photo: 17x13 pixels; the limit is 220"):
        load(file_of(Image.fromarray(COLOUR)), name="photo", max_pixels=220)


def test_messages_name_the_file(tmp_path):
    notes = tmp_path / "notes.png"
    notes.write_text("not a picture")
    for path, message in [
        (tmp_path / "none.png", "none.png: no such file"),
        (tmp_path, "is a directory"),
        (notes, "notes.png: not an image that Pillow can read"),
    ]:
        with pytest.raises(ImageError, match=message) as caught:
            load(str(path))
        assert "\n" not in str(caught.value)
    with pytest.raises(ImageError, match="<stream>: not an image"):
        load(BytesIO())


def test_content_not_suffix(tmp_path):
    path = tmp_path / "picture.jpg"
    path.write_bytes(file_of(Image.fromarray(COLOUR)).read())
    np.testing.assert_array_equal(load(path).pixels, COLOUR)


def test_drawings_are_refused():
    drawing = BytesIO(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n\n")
    with pytest.raises(ImageError, match="a drawing \\(EPS\\)"):
        load(drawing)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "PPM", "BMP"])
def test_damaged_files_are_image_errors_or_pictures(format):
    data = file_of(Image.fromarray(COLOUR), format).getvalue()
    rng = np.random.default_rng(1)
    cases = [data[:n] for n in range(0, len(data), max(1, len(data) // 60))]
    for _ in range(60):
        flipped = bytearray(data)
        flipped[rng.integers(0, len(data))] ^= 1 << rng.integers(0, 8)
        cases.append(bytes(flipped))
    errors, shapes = [], []
    for case in cases:
        try:
            shapes.append(load(BytesIO(case), max_pixels=1_000_000).pixels.shape)
        except ImageError as error:
            errors.append(str(error))
    assert errors
    assert all(message.startswith("<stream>: ") and "\n" not in message for message in errors)
    assert all(len(shape) == 3 for shape in shapes)
