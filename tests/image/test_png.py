"""Large PNG files: what Pillow reads of them, the same bytes for any number of threads."""

import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diveqcodec.errors import ImageError
from diveqcodec.image import Picture, load, png, save
from tests.support.places import ROOT

RNG = np.random.default_rng(5)


def smooth(height: int, width: int, channels: int) -> png.Pixels:
    """Something that no one filter is best for."""
    rows, columns = np.mgrid[:height, :width]
    waves = 90 * np.sin(rows / 5) * np.cos(columns / 7) + 0.1 * rows * columns % 70
    planes = [waves + 128, columns * 3.0, (rows + columns) % 256, waves + 30 * (rows % 7)]
    pixels = np.stack(planes[:channels], axis=2) + RNG.normal(0, 2, (height, width, channels))
    pixels[height // 3 : height // 2] = 7
    return (pixels % 256).astype(np.uint8)


def written(pixels: png.Pixels, alpha: png.Pixels | None = None, workers: int = 1) -> bytes:
    stream = BytesIO()
    png.write(stream, pixels, alpha, {}, workers)
    return stream.getvalue()


@pytest.fixture
def small_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png, "BAND", 300)


@pytest.mark.usefixtures("small_bands")
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("has_alpha", [False, True])
def test_pillow_reads_what_was_written(channels: int, has_alpha: bool) -> None:
    for size in ((1, 1), (1, 2), (2, 1), (1, 299), (97, 1), (64, 48), (31, 67), (5, 400)):
        pixels = smooth(*size, channels)
        alpha = smooth(*size, 1)[..., 0] if has_alpha else None
        data = written(pixels, alpha)
        for workers in (2, 7):
            assert written(pixels, alpha, workers) == data
        with Image.open(BytesIO(data)) as image:
            image.verify()  # checksums of chunks
        with Image.open(BytesIO(data)) as image:
            found = np.asarray(image).reshape(*size, -1)
        np.testing.assert_array_equal(found[..., :channels], pixels)
        if alpha is not None:
            np.testing.assert_array_equal(found[..., channels], alpha)


@pytest.mark.usefixtures("small_bands")
def test_the_stream_is_one_of_zlibs_and_every_filter_comes_up() -> None:
    pixels = smooth(80, 50, 3)
    pixels[10:14] = RNG.integers(-2, 3, (4, 50, 3)).astype(np.uint8)  # best as they are
    for row in range(20, 30):  # and these by the average of two neighbours
        for column in range(1, 50):
            pair = pixels[row, column - 1].astype(int) + pixels[row - 1, column]
            pixels[row, column] = pair // 2 + RNG.integers(-9, 10, 3) & 255
    data = written(pixels)
    parts = [body for kind, body in png._chunks(data) if kind == b"IDAT"]
    assert len(parts) == 40
    inflater = zlib.decompressobj()
    rows = inflater.decompress(b"".join(parts))  # with its checksum
    assert inflater.eof
    assert len(rows) == 80 * 151
    assert set(rows[::151]) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("row", "number"),
    [
        ([9, 1, 9, 1, 9, 1], 0),
        ([40, 41, 42, 43, 44, 45], 1),
        ([100, 7, 220, 16, 90, 201], 2),
    ],
)
def test_the_filter_with_the_least_sum_is_taken(row: list[int], number: int) -> None:
    above = [100, 7, 220, 16, 90, 200]
    pixels = np.array([above, row], np.uint8)[..., None]
    filtered = png._Rows(pixels, None).filtered(0)
    assert filtered[1, 0] == number


@pytest.mark.parametrize("channels", [1, 3])
def test_metadata_are_those_of_small_files(
    channels: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[270] = "a description"
    exif[282] = exif[283] = 300.0
    exif[296] = 2
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
    profile = None
    if channels == 3:
        from PIL import ImageCms

        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
        profile = profile[:16] + b"RGB " + profile[20:]
    picture = Picture(smooth(40, 30, channels), None, profile, block, xmp)
    notices = save(picture, tmp_path / "small.png", "png")
    monkeypatch.setattr(png, "BAND", 300)
    assert save(picture, tmp_path / "large.png", "png", workers=2) == notices
    small, large = load(tmp_path / "small.png"), load(tmp_path / "large.png")
    np.testing.assert_array_equal(small.pixels, large.pixels)
    for name in ("icc", "exif", "xmp", "notices"):
        assert getattr(small, name) == getattr(large, name)
    assert large.exif is not None
    assert large.xmp == xmp
    chunks = [
        [(kind, body) for kind, body in png._chunks(path.read_bytes()) if kind != b"IDAT"]
        for path in (tmp_path / "small.png", tmp_path / "large.png")
    ]
    assert chunks[0] == chunks[1]


def test_files_are_no_larger_than_pillows(tmp_path: Path) -> None:
    for name in ("cat", "drawing"):
        picture = load(ROOT / "sample_images" / f"{name}.png")
        pixels = np.tile(picture.pixels, (4, 4, 1))
        assert png.is_large(pixels)
        save(Picture(pixels), tmp_path / "ours.png", "png", workers=2)
        Image.fromarray(pixels.squeeze()).save(tmp_path / "pillows.png")
        ours, pillows = ((tmp_path / f"{who}.png").stat().st_size for who in ("ours", "pillows"))
        assert ours <= 1.02 * pillows


def test_what_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = Picture(smooth(600, 700, 3))
    with pytest.raises(ImageError, match="cannot be written as png"):
        save(picture, tmp_path / "none" / "a.png", "png")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(png, "_put", full)
    with pytest.raises(ImageError, match="No space left on device"):
        save(picture, tmp_path / "a.png", "png", workers=2)
    assert not list(tmp_path.iterdir())
    (tmp_path / "link.png").symlink_to("a.png")
    with pytest.raises(ImageError, match="No space left on device"):
        save(picture, tmp_path / "link.png", "png", workers=2)
    assert [path.is_symlink() for path in tmp_path.iterdir()] == [True]  # and nothing behind it
