"""Picture files of every kind at any size, and what they look like."""

import struct
from collections.abc import Callable
from functools import lru_cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from diveqcodec.image import Pixels
from tests.support.pngs import chunk, png
from tests.support.tiffs import page, tiff


class Sample:
    """Random samples of a size, and files made of them."""

    def __init__(self, height: int, width: int) -> None:
        random = np.random.default_rng((height, width))
        self.size = width, height
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


CMYK_PROFILE = cmyk_profile()


@lru_cache
def through_profile() -> ImageCms.ImageCmsTransform:
    source = ImageCms.ImageCmsProfile(BytesIO(CMYK_PROFILE))
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "CMYK", "RGB")


Expected = tuple[bytes, Pixels, Pixels | None]  # a file, what it shows, and its alpha
Kind = Callable[[Sample], Expected]


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


def deep_grey_with_a_key(s: Sample) -> Expected:
    values = s.deep[..., :1]
    key = int(values[0, 0, 0])
    alpha = np.where(values[..., 0] == key, 0, 255).astype(np.uint8)
    pixels = np.floor(values / 257 + 0.5).astype(np.uint8)
    return png(values, 16, chunk(b"tRNS", struct.pack(">H", key))), pixels, alpha


def ycbcr(s: Sample) -> Expected:
    """JFIF's equations: https://www.w3.org/Graphics/JPEG/jfif3.pdf."""
    image = Image.frombytes("YCbCr", s.size, s.colour.tobytes())
    y, cb, cr = (s.colour[..., i].astype(float) - (128 if i else 0) for i in range(3))
    exact = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], -1)
    pixels = np.asarray(image.convert("RGB"))
    assert np.abs(pixels - exact.clip(0, 255)).max() <= 1.01
    return s.file(image, "TIFF"), pixels, None


def lab(s: Sample) -> Expected:
    """CIE's equations for D50, and Bradford's adaptation to sRGB; colours that sRGB has."""
    values = np.array([90, 0, 0]) + s.colour // np.array([3, 12, 12])
    values[..., 1:] = (values[..., 1:] - 10) % 256  # signed bytes
    samples = values.astype(np.uint8)
    image = Image.frombytes("LAB", s.size, samples.tobytes())
    light, a, b = np.moveaxis(values, -1, 0) * [[[100 / 255]], [[1]], [[1]]]
    f = (light + 16) / 116
    steps = np.stack([f + ((a + 128) % 256 - 128) / 500, f, f - ((b + 128) % 256 - 128) / 200], -1)
    assert steps.min() > 6 / 29  # in the cubic part
    xyz = steps**3 * [0.9642, 1, 0.8249]
    to_srgb = np.array(
        [[3.1339, -1.6169, -0.4906], [-0.9788, 1.9161, 0.0335], [0.0719, -0.2290, 1.4052]]
    )
    linear = (xyz @ to_srgb.T).clip(0.0031308, 1)
    exact = 255 * (1.055 * linear ** (1 / 2.4) - 0.055)
    pixels = np.asarray(image.convert("RGB"))
    assert np.abs(pixels - exact).max() <= 3  # Pillow's tables are coarse
    return s.file(image, "TIFF"), pixels, None


def palette_with_alpha(s: Sample) -> Expected:
    image = Image.fromarray(s.grey[..., 0] >> 4).convert("P")
    colours = np.arange(16 * 3, dtype=np.uint8).reshape(16, 3) * np.uint8(5)
    image.putpalette(colours.tobytes())
    both = image.convert("PA")
    both.putalpha(Image.fromarray(s.alpha))
    data = s.file(both, "TIFF")
    with Image.open(BytesIO(data)) as written:
        assert written.mode == "PA"
    return data, colours[s.grey[..., 0] >> 4], s.alpha


def cmyk_with_a_profile(s: Sample) -> Expected:
    image = Image.fromarray(s.colour).convert("CMYK")
    data = s.file(image, "TIFF", icc_profile=CMYK_PROFILE)
    through = ImageCms.applyTransform(image, through_profile())
    assert through is not None
    return data, np.asarray(through), None


def jpeg(s: Sample) -> Expected:
    data = s.file(Image.fromarray(s.colour), "JPEG", quality=90)
    with Image.open(BytesIO(data)) as image:
        assert image.mode == "RGB"
        return data, np.asarray(image), None


def jpeg_grey(s: Sample) -> Expected:
    data = s.file(Image.fromarray(s.grey[..., 0]), "JPEG", quality=90)
    with Image.open(BytesIO(data)) as image:
        assert image.mode == "L"
        return data, np.asarray(image)[..., None], None


def jpeg_cmyk(s: Sample) -> Expected:
    """Ink by ink: what is left of white is the product of what two inks leave."""
    data = s.file(Image.fromarray(s.colour).convert("CMYK"), "JPEG", quality=90)
    with Image.open(BytesIO(data)) as image:
        assert image.mode == "CMYK"
        inks = np.asarray(image).astype(float)
    exact = (255 - inks[..., :3]) * (255 - inks[..., 3:]) / 255
    return data, np.floor(exact + 0.5).astype(np.uint8), None


def jpeg2000(s: Sample) -> Expected:
    image = Image.fromarray(np.dstack([s.colour, s.alpha]))
    return s.file(image, "JPEG2000", irreversible=False), s.colour, s.alpha


def jpeg2000_grey_alpha(s: Sample) -> Expected:
    image = Image.fromarray(np.dstack([s.grey, s.alpha]))
    assert image.mode == "LA"
    return s.file(image, "JPEG2000", irreversible=False), s.grey, s.alpha


def bmp(s: Sample) -> Expected:
    return s.file(Image.fromarray(s.colour), "BMP"), s.colour, None


def pages(s: Sample) -> Expected:
    others = [Image.fromarray(s.colour[..., ::-1].copy()), Image.fromarray(s.grey[..., 0])]
    first = Image.fromarray(s.colour)
    return s.file(first, "TIFF", save_all=True, append_images=others), s.colour, None


KINDS: list[Kind] = [
    *(grey, grey_alpha, one_bit, two_bits_with_a_key, four_bits_with_a_key, grey_with_a_key),
    *(colour, colour_alpha, colour_with_a_key, palette, palette_alpha),
    *(deep_grey, deep_grey_alpha, deep_colour, deep_colour_alpha, deep_colour_with_a_key),
    *(deep_tiff, white_is_zero, float_tiff, cmyk, gif, ppm, webp),
    *(deep_grey_with_a_key, ycbcr, lab, palette_with_alpha, cmyk_with_a_profile),
    *(jpeg, jpeg_grey, jpeg_cmyk, jpeg2000, jpeg2000_grey_alpha, bmp, pages),
]
# What takes 5 ms or, for the tables of profiles, 80 ms a picture has one size in so many.
EVERY: dict[Kind, int] = {
    jpeg2000: 5,
    jpeg2000_grey_alpha: 3,
    lab: 11,
    cmyk_with_a_profile: 29,
}
