"""What is damaged where it does not matter is read; where it does, it is refused."""

import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageFilter, PngImagePlugin

from diveqcodec.errors import ImageError
from diveqcodec.image import files, load, mend, metadata
from tests.support.pngs import chunk
from tests.support.profiles import ADOBE_RGB

RNG = np.random.default_rng(0)
NOISE = Image.fromarray(RNG.integers(0, 256, (61, 83, 3), dtype=np.uint8))
SOFT = NOISE.filter(ImageFilter.GaussianBlur(3))  # whose last blocks take few bits
NO_END = "damaged: the JPEG end marker is missing"


def file_of(image: Image.Image, format: str, **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


@pytest.mark.parametrize("image", [NOISE, SOFT, NOISE.convert("L"), SOFT.convert("CMYK")])
@pytest.mark.parametrize("is_progressive", [False, True])
@pytest.mark.parametrize("cut", [1, 2])
def test_a_jpeg_without_its_end_marker(image: Image.Image, is_progressive: bool, cut: int) -> None:
    data = file_of(image, "JPEG", progressive=is_progressive)
    picture = load(BytesIO(data[:-cut]))
    np.testing.assert_array_equal(picture.pixels, load(BytesIO(data)).pixels)
    assert picture.notices == (NO_END,)
    with pytest.raises(ImageError, match="truncated"):
        load(BytesIO(data[:-cut]), strict=True)


@pytest.mark.parametrize("image", [NOISE, SOFT, SOFT.convert("L")])
@pytest.mark.parametrize("is_progressive", [False, True])
def test_a_jpeg_that_lacks_more_is_refused(image: Image.Image, is_progressive: bool) -> None:
    data = file_of(image, "JPEG", progressive=is_progressive)
    whole = load(BytesIO(data)).pixels
    for cut in [*range(3, 20), len(data) // 2, len(data) - 100]:
        try:
            picture = load(BytesIO(data[:-cut]))
        except ImageError:
            continue
        np.testing.assert_array_equal(picture.pixels, whole)  # only padding was cut off
        assert cut <= 4


def test_a_jpeg_cut_between_scans_is_refused() -> None:
    data = file_of(SOFT, "JPEG", progressive=True)
    scans = [i for i in range(len(data) - 1) if data[i : i + 2] == b"\xff\xda"]
    assert len(scans) > 5
    for scan in scans[1:]:
        end = data.rfind(b"\xff\xc4", scans[0], scan) if data[:scan].rfind(b"\xff\xc4") else scan
        for cut in (scan, end):
            with pytest.raises(ImageError):
                load(BytesIO(data[:cut]))


def test_large_metadata_of_png_are_read() -> None:
    profile = ADOBE_RGB + bytes(1_200_000)
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", "<x>" + "y" * 1_500_000 + "</x>", zip=True)
    info.add_text("Comment", "z" * 1_100_000, zip=True)
    picture = load(BytesIO(file_of(NOISE, "PNG", pnginfo=info, icc_profile=profile)))
    np.testing.assert_array_equal(picture.pixels, np.asarray(NOISE))
    assert picture.icc == profile
    assert picture.xmp is not None
    assert len(picture.xmp) == 1_500_007
    assert picture.notices == ()
    assert PngImagePlugin.MAX_TEXT_CHUNK == 1 << 20  # as it was


def test_metadata_over_the_limit_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (files, mend, metadata):
        monkeypatch.setattr(module, "MAX_METADATA", 1 << 20)
    plain = file_of(NOISE, "PNG")
    bomb = zlib.compress(bytes((1 << 20) + 1), 1)
    for kind, name, body in (
        (b"iCCP", "ICC profile", b"p\0\0" + bomb),
        (b"iTXt", "XMP data", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb),
        (b"zTXt", "texts", b"Comment\0\0" + bomb),
    ):
        picture = load(BytesIO(plain[:33] + chunk(kind, body) + plain[33:]), strict=True)
        np.testing.assert_array_equal(picture.pixels, np.asarray(NOISE))
        assert picture.notices == (f"{name} left out: over 1 MiB",)
    tiff = file_of(NOISE, "TIFF", icc_profile=ADOBE_RGB + bytes(1 << 20))
    assert load(BytesIO(tiff)).notices == ("ICC profile left out: over 1 MiB",)


def test_a_damaged_later_frame_is_a_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import GifImagePlugin

    frames = [NOISE.convert("P"), SOFT.convert("P")]
    data = file_of(frames[0], "GIF", save_all=True, append_images=frames[1:])

    def broken(self: object) -> int:
        raise ValueError("of the second frame")

    monkeypatch.setattr(GifImagePlugin.GifImageFile, "n_frames", property(broken))
    picture = load(BytesIO(data))
    assert picture.pixels.shape == (61, 83, 3)
    assert picture.notices == ("damaged: a frame after the first cannot be read",)
    with pytest.raises(ImageError, match="x: damaged: of the second frame"):
        load(BytesIO(data), name="x", strict=True)
