"""Files without networks: every mode and size comes back bit by bit; crops, damage, no torch."""

import subprocess
import sys

import numpy as np
import pytest

from diveqcodec.container import bitstream, pixelfile
from diveqcodec.errors import ConfigError, DamagedError
from diveqcodec.image import Picture
from tests.support.tiles import cut_into
from tests.support.tiny import drawn, few_values


def same(one, other) -> bool:
    return one is other is None or np.array_equal(one, other)


def exact(picture: Picture, effort: int = 1) -> bytes:
    return pixelfile.compress(picture, effort)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 64 pixels and more, so that a small picture has many."""
    cut_into(monkeypatch, 64)


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (5, 1), (17, 16), (61, 67)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("transparent", [False, True])
def test_every_mode_comes_back_exactly(size, channels: int, transparent: bool) -> None:
    pixels = drawn(size[0], size[1], 4)[..., :channels].copy()
    alpha = np.add.outer(np.arange(size[0]), np.arange(size[1])).astype(np.uint8)
    picture = Picture(pixels, alpha if transparent else None, b"icc", b"exif", b"xmp")
    data = exact(picture)
    restored = pixelfile.decompress(data)
    assert same(restored.pixels, pixels)
    assert same(restored.alpha, picture.alpha)
    assert (restored.icc, restored.exif, restored.xmp) == (b"icc", b"exif", b"xmp")
    header = bitstream.read_header(data)
    assert header.model_id == bitstream.NO_MODEL
    assert (header.is_grey, header.has_alpha) == (channels == 1, transparent)


@pytest.mark.usefixtures("small_tiles")
def test_many_tiles_and_crops() -> None:
    pixels = few_values(drawn(190, 1100, seed=5))
    alpha = (np.add.outer(np.arange(190), np.arange(1100)) // 6).astype(np.uint8)
    data = exact(Picture(pixels, alpha))
    file = bitstream.read(data)
    assert len(file.lossless) > 4  # at most 16 tiles go together
    assert max(part.columns * part.rows for part in file.lossless) == 12
    assert same(pixelfile.decompress(data).pixels, pixels)
    for x, y, w, h in [(0, 0, 1, 1), (1099, 189, 1, 1), (60, 50, 700, 80), (0, 0, 1100, 190)]:
        crop = pixelfile.decompress(data, (x, y, w, h))
        assert same(crop.pixels, pixels[y : y + h, x : x + w])
        assert same(crop.alpha, alpha[y : y + h, x : x + w])


@pytest.mark.parametrize("size", [(16_400, 3), (3, 16_400)])
def test_sides_longer_than_webp_allows(size: tuple[int, int]) -> None:
    stripes = np.add.outer(np.arange(size[0]), np.arange(size[1])) % 7 * 30
    pixels = stripes.astype(np.uint8)[..., None]
    data = exact(Picture(pixels))
    assert len(bitstream.read(data).lossless) == 2
    assert same(pixelfile.decompress(data).pixels, pixels)


@pytest.mark.parametrize(
    "crop", [(0, 0, 0, 5), (0, 0, 5, 0), (-1, 0, 5, 5), (46, 0, 5, 5), (0, 38, 5, 5)]
)
def test_crops_that_leave_the_picture(crop) -> None:
    data = exact(Picture(drawn(40, 50, 1)))
    with pytest.raises(ConfigError, match="does not lie within the picture's 50x40 pixels"):
        pixelfile.decompress(data, crop)


def spoiled(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0x40]) + data[place + 1 :]


@pytest.mark.usefixtures("small_tiles")
def test_damage_hurts_its_tiles_alone() -> None:
    pixels = np.tile(few_values(drawn(64, 64, seed=6)), (1, 26, 1))  # smaller together
    data = exact(Picture(pixels, icc=b"profile"))
    first, last = bitstream.read(data).lossless[0], bitstream.read(data).lossless[-1]
    assert (first.columns, last.columns) == (12, 2)
    broken = spoiled(data, len(data) - 20)
    with pytest.raises(DamagedError, match="checksum of chunk PIXL 24"):
        pixelfile.decompress(broken)
    assert same(pixelfile.decompress(broken, (0, 0, 64 * 24, 64)).pixels, pixels[:, : 64 * 24])
    with pytest.raises(DamagedError, match="checksum of chunk PIXL 24"):
        pixelfile.decompress(broken, (64 * 24 - 1, 0, 2, 64))
    partial = pixelfile.decompress(broken, is_partial=True)
    assert same(partial.pixels[:, : 64 * 24], pixels[:, : 64 * 24])
    assert (partial.pixels[:, 64 * 24 :] == 128).all()
    assert [notice[:23] for notice in partial.notices] == [
        "tile 24 of 26 is damage",
        "tile 25 of 26 is damage",
    ]
    assert partial.icc == b"profile"
    front = spoiled(data, 22)  # the profile: a crop may not lose it unsaid
    with pytest.raises(DamagedError, match="chunk ICC"):
        pixelfile.decompress(front, (0, 0, 5, 5))
    assert pixelfile.decompress(front, (0, 0, 5, 5), is_partial=True).icc is None


def test_pixels_that_cannot_be_decoded_though_their_checksum_is_right() -> None:
    file = bitstream.read(exact(Picture(drawn(40, 50, 1))))
    part = file.lossless[0]
    bad = bitstream.PixelData(part.first, part.columns, part.rows, part.packed[:40])
    data = bitstream.write(bitstream.DvqFile(file.header, file.tiles, lossless=(bad,)))
    with pytest.raises(DamagedError, match="lossless pixels cannot be decoded"):
        pixelfile.decompress(data)
    with pytest.raises(DamagedError, match="no tile is whole of the 1 wanted"):
        pixelfile.decompress(data, is_partial=True)


def test_tiles_for_networks_in_a_file_that_names_no_model() -> None:
    header = bitstream.Header(5, 5, bitstream.NO_MODEL, 0)
    data = bitstream.write(bitstream.DvqFile(header, (bitstream.TileData(0, b""),)))
    with pytest.raises(DamagedError, match="need a model, but no model is named"):
        pixelfile.decompress(data)


@pytest.mark.parametrize("size", [(1, 1), (700, 900), (3000, 5000)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [None, 9])
def test_one_colour_is_tiny(size: tuple[int, int], channels: int, alpha: int | None) -> None:
    pixels = np.full((*size, channels), (12, 200, 77)[:channels], np.uint8)
    picture = Picture(pixels, None if alpha is None else np.full(size, alpha, np.uint8))
    data = exact(picture)
    assert len(data) < 40
    restored = pixelfile.decompress(data)
    assert same(restored.pixels, pixels)
    assert same(restored.alpha, picture.alpha)


def test_no_torch_is_needed() -> None:
    code = (
        "import sys, numpy as np\nfrom diveqcodec.container import pixelfile\n"
        "from diveqcodec.image import Picture\n"
        "picture = Picture(np.arange(60, dtype=np.uint8).reshape(4, 5, 3))\n"
        "restored = pixelfile.decompress(pixelfile.compress(picture))\n"
        "assert (restored.pixels == picture.pixels).all()\nprint('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == "False", run.stderr
