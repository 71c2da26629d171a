"""Pictures: every mode looks the same, metadata survive, nothing but ImageError escapes."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, JpegImagePlugin, PngImagePlugin

from diveqcodec.container import bitstream
from diveqcodec.errors import ImageError
from diveqcodec.image import Picture, flatten, kinds, load, metadata, save
from diveqcodec.image.pixels import samples_of, to_pixels

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, size=(13, 17, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, size=(13, 17, 1), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, size=(13, 17), dtype=np.uint8)
ALPHA[0, :5] = 0  # hidden colours are to be kept too
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" a="b"/>'
    b"<tiff:Orientation>6</tiff:Orientation></x:xmpmeta>"
)


def file_of(picture, format="PNG", **options):
    stream = BytesIO()
    picture.save(stream, format, **options)
    stream.seek(0)
    return stream


def reload(picture, format="PNG", **options):
    return load(file_of(picture, format, **options))


def pixels_of(opened, notices=None):
    """Pixels and alpha of an image in memory, of a mode that only some plugin makes."""
    samples = samples_of(opened)
    return to_pixels(opened, samples, None, "x", [] if notices is None else notices)


def icc_profile(gamma, primaries, space=b"RGB "):
    """A minimal ICC v2 profile: primaries as rows of XYZ, one gamma for all."""

    def xyz(values):
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags = {b"wtpt": xyz((0.9642, 1.0, 0.8249))}
    if space == b"RGB ":
        for letter, row in zip((b"r", b"g", b"b"), primaries, strict=True):
            tags[letter + b"XYZ"] = xyz(row)
            tags[letter + b"TRC"] = curve
    else:
        tags[b"kTRC"] = curve
    table, body, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    size = offset + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"", 0x02100000, b"mntr", space, b"XYZ ")
    head = head.ljust(36, b"\0") + b"acsp"
    head = head.ljust(68, b"\0") + struct.pack(">3I", 0xF6D6, 0x10000, 0xD32D)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


ADOBE_RGB = icc_profile(
    2.2, [(0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)]
)
DARK_GREY = icc_profile(1.0, (), b"GRAY")
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def test_the_magic_is_that_of_the_container():
    assert kinds._DVQ == bitstream.MAGIC


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


# --- modes ---


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


def test_first_frame_with_a_notice():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    loaded = reload(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert loaded.pixels[0, 0].tolist() == [255, 0, 0]
    assert loaded.notices == ("the first of 3 frames coded",)


# --- metadata ---


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_orientation_is_applied_and_not_stored(format, orientation):
    upright = np.zeros((8, 16, 3), dtype=np.uint8)
    upright[:4, :8] = (200, 40, 40)
    undone_by = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(orientation)
    stored = Image.fromarray(upright)
    stored = stored if undone_by is None else stored.transpose(undone_by)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Artist] = "A. Painter"
    exact = {"quality": 95, "subsampling": 0} if format == "JPEG" else {"lossless": True}
    loaded = reload(stored, format, exif=exif, **exact)
    assert loaded.pixels.shape == upright.shape
    assert np.abs(loaded.pixels.astype(int) - upright).max() < 30
    kept = Image.Exif()
    kept.load(loaded.exif or b"")
    assert dict(kept) == {ExifTags.Base.Artist: "A. Painter"}


@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_is_cut_out_in_place(order):
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entry = [struct.pack(order + "HHII", tag, 4, 1, tag) for tag in (0x10F, 0x112, 0x131)]
    block = mark + struct.pack(order + "IH", 8, 3) + b"".join(entry)
    block += struct.pack(order + "I", 50) + b"the thumbnail"
    cut = mark + struct.pack(order + "IH", 8, 2) + entry[0] + entry[2]
    cut += struct.pack(order + "I", 50) + bytes(12) + b"the thumbnail"
    assert metadata._without_orientation(block) == cut
    only = mark + struct.pack(order + "IH", 8, 1) + entry[1] + bytes(4)
    assert metadata._without_orientation(only) is None


def test_unreadable_exif_is_left_out():
    loaded = reload(Image.fromarray(COLOUR), exif=b"Exif\0\0no such thing")
    assert loaded.exif is None
    assert loaded.notices == ("unreadable EXIF data left out",)
    np.testing.assert_array_equal(loaded.pixels, COLOUR)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_exif_that_is_cut_short_still_turns_the_picture():
    block = b"Exif\0\0II*\0" + struct.pack("<IHHHII", 8, 1, 0x112, 3, 1, 6)  # no next directory
    loaded = reload(Image.fromarray(COLOUR), exif=block)
    assert loaded.exif is None
    assert loaded.notices == ("unreadable EXIF data left out",)
    np.testing.assert_array_equal(loaded.pixels, np.rot90(COLOUR, -1))


@pytest.mark.parametrize("xmp", [None, b"<x/>"])
@pytest.mark.parametrize("block", [b"junk", b"MM\0*\0\0"])
def test_tiff_leaves_out_exif_that_it_cannot_hold(block, xmp):
    stream = BytesIO()
    notices = save(Picture(COLOUR, None, None, block, xmp), stream, "tiff")
    assert notices == ("tiff cannot hold the EXIF data",)
    loaded = load(stream)
    assert (loaded.exif, loaded.xmp) == (None, xmp)
    np.testing.assert_array_equal(loaded.pixels, COLOUR)


@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "tiff"])
@pytest.mark.parametrize("with_exif", [True, False])
def test_metadata_survive(format, with_exif):
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "A. Painter"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ISOSpeedRatings] = 400
    block = exif.tobytes().removeprefix(b"Exif\0\0") if with_exif else None
    stream = BytesIO()
    xmp = metadata.XMP_ORIENTATION.sub(b"", XMP)
    assert save(Picture(COLOUR, None, ADOBE_RGB, block, xmp), stream, format) == ()
    loaded = load(stream)
    assert loaded.icc == ADOBE_RGB
    assert loaded.xmp == xmp
    if not with_exif:
        assert loaded.exif is None
        return
    kept = Image.Exif()
    kept.load(loaded.exif or b"")
    assert kept[ExifTags.Base.Artist] == "A. Painter"
    assert kept.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ISOSpeedRatings] == 400


def test_what_a_format_cannot_hold_is_noticed():
    picture = Picture(COLOUR, None, ADOBE_RGB, b"II*\0" + bytes(65536), b"x" * 65536)
    everything = [
        f"ppm cannot hold the {what}" for what in ("ICC profile", "EXIF data", "XMP data")
    ]
    assert save(picture, BytesIO(), "ppm") == tuple(everything)
    assert save(picture, BytesIO(), "jpeg") == tuple(
        line.replace("ppm", "jpeg") for line in everything[1:]
    )
    grey = Picture(GREY, None, DARK_GREY)
    assert save(grey, BytesIO(), "webp") == ("webp cannot hold the ICC profile",)
    assert save(grey, BytesIO(), "png") == ()


def test_xmp_loses_its_orientation():
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", XMP.decode())
    loaded = reload(Image.fromarray(COLOUR), pnginfo=info)
    assert loaded.pixels.shape == (17, 13, 3)  # orientation 6, in XMP alone
    assert loaded.xmp == (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description a="b"/></x:xmpmeta>'
    )


@pytest.mark.parametrize(
    ("pixels", "icc", "kept", "notices"),
    [
        (COLOUR, SRGB, None, ()),
        (COLOUR, ADOBE_RGB, ADOBE_RGB, ()),
        (GREY, DARK_GREY, DARK_GREY, ()),
        (GREY, SRGB, None, ()),
        (GREY, ADOBE_RGB, None, ("ICC profile of another colour space left out",)),
        (COLOUR, DARK_GREY, None, ("ICC profile of another colour space left out",)),
        (COLOUR, SRGB[:40], None, ("unreadable ICC profile left out",)),
    ],
)
def test_icc_profiles(pixels, icc, kept, notices):
    picture = Image.fromarray(pixels.squeeze())
    loaded = reload(picture, "JPEG" if icc == DARK_GREY else "PNG", icc_profile=icc)
    assert loaded.icc == kept
    assert loaded.notices == notices


def test_cmyk_goes_through_its_profile(monkeypatch):
    cmyk = Image.new("CMYK", (3, 2), (255, 0, 0, 0))
    unreadable = reload(cmyk, "TIFF", icc_profile=b"no profile")
    assert unreadable.icc is None
    assert unreadable.notices == ("CMYK converted without its unreadable ICC profile",)
    assert unreadable.pixels[0, 0].tolist() == [0, 255, 255]
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


# --- background ---


def test_flatten_by_hand():
    pixels = np.array([[[200, 100, 0], [200, 100, 0], [200, 100, 0]]], dtype=np.uint8)
    alpha = np.array([[0, 128, 255]], dtype=np.uint8)
    flat = flatten(Picture(pixels, alpha, icc=b"icc"), (255, 0, 50))
    # 200 * 128 / 255 + 255 * 127 / 255 = 227.4; 100 * 128 / 255 = 50.2; 50 * 127 / 255 = 24.9
    assert flat.pixels.tolist() == [[[255, 0, 50], [227, 50, 25], [200, 100, 0]]]
    assert flat.alpha is None
    assert flat.icc == b"icc"


def test_flatten_grey_stays_grey_on_grey():
    grey = Picture(np.full((1, 1, 1), 255, dtype=np.uint8), np.zeros((1, 1), dtype=np.uint8))
    assert flatten(grey, (7, 7, 7)).pixels.tolist() == [[[7]]]
    assert flatten(grey, (7, 8, 9)).pixels.tolist() == [[[7, 8, 9]]]
    opaque = Picture(GREY)
    assert flatten(opaque, (7, 8, 9)) is opaque


# --- what goes wrong ---


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
