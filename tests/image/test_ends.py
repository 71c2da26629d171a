"""Files that are cut off behind a whole picture: it is read, with a notice; `strict` refuses."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diveqcodec.errors import ImageError
from diveqcodec.image import load
from diveqcodec.image.ends import CUT

RNG = np.random.default_rng(3)
SIZE = (23, 31)
ANIMATED: dict[str, dict[str, Any]] = {
    "PNG": {"save_all": True},
    "GIF": {"save_all": True},
    "WEBP": {"save_all": True, "lossless": True},
    "MPO": {"save_all": True},
}


def noise() -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8))


def animation(format: str, frames: int = 4) -> bytes:
    stream = BytesIO()
    rest = [noise() for _ in range(frames - 1)]
    noise().save(stream, format, append_images=rest, **ANIMATED[format])
    return stream.getvalue()


def still(format: str, **options: Any) -> bytes:
    stream = BytesIO()
    noise().save(stream, format, **options)
    return stream.getvalue()


@pytest.mark.parametrize("format", list(ANIMATED))
@pytest.mark.parametrize("left", [0.95, 0.75, 0.5])
def test_an_animation_cut_in_a_later_frame(format: str, left: float) -> None:
    data = animation(format)
    whole = load(BytesIO(data), strict=True)
    assert whole.notices == ("the first of 4 frames coded",)
    cut = data[: round(len(data) * left)]
    picture = load(BytesIO(cut))
    np.testing.assert_array_equal(picture.pixels, whole.pixels)
    assert any(notice.startswith("damaged: ") for notice in picture.notices)
    with pytest.raises(ImageError, match=r"damaged: |cannot be decoded"):
        load(BytesIO(cut), strict=True)


@pytest.mark.parametrize("format", list(ANIMATED))
def test_an_animation_cut_in_its_first_frame_is_refused(format: str) -> None:
    data = animation(format)
    with pytest.raises(ImageError):
        load(BytesIO(data[: len(data) // 8]))


@pytest.mark.parametrize(("format", "ends"), [("PNG", range(1, 13)), ("GIF", [1])])
def test_a_still_without_its_end(format: str, ends: range) -> None:
    data = still(format)
    whole = load(BytesIO(data), strict=True)
    assert whole.notices == ()
    for end in ends:
        picture = load(BytesIO(data[:-end]))
        assert picture.notices == (CUT,)
        np.testing.assert_array_equal(picture.pixels, whole.pixels)
        with pytest.raises(ImageError, match="cut off after the picture"):
            load(BytesIO(data[:-end]), strict=True)


@pytest.mark.parametrize("options", [{"lossless": True}, {}])
def test_a_webp_cut_in_the_metadata_behind_the_picture(options: dict[str, Any]) -> None:
    data = still("WEBP", xmp=b"<x:xmpmeta/>" * 9, **options)
    whole = load(BytesIO(data), strict=True)
    assert whole.xmp is not None
    picture = load(BytesIO(data[:-20]))
    assert picture.notices == (CUT,)
    assert picture.xmp is None
    np.testing.assert_array_equal(picture.pixels, whole.pixels)
    for end in (200, len(data) - 40):
        with pytest.raises(ImageError, match="cannot be decoded"):
            load(BytesIO(data[:-end]))


@pytest.mark.parametrize("format", ["PNG", "GIF", "JPEG", "WEBP"])
def test_what_follows_the_end_is_no_damage(format: str) -> None:
    data = still(format)
    assert load(BytesIO(data + b"\0 junk" * 50), strict=True).notices == ()


def test_a_gif_with_tables_comments_and_transparency_is_whole() -> None:
    frames = [noise().quantize(9), noise().quantize(200)]
    stream = BytesIO()
    frames[0].save(
        stream, "GIF", save_all=True, append_images=frames[1:], comment=b"c" * 700, loop=3
    )
    data = stream.getvalue()
    assert CUT not in load(BytesIO(data), strict=True).notices
    assert CUT in load(BytesIO(data[:-1])).notices
