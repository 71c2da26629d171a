"""Gamma and primaries of PNG: converted to sRGB where they are not its own."""

import struct
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from diveqcodec.api import from_pillow
from diveqcodec.image import Picture, load, save
from diveqcodec.image.colour import Encoding, Floats
from diveqcodec.image.metadata import exif_of_srgb
from tests.support.pngs import chunk
from tests.support.profiles import ADOBE_RGB
from tests.support.profiles import SRGB as SRGB_PROFILE

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (9, 11, 3), dtype=np.uint8)
SRGB = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
DEEP = np.arange(0, 65536, 257 * 3, dtype=np.uint16)[None]
P3 = (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)


def with_chunks(image: Image.Image, *chunks: bytes, **options: object) -> Picture:
    stream = BytesIO()
    image.save(stream, "PNG", **options)
    data = stream.getvalue()
    return load(BytesIO(data[:33] + b"".join(chunks) + data[33:]))


def gamma(value: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(value * 100_000)))


def srgb_of(light: Floats) -> Floats:
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("value", [1.0, 1 / 1.8, 0.7])
def test_gamma_is_converted(value: float) -> None:
    written = round(value, 5)
    wanted = np.floor(srgb_of((COLOUR / 255) ** (1 / written)) * 255 + 0.5)
    picture = with_chunks(Image.fromarray(COLOUR), gamma(value))
    np.testing.assert_array_equal(picture.pixels, wanted)
    (notice,) = picture.notices
    assert notice.startswith("colours converted to sRGB from gamma ")
    grey = with_chunks(Image.fromarray(COLOUR[..., 0]), gamma(value))
    np.testing.assert_array_equal(grey.pixels, wanted[..., :1])


def test_gamma_of_deep_grey_is_applied_before_rounding() -> None:
    values = np.arange(0, 65536, 257 * 3, dtype=np.uint16)[None] // 16
    picture = with_chunks(Image.fromarray(values), gamma(1.0))
    wanted = np.floor(srgb_of(values / 65535) * 255 + 0.5)
    np.testing.assert_array_equal(picture.pixels[..., 0], wanted)


def test_palettes_and_alpha() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([128, 0, 255, 10, 20, 30])
    palette.putdata([0, 1])
    picture = with_chunks(palette, gamma(1.0), transparency=1)
    assert picture.pixels[0, 0].tolist() == [188, 0, 255]
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[255, 0]]


@pytest.mark.parametrize(
    "chunks",
    [
        (),
        (gamma(1 / 2.2),),
        (gamma(0.45455), chunk(b"cHRM", struct.pack(">8I", *SRGB))),
        (gamma(1.0), chunk(b"sRGB", b"\0")),  # which wins
        (gamma(0.0),),  # means nothing
        (chunk(b"cHRM", bytes(32)),),
        (chunk(b"cHRM", struct.pack(">8I", *SRGB[:2], *SRGB[2:4] * 3)),),  # no triangle
    ],
)
def test_srgb_and_nonsense_change_nothing(chunks: tuple[bytes, ...]) -> None:
    picture = with_chunks(Image.fromarray(COLOUR), *chunks)
    np.testing.assert_array_equal(picture.pixels, COLOUR)
    assert picture.notices == ()


def test_a_profile_wins() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    stream = BytesIO()
    Image.fromarray(COLOUR).save(stream, "PNG", icc_profile=profile)
    data = stream.getvalue()
    picture = load(BytesIO(data[:33] + gamma(1.0) + data[33:]))
    np.testing.assert_array_equal(picture.pixels, COLOUR)


def test_primaries_are_converted() -> None:
    """By the matrix of CSS Color 4 from linear Display P3 to linear sRGB."""
    picture = with_chunks(
        Image.fromarray(np.array([[[255, 255, 255], [128, 128, 128], [200, 100, 50]]], np.uint8)),
        chunk(b"cHRM", struct.pack(">8I", *P3)),
    )
    white, grey, brown = picture.pixels[0].tolist()
    assert white == [255, 255, 255]
    assert grey == [128, 128, 128]
    matrix = [[1.224940, -0.224940, 0], [-0.042057, 1.042057, 0], [-0.019638, -0.078636, 1.098274]]
    samples = np.array([200, 100, 50]) / 255
    light = ((samples + 0.055) / 1.055) ** 2.4
    assert np.abs(np.array(brown) - srgb_of(matrix @ light) * 255).max() <= 0.6
    assert picture.notices == ("colours converted to sRGB from primaries of its own",)


def test_another_white_becomes_white() -> None:
    d50 = (0.3457, 0.3585, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
    white = np.full((1, 1, 3), 255, np.uint8)
    np.testing.assert_array_equal(Encoding(None, d50).convert(white), white)


def test_coded_colours_win_over_all() -> None:
    by_primaries = with_chunks(
        Image.fromarray(COLOUR), chunk(b"cHRM", struct.pack(">8I", *P3))
    ).pixels
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    for extra in ((), (gamma(1.0), chunk(b"sRGB", b"\0"))):
        for options in ({}, {"icc_profile": profile}):
            picture = with_chunks(
                Image.fromarray(COLOUR), chunk(b"cICP", b"\x0c\x0d\0\1"), *extra, **options
            )
            np.testing.assert_array_equal(picture.pixels, by_primaries)
            assert picture.icc is None
            assert picture.notices == ("colours converted to sRGB from cICP 12/13",)
    plain = with_chunks(Image.fromarray(COLOUR), chunk(b"cICP", b"\1\x0d\0\1"), gamma(0.45455))
    assert plain.notices == ()
    hdr = with_chunks(Image.fromarray(COLOUR), chunk(b"cICP", b"\x09\x10\0\1"))
    np.testing.assert_array_equal(hdr.pixels, COLOUR)
    assert hdr.notices == ("colours of cICP 9/16 coded as if they were sRGB",)


@pytest.mark.parametrize("index", ["R03", "R98"])
def test_adobe_rgb_that_only_exif_states(index: str) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 65535
    exif.get_ifd(0x8769)[0xA005] = {1: index}
    flat = Image.new("RGB", (16, 16), (60, 200, 120))
    stream = BytesIO()
    flat.save(stream, "JPEG", exif=exif, quality=100, subsampling=0)
    picture = load(stream)
    if index == "R98":
        assert picture.notices == ()
        return
    assert picture.notices == ("colours converted to sRGB from Adobe RGB, which EXIF states",)
    through = ImageCms.profileToProfile(
        flat,
        ImageCms.ImageCmsProfile(BytesIO(ADOBE_RGB)),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
    )
    assert through is not None
    wanted = np.asarray(through)[0, 0].astype(int)
    assert np.abs(picture.pixels[8, 8] - wanted).max() <= 3  # JPEG's own error among it


def adobe_jpeg(order: str, icc: bytes | None = None) -> bytes:
    exif = Image.Exif()
    exif.endian = order
    exif[0x13B] = "A. Painter"
    exif.get_ifd(0x8769)[0xA001] = 65535
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    stream = BytesIO()
    flat = Image.new("RGB", (16, 16), (60, 200, 120))
    flat.save(stream, "JPEG", exif=exif, quality=100, subsampling=0, icc_profile=icc)
    return stream.getvalue()


def stated(exif: bytes | None) -> tuple[str, int, str]:
    """Interoperability, colour space and artist of a block."""
    block = Image.Exif()
    block.load(exif or b"")
    details = block.get_ifd(0x8769)
    return block.get_ifd(0xA005)[1], details[0xA001], block[0x13B]


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_says_srgb_where_pixels_have_become_srgb(order: str) -> None:
    data = adobe_jpeg(order)
    picture = load(BytesIO(data))
    assert stated(picture.exif) == ("R98", 1, "A. Painter")
    stream = BytesIO()
    save(picture, stream, "jpeg")
    again = load(BytesIO(stream.getvalue()))  # another conversion would move colours further
    assert again.notices == ()
    assert np.abs(again.pixels.astype(int) - picture.pixels).max() <= 2
    with Image.open(BytesIO(data)) as opened:
        assert stated(from_pillow(opened).exif) == ("R98", 1, "A. Painter")


def test_exif_agrees_with_the_profile() -> None:
    kept = load(BytesIO(adobe_jpeg("<", ADOBE_RGB)))
    assert kept.icc == ADOBE_RGB
    assert stated(kept.exif) == ("R03", 65535, "A. Painter")
    dropped = load(BytesIO(adobe_jpeg("<", SRGB_PROFILE)))  # pixels are sRGB, by the profile
    assert dropped.icc is None
    assert dropped.notices == ()
    assert stated(dropped.exif) == ("R98", 1, "A. Painter")


def test_exif_that_cannot_be_followed_stays() -> None:
    exif = adobe_jpeg("<")
    exif = exif[exif.index(b"II*\0") :]
    for cut in (b"", b"II*\0", exif[:60], exif[: exif.index(b"R03")], b"nothing"):
        assert exif_of_srgb(cut) == cut
    assert exif_of_srgb(None) is None


@pytest.mark.parametrize(
    "extra",
    [
        (gamma(1.0),),
        (chunk(b"cICP", b"\x0c\x0d\0\1"),),
        (gamma(0.3), chunk(b"cHRM", struct.pack(">8I", *P3))),
    ],
)
@pytest.mark.parametrize("values", [COLOUR, COLOUR[..., 0], DEEP], ids=["colour", "grey", "deep"])
def test_images_of_pillows_have_the_colours_of_their_files(
    values: NDArray[Any], extra: tuple[bytes, ...]
) -> None:
    stream = BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    data = stream.getvalue()
    data = data[:33] + b"".join(extra) + data[33:]
    wanted = load(BytesIO(data))
    with Image.open(BytesIO(data)) as opened:
        picture = from_pillow(opened)
    np.testing.assert_array_equal(picture.pixels, wanted.pixels)
    assert picture.notices[-1:] == wanted.notices[-1:] != ()
    assert "colours converted" in " ".join(picture.notices)
