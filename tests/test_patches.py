"""Patches of tiles in files: exact pixels, what networks see, crops, damage, efforts, the price."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from diveqcodec import codec as codecroom
from diveqcodec.codec import Codec
from diveqcodec.container import bitstream, lossless, patches
from diveqcodec.container.bitstream import Tile
from diveqcodec.errors import DamagedError
from diveqcodec.exact import weights
from diveqcodec.exact.weights import CodingModel
from diveqcodec.image import Picture
from diveqcodec.patching import choose, packed, promising
from diveqcodec.quality import gain_index, lambda_of
from diveqcodec.verify import differences
from tests.support.tiles import cut_into
from tests.support.tiny import TINY, caption, captioned, drawn, picture_of, trained

PLACE = Tile(37, 45, 150, 61)
ACROSS = Tile(70, 90, 160, 72)  # of four tiles of 128 pixels
WIDE = Tile(45, 150, 300, 60)  # of three


@pytest.fixture(scope="module")
def codec(tiny_model: CodingModel) -> Codec:
    return Codec(tiny_model, networks=torch.float32, workers=1)


def area(place: Tile) -> tuple[slice, slice]:
    return slice(place.y, place.y + place.height), slice(place.x, place.x + place.width)


def places_of(data: bytes) -> list[list[Tile]]:
    """Of the patches of every tile that networks coded, in pixels of the picture."""
    file = bitstream.read(data)
    grid = bitstream.tile_grid(file.header.width, file.header.height)
    return [
        [patch.within(where) for patch in patches.unpack(tile.patches or b"", 2000, 2000)]
        for where, tile in zip(grid, file.tiles, strict=True)
        if tile is not None
    ]


def error_of(picture: Picture, decoded: Picture) -> float:
    error = np.square(decoded.pixels.astype(float) - picture.pixels).mean(axis=2)
    return float(error.sum() if picture.alpha is None else error[picture.alpha > 0].sum())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("is_transparent", [False, True])
def test_a_caption_is_exact_and_cheaper(codec: Codec, channels: int, is_transparent: bool) -> None:
    pixels = captioned(200, 256, PLACE, seed=1)[..., :channels].copy()
    alpha = np.full((200, 256), 255, np.uint8)
    alpha[:, 230:] = 0
    alpha[60:70, 100:120] = 90  # within the caption, where nothing is hidden
    picture = Picture(pixels, alpha if is_transparent else None)
    data = codec.compress(picture, 60)
    assert places_of(data) == [[PLACE]]
    decoded = codec.decompress(data)
    assert (decoded.pixels == pixels)[area(PLACE)].all()
    if is_transparent:
        assert decoded.alpha is not None
        assert (decoded.alpha == alpha).all()
    never = codec.compress(picture, 60, lossless="never")
    assert not bitstream.read_header(never).has_patches
    price = lambda_of(TINY.scale.log_gain(gain_index(60)))
    costs = [8 * len(d) + price * error_of(picture, codec.decompress(d)) for d in (data, never)]
    assert costs[0] < 0.8 * costs[1]
    assert codec.parts(data)["patches"] > 0
    assert sum(codec.parts(data).values()) == 8 * len(data)


def test_networks_see_nothing_of_a_patch(codec: Codec) -> None:
    one, other = (captioned(200, 256, PLACE, seed=2) for _ in range(2))
    other[area(PLACE)] = 255 - other[area(PLACE)]
    files = [bitstream.read(codec.compress(picture_of(pixels), 60)) for pixels in (one, other)]
    first, second = (file.tiles[0] for file in files)
    assert first is not None
    assert second is not None
    assert first.patches != second.patches
    assert replace(first, patches=b"") == replace(second, patches=b"")


def test_photographs_and_low_prices_have_none(codec: Codec) -> None:
    photograph = picture_of(drawn(200, 256, seed=3))
    assert codec.compress(photograph, 60) == codec.compress(photograph, 60, lossless="never")
    dithered = captioned(200, 256, PLACE, seed=3)
    noise = np.random.default_rng(0).random((61, 150)) < 0.35  # which WebP needs a bit a pixel for
    dithered[area(PLACE)] = np.where(noise, 200, 90)[..., None]
    assert not bitstream.read_header(codec.compress(picture_of(dithered), 1)).has_patches


def test_hidden_captions_are_no_patches(codec: Codec) -> None:
    pixels = captioned(200, 256, PLACE, seed=7)
    alpha = np.full((200, 256), 255, np.uint8)
    alpha[area(PLACE)] = 1
    assert places_of(codec.compress(Picture(pixels, alpha), 60)) == [[PLACE]]
    alpha[area(PLACE)] = 0
    assert places_of(codec.compress(Picture(pixels, alpha), 60)) == [[]]


@pytest.mark.parametrize("place", [ACROSS, WIDE])
def test_captions_across_tiles(codec: Codec, place: Tile, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_into(monkeypatch, 128)
    pixels = captioned(384, 384, place, seed=5)
    picture = picture_of(pixels)
    data = codec.compress(picture, 60)
    assert sum(map(bool, places_of(data))) > 1
    whole = codec.decompress(data)
    for found in sum(places_of(data), []):
        assert (whole.pixels == pixels)[area(found)].all()
    several = Codec(codec.model, networks=torch.float32, workers=3)
    assert several.compress(picture, 60) == data
    assert (several.decompress(data).pixels == whole.pixels).all()
    for crop in ((0, 0, 384, 384), (100, 100, 30, 120), (127, 127, 2, 2), (380, 380, 4, 4)):
        x, y, w, h = crop
        part = codec.decompress(data, crop=crop)
        assert (part.pixels == whole.pixels[y : y + h, x : x + w]).all()
    # What is seen of the caption beyond a tile's border is hidden there as well.
    error = np.square(whole.pixels.astype(float) - pixels).mean(axis=2)
    beside = np.zeros(error.shape, np.bool_)
    beside[max(0, place.y - 8) : place.y + place.height + 8, place.x - 8 : place.x + 8] = True
    beside[area(place)] = False
    assert error[beside].mean() < 4 * np.median(error[error > 0])


def test_a_page_around_a_photograph(codec: Codec) -> None:
    page = caption(256, 256)
    page[80:160, 64:192] = drawn(80, 128, seed=6)
    data = codec.compress(picture_of(page), 50)
    (found,) = places_of(data)
    assert len(found) >= 4
    never, always = (
        codec.compress(picture_of(page), 50, lossless=kind) for kind in ("never", "always")
    )
    assert len(data) < 0.7 * min(len(never), len(always))


def test_a_page_with_a_small_hole_can_be_read(codec: Codec) -> None:
    """Together, patches around it must not be larger than the tile."""
    page = caption(300, 400)
    page[150:190, 200:240] = np.random.default_rng(0).integers(0, 256, (40, 40, 3))
    data = codec.compress(picture_of(page), 20)
    (found,) = places_of(data)
    assert len(found) >= 4
    decoded = codec.decompress(data)
    for place in found:
        assert (decoded.pixels == page)[area(place)].all()


def spoiled(data: bytes, index: int) -> bytes:
    """A file with a wrong bit in the PTCH chunk of a tile."""
    tile = bitstream.read(data).tiles[index]
    assert tile is not None
    assert tile.patches
    place = data.index(tile.patches) + len(tile.patches) // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def contradictory(data: bytes, index: int) -> bytes:
    """A file whose checksums are right, but the patches of a tile are truncated."""
    file = bitstream.read(data)
    tiles = list(file.tiles)
    tile = tiles[index]
    assert tile is not None
    assert tile.patches
    tiles[index] = replace(tile, patches=tile.patches[:-1])
    return bitstream.write(replace(file, tiles=tuple(tiles)))


@pytest.mark.parametrize("damage", [spoiled, contradictory])
def test_damaged_patches_are_refused_or_left_out(
    codec: Codec, damage: Callable[[bytes, int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_into(monkeypatch, 128)
    data = codec.compress(picture_of(captioned(384, 384, WIDE, seed=7)), 60)
    whole = codec.decompress(data).pixels
    broken = damage(data, 4)
    with pytest.raises(DamagedError, match=r"^damaged: [^\n]*chunk PTCH 4[^\n]*$"):
        codec.decompress(broken)
    part = codec.decompress(broken, crop=(0, 0, 384, 110))  # other tiles are not touched
    assert (part.pixels == whole[:110]).all()
    found = codec.decompress(broken, partial=True)
    assert found.notices == (
        "tile 4 of 9: its patches are damaged; its 128x128 pixels at 128,128 are smooth where those"
        " were",
    )
    differs = (found.pixels != whole).any(axis=2)
    assert differs[150:210, 128:256].any()
    differs[150:210, 128:256] = False
    assert not differs.any()


def test_verify_wants_patches_to_be_exact(codec: Codec) -> None:
    picture = picture_of(captioned(200, 256, PLACE, seed=8))
    data = codec.compress(picture, 60)
    decoded = codec.decompress(data)
    assert differences(data, decoded, picture, TINY.scale) == ()
    decoded.pixels[60, 60, 1] ^= 1
    assert differences(data, decoded, picture, TINY.scale) == ("pixels",)


def test_verify_asks_of_the_rest_that_it_is_the_picture(codec: Codec) -> None:
    """However different the pixels of patches are among each other."""
    page = caption(256, 256)
    page[80:160, 64:192] = drawn(80, 128, seed=6)
    picture = picture_of(page)
    data = codec.compress(picture, 50)
    decoded = codec.decompress(data)
    assert differences(data, decoded, picture, TINY.scale) == ()
    inside = decoded.pixels[88:152, 72:184]
    inside[:] = inside[::-1, ::-1].copy()
    assert differences(data, decoded, picture, TINY.scale) == ("pixels",)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    """A codec whose weights have what training left in them, so that it can refine."""
    path: Path = tmp_path_factory.mktemp("weights") / "whole.safetensors"
    weights.save(trained(TINY, 30)[0], path, {})
    return Codec(weights.load(path), networks=torch.float32)


def test_efforts_that_refine_have_patches_too(
    whole: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codecroom, "ROUNDS", {7: 2, 9: 4})
    pixels = captioned(120, 200, Tile(21, 30, 140, 50), seed=9)
    price = lambda_of(TINY.scale.log_gain(gain_index(60)))
    costs = []
    for effort in (5, 7):
        data = whole.compress(picture_of(pixels), 60, effort)
        assert places_of(data) == [[Tile(21, 30, 140, 50)]]
        decoded = whole.decompress(data)
        assert (decoded.pixels == pixels)[30:80, 21:161].all()
        costs.append(8 * len(data) + price * error_of(picture_of(pixels), decoded))
    assert costs[1] < costs[0]


def test_bits_of_a_rectangle() -> None:
    """Those of a position count by the part of it that lies there; the rest is for errors."""
    pixels, bits = np.zeros((30, 40, 1), np.uint8), np.arange(6.0).reshape(2, 3) * 1e4
    places = [Tile(0, 0, 40, 30), Tile(16, 8, 8, 8), Tile(16, 11, 8, 5)]
    found = promising(places, pixels, bits)
    assert [one.patch.place for one in found] == places
    expected = [(0 + 1 + 2 / 2) + 14 / 16 * (3 + 4 + 5 / 2), 1 / 4, 1 * 8 * 5 / 256]
    assert [one.spent for one in found] == pytest.approx([1e4 * value for value in expected])
    loss = np.zeros((30, 40))
    loss[10, 20] = 700.0
    chosen, saved = choose(found, loss, 1e4)
    assert [patch.place for patch in chosen] == places
    total = 1e4 * sum(expected) + 1400 - sum(one.bits for one in found)
    assert saved == pytest.approx(total)


def test_only_what_pays_is_chosen() -> None:
    pixels = captioned(96, 160, Tile(0, 0, 100, 40), seed=10)
    places = [Tile(0, 0, 100, 40), Tile(110, 50, 40, 40)]  # the second is a photograph
    bits = np.full((6, 10), 100.0)
    hopes = promising(places, pixels, bits)
    assert [one.patch.place for one in hopes] == places[:1]
    assert promising(places, pixels, bits / 100) == ()
    for loss, cost, count in ((0.0, 1e3, 1), (1.0, 1e4, 1), (1.0, 1e6, 0)):
        chosen, saved = choose(hopes, np.full((96, 160), loss), cost)
        assert len(chosen) == count
        assert (saved > 0) == (count > 0)
    size = hopes[0].bits  # smooth colours in its place are not free
    for times, count in ((1.05, 0), (1.15, 1)):
        one = replace(hopes[0], spent=times * size)
        assert len(choose((one,), np.zeros((96, 160)), size)[0]) == count
    better = packed(tuple(one.patch for one in hopes), pixels, 5)
    assert len(better[0].packed) <= len(hopes[0].patch.packed)


def test_what_is_all_drawn_is_no_patch(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lossless tile says it without networks, or it is not worth it; and it is packed once."""
    cut_into(monkeypatch, 128)
    pixels = drawn(128, 256, seed=11)
    pixels[:, 128:] = caption(128, 128)
    file = bitstream.read(codec.compress(picture_of(pixels), 60))
    assert [part.first for part in file.lossless] == [1]
    assert not file.header.has_patches
    monkeypatch.setattr(lossless, "is_drawn", lambda *_: False)  # which looks at some rows
    assert codec.compress(picture_of(pixels), 60) == bitstream.write(file)
