"""Whether a picture file is all there: every cut of every format that is written."""

import struct
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diveqcodec.image import Format, Picture, save
from diveqcodec.image.frames import state_of

RNG = np.random.default_rng(11)
FORMATS: tuple[Format, ...] = ("png", "jpeg", "webp", "tiff", "ppm")


def exif_block() -> bytes:
    exif = Image.Exif()
    exif[270] = "a picture of noise, which is described at some length"
    return exif.tobytes().removeprefix(b"Exif\0\0")


def written(format: Format, channels: int = 3, exif: bytes | None = None) -> bytes:
    pixels = RNG.integers(0, 256, (19, 23, channels), dtype=np.uint8)
    stream = BytesIO()
    save(Picture(pixels, None, None, exif, None), stream, format)
    return stream.getvalue()


def state(data: bytes) -> str:
    return state_of(BytesIO(data))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("format", FORMATS)
def test_every_cut_shows_and_nothing_else_does(format: Format, channels: int) -> None:
    for exif in (None, exif_block()):
        data = written(format, channels, exif)
        assert state(data) == "whole"
        assert state(data + b"what a camera adds") == "whole"
        missed = [length for length in range(len(data)) if state(data[:length]) != "cut"]
        # the last of a TIFF is that there is no other page, which some programs leave out
        assert len(missed) <= 4 * (format == "tiff")
        assert missed == list(range(len(data) - len(missed), len(data)))


@pytest.mark.parametrize("format", FORMATS)
def test_bytes_that_never_came_show(format: Format) -> None:
    data = written(format)
    assert state(bytes(len(data))) == "cut"
    assert state(bytes((1 << 20) + 1)) == "cut"
    assert state(bytes(100) + b"a" + bytes(100)) == "else"


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("TIFF", {}),  # strips without compression
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "jpeg"}),
        ("TIFF", {"big_tiff": True}),
        ("JPEG", {"progressive": True}),
        ("PNG", {"bits": 8}),
        ("WEBP", {"lossless": False, "exif": exif_block()}),
    ],
)
def test_pictures_of_other_programs(format: str, options: dict[str, Any]) -> None:
    stream = BytesIO()
    noise = RNG.integers(0, 256, (600, 40, 3), dtype=np.uint8)  # several strips
    Image.fromarray(noise).save(stream, format, **options)
    data = stream.getvalue()
    assert state(data) == "whole"
    for length in (len(data) - 1, len(data) - 100, len(data) // 2, 200, 9, 4):
        assert state(data[:length]) == "cut", length


def test_the_end_of_a_preview_is_not_that_of_the_picture() -> None:
    preview, picture = written("jpeg"), written("jpeg")
    segment = b"\xff\xe1" + struct.pack(">H", 2 + len(preview)) + preview
    data = picture[:2] + segment + picture[2:]
    assert state(data) == "whole"
    assert state(data[:-2]) == "cut"
    assert state(data[: 4 + len(preview) + 10]) == "cut"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "cut"),
        (b"P", "cut"),
        (b"P6\n", "cut"),
        (b"P6\n# by hand\n1 1\n255\nabc", "whole"),  # in doubt
        (b"P2\n1 1\n255\n7", "whole"),
        (b"P5 2 1 65535\nabc", "cut"),
        (b"P5 2 1 65535\nabcd", "whole"),
        (b"RIFF\x04\0\0\0WAVE", "else"),
        (b"\x89PNG but not really", "else"),
        (b"Dear diary", "else"),
        (b"II*\0\x08\0\0\0\0\0\0\0\0\0\0\0", "whole"),  # no directory at all: in doubt
    ],
)
def test_odd_beginnings(data: bytes, expected: str) -> None:
    assert state(data) == expected
