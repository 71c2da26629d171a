"""Pictures <-> bytes: every size and mode, tiles without seams, hidden colours, errors."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from diveqcodec.codec import DEFAULT_EFFORT, MIRROR, Codec
from diveqcodec.container import alpha, bitstream
from diveqcodec.errors import ConfigError, DamagedError, ModelError
from diveqcodec.exact import weights
from diveqcodec.exact.weights import CodingModel
from diveqcodec.image import Picture
from diveqcodec.model.candidates import GRID_BITS
from diveqcodec.model.layers import fast_dtype
from diveqcodec.quality import gain_index
from diveqcodec.windows import Networks
from tests.support.coders import decoded_tiles
from tests.support.tiles import cut_into
from tests.support.tiny import drawn, picture_of
from tests.support.wieners import unfiltered


@pytest.fixture(scope="module")
def networks(codec: Codec) -> Networks:
    return Networks(codec.model, codec.networks, DEFAULT_EFFORT >= MIRROR)


def lossy(codec: Codec, picture: Picture, quality: float) -> bytes:
    """The file in which networks code every tile."""
    return codec.compress(picture, quality, lossless="never")


def neural(file: bitstream.DvqFile, index: int = 0) -> bitstream.TileData:
    """A tile that networks have coded."""
    tile = file.tiles[index]
    assert tile is not None
    return tile


def psnr(a, b) -> float:
    return float(10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()))


SIZES = [(h, w) for h in (1, 2, 3, 15, 16, 17, 20) for w in (1, 2, 5, 16, 19)]
SIZES += [(1, 331), (257, 1), (97, 101), (64, 128), (31, 33)]


@pytest.mark.parametrize("size", SIZES)
def test_every_size_comes_back(codec: Codec, size) -> None:
    pixels = drawn(size[0], size[1], seed=3)
    restored = codec.decompress(lossy(codec, picture_of(pixels), 80))
    assert restored.pixels.shape == pixels.shape
    assert restored.pixels.dtype == np.uint8
    assert restored.alpha is None
    if min(size) > 1:  # one row can be nearly all noise
        assert psnr(restored.pixels, pixels) > 17


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize("metadata", [False, True])
def test_every_mode_comes_back(codec: Codec, channels: int, transparent: bool, metadata) -> None:
    size = (37, 45)
    pixels = drawn(size[0], size[1], seed=4)[..., :channels].copy()
    values = np.add.outer(np.arange(37), np.arange(45)).astype(np.uint8) if transparent else None
    extra = (b"icc" * 50, b"exif", b"xmp") if metadata else (None, None, None)
    restored = codec.decompress(lossy(codec, Picture(pixels, values, *extra), 60))
    assert restored.pixels.shape == pixels.shape
    assert (restored.alpha is None) == (values is None)
    if values is not None and restored.alpha is not None:
        np.testing.assert_array_equal(restored.alpha, values)
    assert (restored.icc, restored.exif, restored.xmp) == extra


def test_quality_and_size_go_together(codec: Codec) -> None:
    pixels = drawn(120, 110, seed=5)
    files = [lossy(codec, picture_of(pixels), quality) for quality in (1, 35, 70, 100)]
    lengths = [len(data) for data in files]
    assert lengths == sorted(lengths)
    assert lengths[-1] > 2 * lengths[0]
    assert psnr(codec.decompress(files[-1]).pixels, pixels) > psnr(
        codec.decompress(files[0]).pixels, pixels
    )


def test_grey_costs_no_more_than_colour(codec: Codec) -> None:
    grey = drawn(90, 90, seed=6)[..., :1].copy()
    both = grey, grey.repeat(3, axis=2)  # without filters, which each may have found or not
    as_grey, as_colour = (codec.compress(picture_of(x), 70, 1, lossless="never") for x in both)
    assert len(as_grey) <= len(as_colour)
    restored, tinted = codec.decompress(as_grey), codec.decompress(as_colour)
    assert psnr(restored.pixels, grey) >= psnr(tinted.pixels, grey.repeat(3, axis=2))


def test_tiles_leave_no_seams(
    codec: Codec, networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pixels and latents of tiles are those of networks that see the whole picture."""
    cut_into(monkeypatch, 128)
    height, width = 331, 290
    picture = picture_of(drawn(height, width, seed=8))
    data = unfiltered(lossy(codec, picture, 60))
    grid = bitstream.tile_grid(width, height)
    assert len(grid) == 9
    gain = gain_index(60)
    rows, columns = -(-height // 16), -(-width // 16)
    whole = bitstream.Tile(0, 0, width, height)
    stitched = torch.empty(rows, columns, codec.model.config.channels)
    seen = torch.empty_like(stitched)
    for tile, found in zip(grid, decoded_tiles(codec, data), strict=True):
        area = slice(tile.y // 16, None), slice(tile.x // 16, None)
        h, w = found.latent.shape[:2]
        stitched[area][:h, :w] = found.latent.float() * 2.0**-GRID_BITS
        window = networks.window(tile, whole)
        assert window.outer != (0, 0, rows, columns)  # or this test says nothing
        seen[area][:h, :w] = networks.source(picture, window, gain, 0.0).latent
    window = networks.window(whole, whole)
    with torch.inference_mode():
        expected = networks.pixels(stitched, window, gain, is_grey=False)[:height, :width]
    restored = codec.decompress(data).pixels.astype(int)
    difference = np.abs(restored - expected)
    assert difference.max() <= 1
    assert difference.mean() < 1e-3
    untiled = networks.source(picture, window, gain, 0.0).latent
    assert float((seen - untiled).abs().max()) < 1e-3 * float(untiled.abs().max())


def test_a_narrower_margin_would_leave_seams(
    networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The margin is needed: without one, latents differ."""
    picture = picture_of(drawn(320, 320, seed=9))
    tile = bitstream.Tile(128, 128, 64, 64)
    whole = bitstream.Tile(0, 0, 320, 320)
    full = networks.source(picture, networks.window(tile, whole), 30000, 0.0).latent
    monkeypatch.setattr(networks, "margin", 0)
    narrow = networks.source(picture, networks.window(tile, whole), 30000, 0.0).latent
    assert float((full - narrow).abs().max()) > 1e-3


def test_pictures_larger_than_a_tile(codec: Codec) -> None:
    pixels = np.tile(drawn(128, 128, seed=10), (9, 11, 1))[:1100, :1300]
    data = codec.compress(picture_of(pixels), 30)
    assert len(bitstream.read(data).tiles) == 2
    assert codec.decompress(data).pixels.shape == pixels.shape


def test_hidden_colours_cost_nothing(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = drawn(100, 140, seed=11)
    disc = np.hypot(*(np.mgrid[:100, :140] - 50)) < 40
    values = disc.astype(np.uint8) * 255
    random = np.random.default_rng(0).integers(0, 256, pixels.shape, np.uint8)
    noisy = np.where(disc[..., None], pixels, random)
    data = lossy(codec, picture_of(noisy, values), 70)
    assert data == lossy(codec, picture_of(pixels, values), 70)
    shown = psnr(codec.decompress(data).pixels[disc], pixels[disc])
    monkeypatch.setattr(alpha, "fill_hidden", lambda colours, _: colours)
    unfilled = lossy(codec, picture_of(noisy, values), 70)
    assert len(data) < 0.9 * len(unfilled)
    assert shown > psnr(codec.decompress(unfilled).pixels[disc], pixels[disc])


def test_read_only_pixels_are_accepted(codec: Codec) -> None:
    pixels = drawn(20, 20, seed=12)
    pixels.flags.writeable = False
    before = pixels.copy()
    codec.compress(picture_of(pixels), 50)  # torch would warn, and warnings are errors
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize("quality", [0, 0.99, 100.5, -3, float("nan")])
def test_quality_out_of_range(codec: Codec, quality: float) -> None:
    with pytest.raises(ConfigError, match="quality .*: must be from 1 to 100"):
        codec.compress(picture_of(drawn(5, 5, 0)), quality)


def test_effort_out_of_range(codec: Codec) -> None:
    with pytest.raises(ConfigError, match="effort 4: use one of 1, 3, 5, 7, 9"):
        codec.compress(picture_of(drawn(5, 5, 0)), 50, effort=4)


def test_another_models_file_is_refused(codec: Codec, tiny_model: CodingModel) -> None:
    data = lossy(codec, picture_of(drawn(5, 5, 0)), 50)
    other = Codec(dataclasses.replace(tiny_model, name="other", model_id=b"\1" * 8))
    with pytest.raises(ModelError, match=f"needs model {tiny_model.model_id.hex()}, not other"):
        other.decompress(data)


def test_a_wrong_checksum_of_indices_is_damage(codec: Codec) -> None:
    file = bitstream.read(lossy(codec, picture_of(drawn(40, 40, 0)), 50))
    tile = dataclasses.replace(neural(file), index_crc=neural(file).index_crc ^ 1)
    with pytest.raises(DamagedError, match="indices of tile 0"):
        codec.decompress(bitstream.write(dataclasses.replace(file, tiles=(tile,))))


def test_a_payload_that_goes_on_after_its_symbols_is_damage(codec: Codec) -> None:
    file = bitstream.read(lossy(codec, picture_of(drawn(40, 40, 0)), 50))
    tile = dataclasses.replace(neural(file), payload=neural(file).payload + b"\0")
    with pytest.raises(DamagedError, match="does not end with its last symbol"):
        codec.decompress(bitstream.write(dataclasses.replace(file, tiles=(tile,))))


def test_parts_add_up(codec: Codec) -> None:
    picture = picture_of(drawn(150, 140, seed=13))
    data = lossy(codec, picture, 70)
    parts = codec.parts(data)
    assert sum(parts.values()) == 8 * len(data)
    assert set(parts) - {"filters"} == {"slice 0", "slice 1", "slice 2", "container"}
    assert 8 * 25 < parts["container"] < 8 * 45
    assert min(parts.values()) > 0


def test_fast_dtype_is_one_the_networks_run_in(tiny_model: CodingModel) -> None:
    assert fast_dtype(torch.device("cuda")) == torch.bfloat16
    dtype = fast_dtype(torch.device("cpu"))
    assert dtype in (torch.float32, torch.bfloat16)
    assert Codec(tiny_model).networks == dtype


def test_networks_run_where_the_model_was_loaded_to(tiny_model_path: Path) -> None:
    elsewhere = torch.device("meta")  # a device that every machine has besides its processor
    codec = Codec(weights.load(tiny_model_path, elsewhere))
    assert codec.device == elsewhere
    assert Networks(codec.model, codec.networks).device == elsewhere
    assert codec.model.fine.search.words.device.type == "cpu"  # next to the entropy coder
