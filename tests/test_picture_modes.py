"""Every kind of picture at every small size: loaded as it looks, coded, and back in its kind."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms

from diveqcodec.codec import Codec
from diveqcodec.container import bitstream
from diveqcodec.image import Format, Picture, Pixels, flatten, load, save
from diveqcodec.image.pixels import coded_bits, samples_of, to_pixels
from tests.support.kinds import CMYK_PROFILE, EVERY, KINDS, Kind, Sample
from tests.support.profiles import ADOBE_RGB, DARK_GREY

RNG = np.random.default_rng(11)
DIAGONAL = [(side, side) for side in range(1, 68)]
ODD = [(2 * a + 1, 2 * b + 1) for a, b in RNG.integers(0, 50, (200, 2)).tolist()]


EIGHT_BITS = "input coded as 8-bit"


def is_opaque(alpha: Pixels | None) -> bool:
    return alpha is None or int(alpha.min()) == 255


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_and_size_looks_the_same(kind: Kind) -> None:
    for size in (DIAGONAL + ODD)[:: EVERY.get(kind, 1)]:
        data, pixels, alpha = kind(Sample(*size))
        picture = load(BytesIO(data))
        if (pixels == pixels[..., :1]).all() and picture.pixels.shape[2] == 1:
            pixels = pixels[..., :1]  # a palette of one grey
        np.testing.assert_array_equal(picture.pixels, pixels, err_msg=f"{kind.__name__} {size}")
        if is_opaque(alpha):
            assert picture.alpha is None
        else:
            assert picture.alpha is not None
            assert alpha is not None
            np.testing.assert_array_equal(picture.alpha, alpha)
        is_deep = any(word in kind.__name__ for word in ("deep", "zero", "float"))
        assert any(EIGHT_BITS in notice for notice in picture.notices) == is_deep


def test_hsv_of_every_size_looks_the_same() -> None:
    """No file holds this mode, but images of Pillow's do; the equations are Smith's (1978)."""
    for size in DIAGONAL + ODD:
        samples = Sample(*size).colour
        image = Image.frombytes("HSV", size[::-1], samples.tobytes())
        pixels, alpha = to_pixels(image, samples_of(image), None, "x", [])
        hue, saturation, value = np.moveaxis(samples / 255, -1, 0)
        turns = (np.array([5, 3, 1]) + 6 * hue[..., None]) % 6
        share = np.minimum(turns, 4 - turns).clip(0, 1)
        exact = 255 * value[..., None] * (1 - saturation[..., None] * share)
        assert alpha is None
        assert np.abs(pixels - exact).max() <= 1.01


@pytest.mark.parametrize("part", range(8))
def test_every_size_is_coded(codec: Codec, part: int) -> None:
    """Kinds in turn: what comes back has the size and channels, and the same transparency."""
    for number, size in enumerate((DIAGONAL + ODD)[part::8]):
        kind = KINDS[(number + part) % len(KINDS)]
        picture = load(BytesIO(kind(Sample(*size))[0]))
        back = codec.decompress(codec.compress(picture, 60))
        assert back.pixels.shape == picture.pixels.shape
        if is_opaque(picture.alpha):
            assert is_opaque(back.alpha)
        else:
            assert back.alpha is not None
            assert picture.alpha is not None
            np.testing.assert_array_equal(back.alpha, picture.alpha)
        stream = BytesIO()
        save(back, stream, "png")
        again = load(stream)
        np.testing.assert_array_equal(again.pixels, back.pixels)


def test_grey_stays_grey_and_costs_no_more_than_colour(codec: Codec) -> None:
    rows, columns = np.mgrid[:64, :80]
    plane = (rows * 3 % 200 + columns)[..., None].astype(np.uint8)
    one = codec.compress(Picture(plane), 50, lossless="never")
    three = codec.compress(Picture(np.repeat(plane, 3, axis=2)), 50, lossless="never")
    assert bitstream.read_header(one).is_grey
    assert len(one) <= len(three)
    back = codec.decompress(one)
    assert back.pixels.shape == (64, 80, 1)
    for format in ("png", "jpeg", "tiff", "ppm"):
        stream = BytesIO()
        save(back, stream, format)
        with Image.open(stream) as image:
            assert image.mode == "L", format


# --- what belongs to the table of pictures beside pixels ---


def test_cmyk_goes_through_its_own_profile() -> None:
    profile = CMYK_PROFILE
    inks = [(0, 0, 0, 0), (255, 0, 0, 0), (0, 0, 0, 255), (90, 30, 160, 10)]
    image = Image.new("CMYK", (4, 3))
    for x, ink in enumerate(inks):
        image.paste(ink, (x, 0, x + 1, 3))
    stream = BytesIO()
    image.save(stream, "TIFF", icc_profile=profile)
    through = load(stream)
    srgb = ImageCms.createProfile("sRGB")
    lab = ImageCms.profileToProfile(
        image, ImageCms.ImageCmsProfile(BytesIO(profile)), srgb, outputMode="RGB"
    )
    np.testing.assert_array_equal(through.pixels, np.asarray(lab))
    assert (through.icc, through.notices) == (None, ())
    stream = BytesIO()
    image.save(stream, "TIFF")
    without = load(stream)
    assert without.pixels[0, :3].tolist() == [[255, 255, 255], [0, 255, 255], [0, 0, 0]]
    white, cyan, black = through.pixels[0, :3].astype(int)
    assert white.min() > 240
    assert black.max() < 20
    assert np.abs(cyan - [0, 255, 255]).max() > 60


def test_grey_profiles_never_describe_colours() -> None:
    plane = np.arange(0, 250, 10, dtype=np.uint8).reshape(5, 5, 1)
    alpha = np.full((5, 5), 255, np.uint8)
    alpha[0] = 0
    flat = flatten(Picture(plane, alpha, DARK_GREY), (255, 0, 0))
    assert flat.pixels.shape == (5, 5, 3)
    assert flat.icc is None
    # linear grey 200 looks like sRGB 229
    assert np.abs(flat.pixels[4, 0].astype(int) - 229).max() <= 1
    kept = flatten(Picture(plane, alpha, DARK_GREY), (9, 9, 9))
    assert (kept.pixels.shape[2], kept.icc) == (1, DARK_GREY)
    coloured = Picture(np.repeat(plane, 3, axis=2), None, DARK_GREY)
    for picture in (coloured, Picture(plane, None, ADOBE_RGB)):
        for format in ("png", "jpeg", "tiff", "webp"):
            stream = BytesIO()
            lost = save(picture, stream, format)
            if format == "webp" and picture is not coloured:
                continue  # where grey is stored as colour
            assert lost == (f"{format} cannot hold the ICC profile",)
            assert load(stream).icc is None


@pytest.mark.parametrize("written", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("read", ["png", "jpeg", "tiff"])
@pytest.mark.parametrize("with_exif", [False, True])
def test_resolution_is_kept(written: str, read: Format, with_exif: bool) -> None:
    options: dict[str, object] = {"dpi": (300, 150)}
    if with_exif:
        exif = Image.Exif()
        exif[0x013B] = "A. Painter"
        options["exif"] = exif
    stream = BytesIO()
    Image.new("RGB", (8, 8)).save(stream, written, **options)
    picture = load(stream)
    assert picture.exif is not None
    again = BytesIO()
    assert save(picture, again, read) == ()
    with Image.open(again) as image:
        x, y = image.info["dpi"]
        assert (float(x), float(y)) == pytest.approx((300, 150), abs=0.02)
        assert image.getexif().get(0x013B) == ("A. Painter" if with_exif else None)
    twice = load(again)
    stream = BytesIO()
    save(twice, stream, read)
    assert twice.exif == load(stream).exif  # and no more is added


def test_no_resolution_is_made_up() -> None:
    for format in ("PNG", "JPEG", "TIFF", "GIF", "BMP"):
        stream = BytesIO()
        Image.new("RGB", (8, 8)).save(stream, format)
        exif = load(stream).exif
        assert exif is None or format == "BMP", format  # BMP has one always


@pytest.mark.parametrize(
    ("head", "bits"),
    [
        (b"....av1C\x81\x04\x0c\0", 8),
        (b"....av1C\x81\x04\x4c\0", 10),
        (b"....av1C\x81\x44\x6c\0", 12),
        (b"", 8),
    ],
)
def test_bits_of_avif(head: bytes, bits: int) -> None:
    assert coded_bits(head) == bits
