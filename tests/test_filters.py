"""Filters of tiles in files: what they see, crops, damage, and when an encoder sends them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from diveqcodec.codec import Codec
from diveqcodec.container import bitstream, filters, wiener
from diveqcodec.container.pixelfile import layout_of
from diveqcodec.errors import DamagedError
from diveqcodec.exact.weights import CodingModel
from diveqcodec.image import Picture
from diveqcodec.model.candidates import GRID_BITS
from diveqcodec.quality import gain_index
from diveqcodec.tilefilters import FilterSearch
from diveqcodec.windows import Networks
from tests.support.coders import decoded_tiles
from tests.support.tiles import cut_into
from tests.support.tiny import drawn, picture_of
from tests.support.wieners import filtered, unfiltered

HALO = wiener.HALO


@pytest.fixture(scope="module")
def codec(tiny_model: CodingModel) -> Codec:
    return Codec(tiny_model, networks=torch.float32, workers=1)


@pytest.fixture(scope="module")
def mixed(codec: Codec) -> tuple[bytes, Picture]:
    """Nine tiles of 128 pixels, that of the middle lossless, with filters; and their picture."""
    with pytest.MonkeyPatch.context() as patch:
        cut_into(patch, 128)
        pixels = drawn(384, 384, seed=31)
        rows, columns = np.mgrid[:128, :128]
        bars = (rows % 9 < 3) & ((columns * 7 + rows // 9 * 5) % 11 < 6)
        pixels[128:256, 128:256] = np.where(bars, 0, 255)[..., None]
        data = filtered(codec.compress(picture_of(pixels), 60))
        return data, codec.decompress(data)


def by_hand(data: bytes, plain: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Filter the pixels of a file, whose sides are multiples of 16, region by region."""
    file = bitstream.read(data)
    layout = layout_of(file)
    result = plain.copy()
    for index, region in layout.regions().items():
        tile, content = layout.grid[index], file.tiles[index]
        assert content is not None
        found = filters.unpack(content.filters or b"", plain.shape[2])
        area = plain[region.y : region.y + region.height, region.x : region.x + region.width]
        halo = np.pad(area, ((HALO, HALO), (HALO, HALO), (0, 0)), mode="edge")
        y, x = tile.y - region.y, tile.x - region.x
        seen = halo[y : y + tile.height + 2 * HALO, x : x + tile.width + 2 * HALO]
        rows, columns = slice(tile.y, tile.y + tile.height), slice(tile.x, tile.x + tile.width)
        result[rows, columns] = wiener.filtered(seen, found)
    return result


def test_filters_see_their_region_as_it_was(
    codec: Codec, mixed: tuple[bytes, Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_into(monkeypatch, 128)
    data, picture = mixed
    file = bitstream.read(data)
    assert len(file.lossless) == 1
    assert len(set(layout_of(file).regions().values())) > 1
    plain = codec.decompress(unfiltered(data)).pixels
    expected = by_hand(data, plain)
    assert (expected != plain).mean() > 0.1
    # Windows of other sizes may round a pixel beside a tile another way.
    assert (picture.pixels != expected).mean() < 1e-3


@pytest.mark.parametrize(
    "crop",
    [(0, 0, 1, 1), (383, 383, 1, 1), (127, 100, 2, 60), (5, 130, 379, 100), (0, 0, 384, 384)],
)
def test_a_crop_is_cut_from_the_whole(
    codec: Codec, mixed: tuple[bytes, Picture], crop, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_into(monkeypatch, 128)
    data, whole = mixed
    x, y, w, h = crop
    part = codec.decompress(data, crop=crop)
    assert (part.pixels == whole.pixels[y : y + h, x : x + w]).all()


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (1, 50), (33, 2), (16, 16), (47, 61)])
def test_every_size_is_filtered_before_it_is_cut(
    codec: Codec, colours: int, size: tuple[int, int]
) -> None:
    pixels = drawn(*size, seed=32)[..., :colours].copy()
    data = filtered(codec.compress(picture_of(pixels), 70, lossless="never"), seed=size[0])
    (tile,) = decoded_tiles(codec, data)
    networks = Networks(codec.model, codec.networks, bitstream.read_header(data).has_mirror)
    with torch.inference_mode():
        cells = tile.latent.float()[None] * 2.0**-GRID_BITS
        whole = networks.rounded(cells, gain_index(70), is_grey=colours == 1)[0]
    expected = by_hand(
        # The same file, of a picture that is as large as its positions.
        bitstream.write(
            replace(
                file := bitstream.read(data),
                header=replace(file.header, height=whole.shape[0], width=whole.shape[1]),
            )
        ),
        whole,
    )
    assert (codec.decompress(data).pixels == expected[: size[0], : size[1]]).all()


def spoiled(data: bytes, index: int) -> bytes:
    """A file with a wrong bit in the FILT chunk of a tile."""
    tile = bitstream.read(data).tiles[index]
    assert tile is not None
    assert tile.filters
    place = data.index(tile.filters) + len(tile.filters) // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def contradictory(data: bytes, index: int) -> bytes:
    """A file whose checksums are right, but the filters of a tile are too long."""
    file = bitstream.read(data)
    tiles = list(file.tiles)
    tile = tiles[index]
    assert tile is not None
    assert tile.filters
    tiles[index] = replace(tile, filters=tile.filters + b"\0")
    return bitstream.write(replace(file, tiles=tuple(tiles)))


@pytest.mark.parametrize("damage", [spoiled, contradictory])
def test_damaged_filters_are_refused_or_left_out(
    codec: Codec, mixed: tuple[bytes, Picture], damage, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_into(monkeypatch, 128)
    data, whole = mixed
    broken = damage(data, 8)
    for crop in (None, (300, 300, 5, 5)):
        with pytest.raises(DamagedError, match=r"^damaged: [^\n]*chunk FILT 8[^\n]*$"):
            codec.decompress(broken, crop=crop)
    part = codec.decompress(broken, crop=(0, 0, 200, 384))  # other tiles are not touched
    assert (part.pixels == whole.pixels[:, :200]).all()
    assert part.notices == ()
    found = codec.decompress(broken, partial=True)
    assert found.notices == (
        "tile 8 of 9: its filters are damaged; its 128x128 pixels at 256,256 are not filtered",
    )
    plain = codec.decompress(unfiltered(data)).pixels
    expected = whole.pixels.copy()
    expected[256:, 256:] = plain[256:, 256:]
    assert (found.pixels == expected).all()


def test_partial_filters_what_is_whole(
    codec: Codec, mixed: tuple[bytes, Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_into(monkeypatch, 128)
    data, whole = mixed
    tile = bitstream.read(data).tiles[8]
    assert tile is not None
    place = data.index(tile.payload) + 3
    found = codec.decompress(
        data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :], partial=True
    )
    assert found.notices == ("tile 8 of 9 is damaged; its 128x128 pixels at 256,256 are grey",)
    far = np.ones((384, 384), bool)
    far[130:, 130:] = False
    assert (found.pixels == whole.pixels)[far].all()


def error_of(codec: Codec, data: bytes, picture: Picture) -> float:
    return float(np.square(codec.decompress(data).pixels.astype(float) - picture.pixels).sum())


def test_an_encoder_sends_filters_that_pay(codec: Codec) -> None:
    picture = picture_of(drawn(400, 500, seed=36))
    data = codec.compress(picture, 80, lossless="never")
    assert bitstream.read_header(data).has_filters
    assert len(data) - len(unfiltered(data)) < 150
    assert error_of(codec, data, picture) < 0.98 * error_of(codec, unfiltered(data), picture)
    fast = codec.compress(picture, 80, effort=1, lossless="never")
    assert not bitstream.read_header(fast).has_filters
    assert fast == unfiltered(fast)
    parts = codec.parts(data)
    assert parts["filters"] > 0
    assert sum(parts.values()) == 8 * len(data)


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("is_hidden", [False, True])
def test_more_effort_finds_better_filters(codec: Codec, colours: int, is_hidden: bool) -> None:
    """By what they save at the price of the quality, less their bits; hidden pixels are nothing."""
    pixels = drawn(203, 350, seed=34)[..., :colours].copy()
    alpha = np.full((203, 350), 255, np.uint8)
    alpha[:, 220:] = 0
    picture = Picture(pixels, alpha if is_hidden else None)
    data = codec.compress(picture, 50, effort=1, lossless="never")
    (tile,) = bitstream.tile_grid(350, 203)
    (decoded,) = decoded_tiles(codec, data)
    networks = Networks(codec.model, codec.networks)
    file = bitstream.read(data)
    errors, worths = [], []
    for effort in (1, 3, 7, 9):
        search = FilterSearch(networks, picture, gain_index(50), effort)
        packed = filters.pack(search.run(tile, decoded.latent))
        assert file.tiles[0] is not None
        changed = replace(
            file,
            header=replace(file.header, has_filters=True),
            tiles=(replace(file.tiles[0], filters=packed),),
        )
        error = codec.decompress(bitstream.write(changed)).pixels.astype(float) - pixels
        errors.append(np.square(error)[alpha > 0 if is_hidden else ...].sum())
        worths.append(8 * len(packed) + search.price * 3 / colours * errors[-1])
    assert worths[1] < 1.001 * worths[0]  # few samples find little here, but do no harm
    assert worths[2] < worths[1]
    assert worths[3] <= worths[2] * 1.001
    assert errors[2] < 0.95 * errors[0]


def test_tiles_find_filters_of_their_own(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_into(monkeypatch, 128)
    picture = picture_of(drawn(300, 290, seed=35))
    data = codec.compress(picture, 80, lossless="never")
    assert codec.compress(picture, 80, lossless="never") == data
    file = bitstream.read(data)
    assert file.header.has_filters
    assert len({tile.filters for tile in file.tiles if tile is not None}) > 2
    assert error_of(codec, data, picture) < error_of(codec, unfiltered(data), picture)
