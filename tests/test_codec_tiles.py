"""Lossless tiles beside coded ones, flat pictures, crops, damaged files, several workers."""

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from diveqcodec.codec import Codec
from diveqcodec.container import bitstream
from diveqcodec.errors import ConfigError, DamagedError, ModelError
from diveqcodec.exact.weights import CodingModel
from diveqcodec.image import Picture
from tests.support.tiles import cut_into
from tests.support.tiny import drawn, few_values, picture_of


@pytest.fixture(scope="module")
def codec(tiny_model: CodingModel) -> Codec:
    return Codec(tiny_model, networks=torch.float32, workers=1)


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 128 pixels and more, so that a small picture has many."""
    cut_into(monkeypatch, 128)


def page(height: int, width: int) -> NDArray[np.uint8]:
    """Sharp black bars on white: nothing for networks."""
    rows, columns = np.mgrid[:height, :width]
    bars = (rows % 9 < 3) & ((columns * 7 + rows // 9 * 5) % 11 < 6)
    return np.where(bars, 0, 255).astype(np.uint8)[..., None].repeat(3, axis=2)


def collage(place: tuple[slice, slice], size: tuple[int, int] = (384, 384)) -> NDArray[np.uint8]:
    """A page in a photograph."""
    pixels = drawn(*size, seed=21)
    pixels[place] = page(*size)[place]
    return pixels


RIGHT = slice(None), slice(256, None)
CORNER = slice(0, 128), slice(0, 128)
MIDDLE = slice(128, 256), slice(128, 256)


@pytest.mark.parametrize(
    ("place", "is_grey"), [(RIGHT, False), (CORNER, False), (MIDDLE, False), (MIDDLE, True)]
)
def test_a_page_in_a_photograph_is_kept_exactly(codec: Codec, place, is_grey: bool) -> None:
    pixels = collage(place)[..., : 1 if is_grey else 3].copy()
    picture = picture_of(pixels)
    data = codec.compress(picture, 60)
    file = bitstream.read(data)
    lossless = np.array([tile is None for tile in file.tiles]).reshape(3, 3)
    expected = np.zeros((384, 384), bool)
    expected[place] = True
    assert (lossless == expected[::128, ::128]).all()
    restored = codec.decompress(data).pixels
    assert (restored[place] == pixels[place]).all()
    never = codec.compress(picture, 60, lossless="never")
    assert len(data) < len(never)
    # Beside the page the photograph is as good as elsewhere.
    error = np.square(restored.astype(float) - pixels).mean(axis=2)
    near = np.zeros_like(expected)
    for axis in (0, 1):
        for step in (-8, 8):
            near |= np.roll(expected, step, axis)
    near &= ~expected
    near[:8] = near[-8:] = near[:, :8] = near[:, -8:] = False  # rolled around the picture
    assert error[near].mean() < 1.7 * error[~near & ~expected].mean()
    assert codec.parts(data)["lossless"] == 8 * sum(len(part.packed) for part in file.lossless)
    assert sum(codec.parts(data).values()) == 8 * len(data)


def test_windows_end_at_lossless_tiles(codec: Codec) -> None:
    """What the page shows changes nothing of the tiles beside it."""
    one, other = collage(RIGHT), collage(RIGHT)
    other[RIGHT] = 255 - other[RIGHT]
    files = [bitstream.read(codec.compress(picture_of(pixels), 60)) for pixels in (one, other)]
    assert files[0].tiles == files[1].tiles
    assert files[0].lossless != files[1].lossless


def test_hidden_colours_of_lossless_tiles_are_free(codec: Codec) -> None:
    pixels = page(128, 128)
    alpha = np.where(np.hypot(*(np.mgrid[:128, :128] - 60)) < 50, 255, 0).astype(np.uint8)
    random = np.random.default_rng(0).integers(0, 256, pixels.shape, np.uint8)
    noisy = np.where(alpha[..., None] > 0, pixels, random)
    data = codec.compress(Picture(noisy, alpha), 60)
    assert bitstream.read(data).lossless
    assert len(data) < 1.2 * len(codec.compress(Picture(pixels, alpha), 60)) + 100
    restored = codec.decompress(data)
    assert restored.alpha is not None
    assert (restored.alpha == alpha).all()
    assert (restored.pixels == pixels)[alpha > 0].all()
    kept = codec.compress(Picture(noisy, alpha), 60, lossless="always")
    assert (codec.decompress(kept).pixels == noisy).all()


@pytest.mark.parametrize("quality", [1, 30, 100])
@pytest.mark.parametrize("colour", [(0,), (200,), (255, 0, 7)])
def test_flat_is_flat_and_tiny(codec: Codec, quality: float, colour: tuple[int, ...]) -> None:
    pixels = np.full((700, 900, len(colour)), colour, np.uint8)
    data = codec.compress(picture_of(pixels), quality)
    assert len(data) < 40
    assert (codec.decompress(data).pixels == pixels).all()


def test_a_photograph_has_no_lossless_tiles(codec: Codec) -> None:
    picture = picture_of(drawn(384, 384, seed=22))
    data = codec.compress(picture, 60)
    assert not bitstream.read(data).lossless
    assert data == codec.compress(picture, 60, lossless="never")


@pytest.mark.parametrize("quality", [1, 50, 100])
def test_lossless_wins_where_it_is_not_larger(codec: Codec, quality: float) -> None:
    picture = picture_of(page(128, 200))
    never = codec.compress(picture, quality, lossless="never")
    always = codec.compress(picture, lossless="always")
    assert len(always) < len(never)
    assert codec.compress(picture, quality) == always


@pytest.mark.parametrize(("quality", "is_exact"), [(25, False), (100, True)])
def test_where_lossless_is_larger_the_price_of_the_error_decides(
    codec: Codec, quality: float, is_exact: bool
) -> None:
    """A drawing of few values takes more bytes losslessly: too many at a low quality only."""
    picture = picture_of(few_values(drawn(128, 128, seed=3)))
    never = codec.compress(picture, quality, lossless="never")
    always = codec.compress(picture, lossless="always")
    assert len(never) < len(always)
    assert codec.compress(picture, quality) == (always if is_exact else never)


def test_always_takes_no_notice_of_the_quality(codec: Codec) -> None:
    pixels = drawn(300, 290, seed=23)
    data = codec.compress(picture_of(pixels), 3, lossless="always")
    assert bitstream.read_header(data).model_id == bitstream.NO_MODEL
    assert (codec.decompress(data).pixels == pixels).all()


CROPS = [(0, 0, 1, 1), (383, 330, 1, 1), (120, 100, 20, 60), (5, 130, 379, 100)]
# On both sides of where a tile beside theirs begins to matter: 96 pixels from it.
CROPS += [(x, 300, 9, 9) for x in (351, 352, 353, 368)] + [(151, 9, 9, y) for y in (22, 23, 24)]


@pytest.fixture(scope="module")
def mixed(codec: Codec) -> tuple[bytes, Picture]:
    """A file of nine tiles, one of them lossless, and what it decodes to."""
    with pytest.MonkeyPatch.context() as patch:
        cut_into(patch, 128)
        alpha = (np.add.outer(np.arange(331), np.arange(384)) // 3).astype(np.uint8)
        data = codec.compress(Picture(collage(CORNER, (331, 384)), alpha), 40)
        return data, codec.decompress(data)


@pytest.mark.parametrize("crop", CROPS)
def test_a_crop_is_cut_from_the_whole(codec: Codec, mixed, crop) -> None:
    data, whole = mixed
    x, y, w, h = crop
    part = codec.decompress(data, crop=crop)
    assert (part.pixels == whole.pixels[y : y + h, x : x + w]).all()
    assert (part.alpha == whole.alpha[y : y + h, x : x + w]).all()


def test_a_crop_decodes_only_what_it_needs(codec: Codec, mixed, monkeypatch) -> None:
    from diveqcodec import decoder
    from diveqcodec.exact.tile import TileCoder

    seen = []

    def counted(model, source, quality_bin, size):
        seen.append(size)
        return TileCoder(model, source, quality_bin, size)

    monkeypatch.setattr(decoder, "TileCoder", counted)
    codec.decompress(mixed[0], crop=(300, 300, 10, 10))
    assert len(seen) == 4  # its tile and the three around it
    for left, count in ((351, 4), (352, 2)):  # networks look 96 pixels far
        seen.clear()
        codec.decompress(mixed[0], crop=(left, 300, 32, 31))
        assert len(seen) == count
    seen.clear()
    codec.decompress(mixed[0], crop=(10, 10, 50, 50))
    assert not seen  # in the lossless tile
    with pytest.raises(ConfigError, match="does not lie within"):
        codec.decompress(mixed[0], crop=(300, 300, 100, 10))


def chunk_place(data: bytes, index: int) -> int:
    """A byte within the payload of a tile."""
    tile = bitstream.read(data).tiles[index]
    assert tile is not None
    return data.index(tile.payload) + len(tile.payload) // 2


def spoil(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def test_a_damaged_tile_is_an_error_unless_the_crop_avoids_it(codec: Codec, mixed) -> None:
    data, whole = mixed
    broken = spoil(data, chunk_place(data, 8))
    for crop in (None, (300, 300, 5, 5), (250, 250, 10, 10)):
        with pytest.raises(DamagedError, match="chunk TILE 8"):
            codec.decompress(broken, crop=crop)
    part = codec.decompress(broken, crop=(0, 0, 20, 331))
    assert (part.pixels == whole.pixels[:, :20]).all()
    assert part.notices == ()
    broken = spoil(data, chunk_place(data, 7))  # beside the last: out of sight of its right end
    part = codec.decompress(broken, crop=(352, 256, 32, 75))
    assert (part.pixels == whole.pixels[256:, 352:]).all()
    with pytest.raises(DamagedError, match="chunk TILE 7"):
        codec.decompress(broken, crop=(351, 256, 1, 1))


def test_partial_saves_what_is_whole(codec: Codec, mixed) -> None:
    data, whole = mixed
    found = codec.decompress(spoil(data, chunk_place(data, 8)), partial=True)
    assert found.notices == ("tile 8 of 9 is damaged; its 128x75 pixels at 256,256 are grey",)
    assert (found.pixels[256:, 256:] == 128).all()
    assert found.alpha is not None
    assert (found.alpha[256:, 256:] == 255).all()
    far = np.ones((331, 384), bool)
    far[150:, 150:] = False
    assert (found.pixels == whole.pixels)[far].all()
    assert codec.decompress(data, partial=True).notices == ()


def test_partial_of_a_tile_whose_indices_are_wrong(codec: Codec, mixed) -> None:
    file = bitstream.read(mixed[0])
    tile = file.tiles[4]
    assert tile is not None
    for bad in (
        dataclasses.replace(tile, index_crc=tile.index_crc ^ 1),
        dataclasses.replace(tile, payload=tile.payload + b"\1"),
        dataclasses.replace(tile, alpha=b"\7"),
    ):
        tiles = (*file.tiles[:4], bad, *file.tiles[5:])
        data = bitstream.write(dataclasses.replace(file, tiles=tiles))
        with pytest.raises(DamagedError):
            codec.decompress(data)
        found = codec.decompress(data, partial=True)
        assert (found.pixels[128:256, 128:256] == 128).all()
        assert [notice[:9] for notice in found.notices] == ["tile 4 of"]


def test_partial_of_half_a_file(codec: Codec, mixed) -> None:
    data, whole = mixed
    found = codec.decompress(data[: len(data) // 2], partial=True)
    assert 0 < len(found.notices) < 9
    assert (found.pixels[:100, :100] == whole.pixels[:100, :100]).all()


def test_a_picture_of_which_nothing_is_left_is_an_error(codec: Codec, mixed) -> None:
    """Of the tiles that are wanted; where one is whole there is a picture."""
    data, whole = mixed
    with pytest.raises(DamagedError, match="no tile is whole of the 9 wanted"):
        codec.decompress(data[:100], partial=True)
    broken = spoil(data, chunk_place(data, 8))
    with pytest.raises(DamagedError, match="no tile is whole of the 1 wanted"):
        codec.decompress(broken, crop=(300, 300, 5, 5), partial=True)
    found = codec.decompress(broken, crop=(0, 300, 384, 31), partial=True)
    assert (found.pixels[:, :150] == whole.pixels[300:331, :150]).all()


def test_another_models_file_is_refused_though_tiles_are_lost(codec: Codec, mixed) -> None:
    other = Codec(dataclasses.replace(codec.model, name="other", model_id=b"\1" * 8))
    with pytest.raises(ModelError):
        other.decompress(mixed[0][:100], partial=True)


def test_workers_change_nothing_and_progress_is_told(codec: Codec, mixed) -> None:
    data, whole = mixed
    several = Codec(codec.model, networks=torch.float32, workers=3)
    threads = torch.get_num_threads()
    told: list[tuple[int, int]] = []
    found = several.decompress(data, progress=lambda *now: told.append(now))
    assert (found.pixels == whole.pixels).all()
    assert told == [(i, 8) for i in range(1, 9)]
    told.clear()
    picture = Picture(collage(CORNER, (331, 384)), whole.alpha)
    assert several.compress(picture, 40, progress=lambda *now: told.append(now)) == data
    assert sorted(told) == [(i, 9) for i in range(1, 10)]
    assert torch.get_num_threads() == threads
    broken = spoil(data, chunk_place(data, 4))
    with pytest.raises(DamagedError, match="chunk TILE 4"):
        several.decompress(broken)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("workers", [2, 5, 20])
def test_no_worker_changes_a_pixel_of_a_damaged_file_either(
    codec: Codec, mixed, workers: int
) -> None:
    data, whole = mixed
    several = Codec(codec.model, networks=torch.float32, workers=workers)
    for index in (0, 4, 8):
        file = bitstream.read(data)
        tile = file.tiles[index]
        if tile is None:  # a lossless one
            continue
        wrong = dataclasses.replace(tile, index_crc=tile.index_crc ^ 1)  # seen when it is decoded
        tiles = (*file.tiles[:index], wrong, *file.tiles[index + 1 :])
        broken = bitstream.write(dataclasses.replace(file, tiles=tiles))
        with pytest.raises(DamagedError):
            several.decompress(broken)  # and nobody waits for ever
        alone = codec.decompress(broken, partial=True)
        found = several.decompress(broken, partial=True)
        np.testing.assert_array_equal(found.pixels, alone.pixels)
        assert found.alpha is not None
        assert alone.alpha is not None
        np.testing.assert_array_equal(found.alpha, alone.alpha)
        assert found.notices == alone.notices
    for crop in ((250, 250, 10, 10), (0, 0, 384, 1), (100, 0, 200, 331)):
        x, y, width, height = crop
        part = several.decompress(data, crop=crop).pixels
        assert (part == whole.pixels[y : y + height, x : x + width]).all()


@pytest.mark.parametrize("workers", [1, 2, 3, 30])
@pytest.mark.parametrize("rows", [1, 2, 4])
def test_a_step_needs_none_but_those_before_it(workers: int, rows: int) -> None:
    """Else a thread might wait for what no thread will ever begin."""
    from diveqcodec.decoder import _steps

    grid = [(row, column) for row in range(rows) for column in range(3)]
    needs = {
        number: [
            other
            for other, (row, column) in enumerate(grid)
            if abs(row - here[0]) <= 1 and abs(column - here[1]) <= 1
        ]
        for number, here in enumerate(grid)
        if number != 1  # outside of a crop, but seen
    }
    steps = _steps(list(range(len(grid))), needs, workers)
    assert len(steps) == len(set(steps)) == len(grid) + len(needs)
    decoded = [step.tile for step in steps if not step.is_paint]
    assert decoded == sorted(decoded)
    for number, step in enumerate(steps):
        if step.is_paint:
            before = {one.tile for one in steps[:number] if not one.is_paint}
            assert set(needs[step.tile]) <= before


def test_latents_are_forgotten_when_nobody_waits_for_them(codec: Codec, monkeypatch) -> None:
    from diveqcodec.decoder import PictureDecoder

    data = codec.compress(picture_of(drawn(128 * 5, 128 * 2, seed=3)), 20, lossless="never")
    most = 0
    paint = PictureDecoder._paint

    def counted(self, *arguments):
        nonlocal most
        most = max(most, len(self._latents))
        assert {latent.dtype for latent in self._latents.values()} == {torch.int16}
        paint(self, *arguments)
        if self._uses and not any(self._uses.values()):
            assert not self._latents

    monkeypatch.setattr(PictureDecoder, "_paint", counted)
    codec.decompress(data)
    assert most <= 6  # of ten: three rows of two


@pytest.mark.parametrize("value", [-(2**15), 2**15 - 1, -(2**15) - 1, 2**15, 2**24])
def test_latents_that_16_bits_cannot_hold_are_kept_as_they_are(value: int) -> None:
    from diveqcodec.decoder import _kept

    latent = torch.tensor([[[0, value]]])
    kept = _kept(latent)
    assert (kept.dtype == torch.int16) == (-(2**15) <= value < 2**15)
    assert kept.tolist() == latent.tolist()
