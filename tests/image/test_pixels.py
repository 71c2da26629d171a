"""Every mode of Pillow's looks the same as 8-bit pixels."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms

from diveqcodec.errors import ImageError
from diveqcodec.image import load, pixels
from diveqcodec.image.pixels import samples_of, to_pixels
from tests.support.pictures import ALPHA, COLOUR, GREY, file_of, reload
from tests.support.pngs import chunk, png
from tests.support.profiles import SRGB


def pixels_of(opened, notices=None):
    """Pixels and alpha of an image in memory, of a mode that only some plugin makes."""
    samples = samples_of(opened)
    return to_pixels(opened, samples, None, "x", [] if notices is None else notices)


@pytest.mark.parametrize(
    ("mode", "format", "channels"),
    [
        ("1", "PNG", 1),
        ("L", "PNG", 1),
        ("P", "PNG", 3),
        ("RGB", "PNG", 3),
        ("YCbCr", "TIFF", 3),
        ("LAB", "TIFF", 3),
        ("CMYK", "TIFF", 3),
    ],
)
def test_opaque_modes_look_the_same(mode, format, channels):
    original = Image.fromarray(COLOUR)
    if mode == "LAB":
        original = Image.merge("LAB", Image.fromarray(COLOUR).split())
    else:
        original = original.convert(mode)
    stream = file_of(original, format)
    with Image.open(stream) as opened:
        assert opened.mode == mode
    loaded = load(stream)
    assert loaded.alpha is None
    expected = np.asarray(original.convert("RGB"))[..., :channels]
    assert np.abs(loaded.pixels.astype(int) - expected).max() <= (3 if mode == "YCbCr" else 0)


@pytest.mark.parametrize(
    "mode",
    ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"]
    + ["I;16", "I;16B", "I;16L", "I", "F"],
)
def test_modes_that_only_some_plugins_make(mode):
    notices: list[str] = []
    pixels, alpha = pixels_of(Image.new(mode, (3, 2)), notices)
    assert pixels.shape in [(2, 3, 1), (2, 3, 3)]
    assert pixels.dtype == np.uint8
    assert (alpha is not None) == (mode in ("LA", "La", "PA", "RGBA", "RGBa"))
    assert len(notices) == (mode[0] in "IF")


def test_hsv_red_is_red():
    red = Image.new("HSV", (1, 1), (0, 255, 255))
    assert pixels_of(red)[0].tolist() == [[[255, 0, 0]]]


@pytest.mark.parametrize(("mode", "pixels"), [("LA", GREY), ("RGBA", COLOUR)])
def test_transparency_is_kept(mode, pixels):
    loaded = reload(Image.fromarray(np.dstack([pixels, ALPHA]).astype(np.uint8), mode))
    np.testing.assert_array_equal(loaded.pixels, pixels)
    np.testing.assert_array_equal(loaded.alpha, ALPHA)


def test_opaque_alpha_is_dropped():
    assert reload(Image.fromarray(COLOUR).convert("RGBA")).alpha is None


@pytest.mark.parametrize("transparency", [1, b"\x00\x80"])
def test_palette_with_transparency(transparency):
    palette = Image.new("P", (3, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    palette.putdata([0, 1, 2])
    loaded = reload(palette, transparency=transparency)
    assert loaded.pixels.tolist() == [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]]
    assert loaded.alpha.tolist() == [[255, 0, 255] if transparency == 1 else [0, 128, 255]]


def test_palette_of_greys_is_grey():
    palette = Image.new("P", (2, 1))
    palette.putpalette([9, 9, 9, 200, 200, 200])
    palette.putdata([1, 0])
    assert reload(palette).pixels.tolist() == [[[200], [9]]]


@pytest.mark.parametrize(("mode", "colour"), [("L", 5), ("RGB", (5, 6, 7)), ("1", 0)])
def test_transparent_colour(mode, colour):
    opaque = Image.new(mode, (2, 1), 255 if mode != "RGB" else (255, 255, 255))
    opaque.putpixel((0, 0), colour)
    loaded = reload(opaque, transparency=colour)
    assert loaded.alpha.tolist() == [[0, 255]]
    assert loaded.pixels.shape[2] == (3 if mode == "RGB" else 1)


def test_16_bit_grey_is_scaled():
    values = np.array([[0, 128, 129, 257, 65535, 65406, 65407]], dtype=np.uint16)
    loaded = reload(Image.fromarray(values))
    assert loaded.pixels[..., 0].tolist() == [[0, 0, 1, 1, 255, 254, 255]]
    assert loaded.notices == ("16-bit input coded as 8-bit",)
    assert reload(Image.fromarray(values), transparency=257).alpha.tolist() == [
        [255, 255, 255, 0, 255, 255, 255]
    ]


@pytest.mark.parametrize(
    ("values", "expected", "white"),
    [([0.0, 0.5, 1.0], [0, 128, 255], 1), ([0.0, 7.4, 255.0], [0, 7, 255], 255)],
)
def test_float_grey(values, expected, white):
    loaded = reload(Image.fromarray(np.array([values], dtype=np.float32)), "TIFF")
    assert loaded.pixels[..., 0].tolist() == [expected]
    assert loaded.notices == (f"float input coded as 8-bit, white {white}",)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[-1, 5]], dtype=np.int32), "grey values -1...5; scale them"),
        (np.array([[0, 65536]], dtype=np.int32), "grey values 0...65536; scale them"),
        (np.array([[np.nan, 1]], dtype=np.float32), "not finite"),
    ],
)
def test_grey_without_a_scale_is_refused(values, message):
    with pytest.raises(ImageError, match=message):
        reload(Image.fromarray(values), "TIFF")


def test_cmyk_goes_through_its_profile(monkeypatch):
    cmyk = Image.new("CMYK", (3, 2), (255, 0, 0, 0))
    unreadable = reload(cmyk, "TIFF", icc_profile=b"no profile")
    assert unreadable.icc is None
    assert unreadable.notices == ("CMYK converted without its unreadable ICC profile",)
    assert unreadable.pixels[0, 0].tolist() == [0, 255, 255]
    another = reload(cmyk, "TIFF", icc_profile=SRGB)
    assert another.icc is None
    assert another.notices == ("CMYK converted without its ICC profile of another colour space",)
    assert another.pixels[0, 0].tolist() == [0, 255, 255]
    # No free CMYK profile is at hand: see that it is used, and for what.
    monkeypatch.setattr(ImageCms, "ImageCmsProfile", lambda stream: stream.read())
    monkeypatch.setattr(
        ImageCms,
        "profileToProfile",
        lambda source, profile, target, outputMode: (
            Image.new(outputMode, source.size, "teal")
            if (source.mode, profile) == ("CMYK", b"a profile")
            else None
        ),
    )
    through = reload(cmyk, "TIFF", icc_profile=b"a profile")
    assert through.pixels[1, 2].tolist() == [0, 128, 128]
    assert through.icc is None


def test_a_transparent_colour_of_16_bits_is_that_colour_alone():
    samples = np.zeros((6, 8, 3), np.uint16)
    samples[:] = (300, 600, 900)
    samples[0] = (301, 600, 900)  # the same high bytes
    samples[1] = (300, 600, 644)  # the same low bytes
    samples[2:4, :3] = (60000, 5, 700)
    key = chunk(b"tRNS", np.array([300, 600, 900], ">u2").tobytes())
    expected = (samples != (300, 600, 900)).any(axis=2) * 255
    picture = load(BytesIO(png(samples, 16, key)))
    assert picture.alpha is not None
    np.testing.assert_array_equal(picture.alpha, expected)
    np.testing.assert_array_equal(picture.pixels, samples >> 8)
    exif = Image.Exif()
    exif[0x112] = 6  # turned by a quarter, and its transparency with it
    turned = load(BytesIO(png(samples, 16, key, chunk(b"eXIf", exif.tobytes()[6:]))))
    assert turned.alpha is not None
    np.testing.assert_array_equal(turned.alpha, np.rot90(expected, -1))
    np.testing.assert_array_equal(turned.pixels, np.rot90(samples >> 8, -1))
    with pytest.raises(ImageError):
        load(BytesIO(png(samples, 16, key)[:-40]))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA", "CMYK", "1"])
def test_rows_are_converted_some_at_a_time(mode, monkeypatch):
    image = Image.fromarray(COLOUR).convert(mode)
    whole = load(file_of(image, "TIFF"))
    monkeypatch.setattr(pixels, "_CONVERTED", 3 * image.width + 1)
    parts = load(file_of(image, "TIFF"))
    np.testing.assert_array_equal(parts.pixels, whole.pixels)
    assert parts.notices == whole.notices
