"""Colour profile, EXIF and XMP: kept, turned upright, or left out with a word."""

import struct
from io import BytesIO

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from diveqcodec.image import Picture, load, metadata, save
from tests.support.pictures import COLOUR, GREY, reload
from tests.support.profiles import ADOBE_RGB, DARK_GREY, SRGB

LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" a="b"/>'
    b"<tiff:Orientation>6</tiff:Orientation></x:xmpmeta>"
)


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
        (COLOUR, b"junk", None, ("unreadable ICC profile left out",)),
        (GREY, b"no profile at all, but long", None, ("unreadable ICC profile left out",)),
    ],
)
def test_icc_profiles(pixels, icc, kept, notices):
    picture = Image.fromarray(pixels.squeeze())
    loaded = reload(picture, "JPEG" if icc == DARK_GREY else "PNG", icc_profile=icc)
    assert loaded.icc == kept
    assert loaded.notices == notices


@pytest.mark.parametrize("icc", [LAB, ADOBE_RGB])
def test_pixels_of_lab_become_srgb_and_lose_their_profile(icc):
    original = Image.fromarray(COLOUR).convert("LAB")
    loaded = reload(original, "TIFF", icc_profile=icc)
    assert loaded.icc is None
    assert loaded.notices == ()
    np.testing.assert_array_equal(loaded.pixels, np.asarray(original.convert("RGB")))
