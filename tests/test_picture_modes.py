"""Every kind of picture at every small size: loaded as it looks, coded, and back in its kind."""

import struct
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from diveqcodec.codec import Codec
from diveqcodec.container import bitstream
from diveqcodec.image import Format, Picture, Pixels, flatten, load, save
from diveqcodec.image.pixels import coded_bits
from tests.support.pngs import chunk, png
from tests.support.profiles import ADOBE_RGB, DARK_GREY
from tests.support.tiffs import page, tiff

RNG = np.random.default_rng(11)
DIAGONAL = [(side, side) for side in range(1, 68)]
ODD = [(2 * a + 1, 2 * b + 1) for a, b in RNG.integers(0, 50, (200, 2)).tolist()]


class Sample:
    """Random samples of a size, and files made of them."""

    def __init__(self, height: int, width: int) -> None:
        random = np.random.default_rng((height, width))
        self.colour: Pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        self.grey: Pixels = self.colour[..., :1]
        self.deep: NDArray[np.uint16] = random.integers(
            0, 1 << 16, (height, width, 4), dtype=np.uint16
        )
        self.alpha: Pixels = random.integers(0, 255, (height, width), dtype=np.uint8)

    def file(self, image: Image.Image, format: str = "PNG", **options: object) -> bytes:
        stream = BytesIO()
        image.save(stream, format, **options)
        return stream.getvalue()


Expected = tuple[bytes, Pixels, Pixels | None]


def grey(s: Sample) -> Expected:
    return s.file(Image.fromarray(s.grey[..., 0])), s.grey, None


def grey_alpha(s: Sample) -> Expected:
    return png(np.dstack([s.grey, s.alpha]), 8), s.grey, s.alpha


def one_bit(s: Sample) -> Expected:
    bits: Pixels = s.grey // np.uint8(128)
    return png(bits, 1), bits * np.uint8(255), None


def two_bits_with_a_key(s: Sample) -> Expected:
    values: Pixels = s.grey // np.uint8(64)
    alpha = np.where(values[..., 0] == 2, 0, 255).astype(np.uint8)
    data = png(values, 2, chunk(b"tRNS", struct.pack(">H", 2)))
    return data, values * np.uint8(85), alpha


def four_bits_with_a_key(s: Sample) -> Expected:
    values: Pixels = s.grey // np.uint8(16)
    alpha = np.where(values[..., 0] == 9, 0, 255).astype(np.uint8)
    data = png(values, 4, chunk(b"tRNS", struct.pack(">H", 9)))
    return data, values * np.uint8(17), alpha


def grey_with_a_key(s: Sample) -> Expected:
    key = int(s.grey[0, 0, 0])
    alpha = np.where(s.grey[..., 0] == key, 0, 255).astype(np.uint8)
    return png(s.grey, 8, chunk(b"tRNS", struct.pack(">H", key))), s.grey, alpha


def colour(s: Sample) -> Expected:
    return s.file(Image.fromarray(s.colour)), s.colour, None


def colour_alpha(s: Sample) -> Expected:
    return png(np.dstack([s.colour, s.alpha]), 8), s.colour, s.alpha


def colour_with_a_key(s: Sample) -> Expected:
    key = s.colour[-1, -1]
    alpha = np.where((s.colour == key).all(axis=2), 0, 255).astype(np.uint8)
    return png(s.colour, 8, chunk(b"tRNS", struct.pack(">3H", *key.tolist()))), s.colour, alpha


def palette(s: Sample) -> Expected:
    image = Image.fromarray(s.grey[..., 0] >> 4).convert("P")
    colours = np.arange(16 * 3, dtype=np.uint8).reshape(16, 3) * np.uint8(5)
    image.putpalette(colours.tobytes())
    return s.file(image), colours[s.grey[..., 0] >> 4], None


def palette_alpha(s: Sample) -> Expected:
    image = Image.fromarray(s.grey[..., 0] >> 4).convert("P")
    colours = np.arange(16 * 3, dtype=np.uint8).reshape(16, 3) * np.uint8(5)
    image.putpalette(colours.tobytes())
    opacity = np.arange(16, dtype=np.uint8) * np.uint8(15)
    data = s.file(image, transparency=opacity.tobytes())
    return data, colours[s.grey[..., 0] >> 4], opacity[s.grey[..., 0] >> 4]


def deep_grey(s: Sample) -> Expected:
    values = s.deep[..., :1]
    return png(values, 16), np.floor(values / 257 + 0.5).astype(np.uint8), None


def deep_grey_alpha(s: Sample) -> Expected:
    planes = (s.deep[..., :2] >> 8).astype(np.uint8)
    return png(s.deep[..., :2], 16), planes[..., :1], planes[..., 1]


def deep_colour(s: Sample) -> Expected:
    return png(s.deep[..., :3], 16), (s.deep[..., :3] >> 8).astype(np.uint8), None


def deep_colour_alpha(s: Sample) -> Expected:
    planes = (s.deep >> 8).astype(np.uint8)
    return png(s.deep, 16), planes[..., :3], planes[..., 3]


def deep_colour_with_a_key(s: Sample) -> Expected:
    values = s.deep[..., :3]
    key = values[0, 0]
    pixels = (values >> 8).astype(np.uint8)
    alpha = np.where((pixels == key >> 8).all(axis=2), 0, 255).astype(np.uint8)
    return png(values, 16, chunk(b"tRNS", struct.pack(">3H", *key.tolist()))), pixels, alpha


def deep_tiff(s: Sample) -> Expected:
    values = s.deep[..., :3]
    return tiff([page(values, 2)]), (values >> 8).astype(np.uint8), None


def white_is_zero(s: Sample) -> Expected:
    values = s.deep[..., 0]
    return (
        tiff([page(values, 0)]),
        255 - np.ceil(values / 257 - 0.5).astype(np.uint8)[..., None],
        None,
    )


def float_tiff(s: Sample) -> Expected:
    return tiff([page(s.grey[..., 0].astype(np.float32) / 255)]), s.grey, None


def cmyk(s: Sample) -> Expected:
    image = Image.fromarray(s.colour).convert("CMYK")
    return s.file(image, "TIFF"), np.asarray(image.convert("RGB")), None


def gif(s: Sample) -> Expected:
    data, pixels, _ = palette(s)
    return s.file(Image.open(BytesIO(data)), "GIF"), pixels, None


def ppm(s: Sample) -> Expected:
    return s.file(Image.fromarray(s.colour), "PPM"), s.colour, None


def webp(s: Sample) -> Expected:
    image = Image.fromarray(np.dstack([s.colour, s.alpha]))
    return s.file(image, "WEBP", lossless=True, exact=True), s.colour, s.alpha


KINDS: list[Callable[[Sample], Expected]] = [
    *(grey, grey_alpha, one_bit, two_bits_with_a_key, four_bits_with_a_key, grey_with_a_key),
    *(colour, colour_alpha, colour_with_a_key, palette, palette_alpha),
    *(deep_grey, deep_grey_alpha, deep_colour, deep_colour_alpha, deep_colour_with_a_key),
    *(deep_tiff, white_is_zero, float_tiff, cmyk, gif, ppm, webp),
]
EIGHT_BITS = "input coded as 8-bit"


def is_opaque(alpha: Pixels | None) -> bool:
    return alpha is None or int(alpha.min()) == 255


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_and_size_looks_the_same(kind: Callable[[Sample], Expected]) -> None:
    for size in DIAGONAL + ODD:
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


def cmyk_profile() -> bytes:
    """A small CMYK profile: a look-up table with two points an axis, through Lab.

    Its cyan is far from what Pillow makes of cyan without a profile.
    """
    grid = b""
    for c, m, y, k in np.ndindex(2, 2, 2, 2):
        light = 255 * (1 - k) * (3 - c - m - y) // 3
        grid += bytes([light, 128 + 60 * (m - c) * (1 - k), 128 + 60 * (y - c) * (1 - k)])
    ramp = bytes(range(256))
    unit = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + unit + ramp * 4 + grid + ramp * 3
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    tags = {b"wtpt": white, b"A2B0": table}
    entries, body, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        entries += name + struct.pack(">II", offset + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(
        ">I4sI4s4s4s", offset + len(body), b"", 0x02100000, b"prtr", b"CMYK", b"Lab "
    )
    head = head.ljust(36, b"\0") + b"acsp"
    head = head.ljust(68, b"\0") + struct.pack(">3I", 0xF6D6, 0x10000, 0xD32D)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + entries + body


def test_cmyk_goes_through_its_own_profile() -> None:
    profile = cmyk_profile()
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
        (b"\xff\x4f\xff\x51" + bytes(36) + b"\0\3" + bytes([11]), 12),
        (b"\xff\x4f\xff\x51" + bytes(36) + b"\0\3" + bytes([7]), 8),
        (b"....av1C\x81\x04\x0c\0", 8),
        (b"....av1C\x81\x04\x4c\0", 10),
        (b"....av1C\x81\x44\x6c\0", 12),
        (b"\xff\x4f\xff\x51", 8),
        (b"", 8),
    ],
)
def test_bits_of_jpeg2000_and_avif(head: bytes, bits: int) -> None:
    assert coded_bits(head) == bits
