"""Efforts 7 and 9: never dearer than 5, any picture, by tiles, the same bytes every time."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from diveqcodec import codec as codecroom
from diveqcodec import refinement, zoo
from diveqcodec.codec import Codec
from diveqcodec.container import bitstream, filters
from diveqcodec.container.bitstream import Tile
from diveqcodec.errors import ModelError
from diveqcodec.exact import weights
from diveqcodec.exact.tile import Tally
from diveqcodec.image import Picture
from diveqcodec.model.candidates import GRID_BITS
from diveqcodec.model.refine import refine
from diveqcodec.quality import gain_index, lambda_of
from diveqcodec.refinement import TileView
from diveqcodec.windows import Networks
from tests.support.coders import decoded_tiles
from tests.support.places import GOLDEN
from tests.support.tiles import cut_into
from tests.support.tiny import TINY, drawn, picture_of, trained
from tests.support.wieners import unfiltered


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a tiny model with what training left in them."""
    path = tmp_path_factory.mktemp("weights") / "whole.safetensors"
    weights.save(trained(TINY, 30)[0], path, {})
    return path


@pytest.fixture(scope="module")
def codec(path: Path) -> Codec:
    return Codec(weights.load(path), networks=torch.float32)


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecroom, "ROUNDS", {7: 2, 9: 4})


def cost_of(codec: Codec, picture: Picture, data: bytes, quality: float) -> float:
    """Bits of a file, and its squared error in bits at the quality asked for."""
    decoded = codec.decompress(data)
    error = np.square(decoded.pixels.astype(float) - picture.pixels).mean(axis=2)
    if picture.alpha is not None:
        error = error * (picture.alpha > 0)
    return 8 * len(data) + lambda_of(TINY.scale.log_gain(gain_index(quality))) * error.sum()


def test_weights_that_were_replaced_do_not_refine(tmp_path: Path, path: Path) -> None:
    own = tmp_path / "own.safetensors"
    shutil.copy(path, own)
    late = Codec(weights.load(own), networks=torch.float32)
    weights.save(trained(TINY, 31)[0], own, {})
    with pytest.raises(
        ModelError, match=f"own.safetensors: is model .* now, not {zoo.find(path).model_id}"
    ):
        late.compress(picture_of(drawn(20, 20, 3)), effort=7)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("is_transparent", [False, True])
def test_no_dearer_than_without(codec: Codec, channels: int, is_transparent: bool) -> None:
    pixels = drawn(90, 75, 12)[..., :channels].copy()
    alpha = None
    if is_transparent:
        alpha = np.full((90, 75), 255, np.uint8)
        alpha[20:70, 30:] = 0
    picture = Picture(pixels, alpha, None, None, None)
    gained = []
    for quality in (20, 60, 95):
        files = [codec.compress(picture, quality, effort, lossless="never") for effort in (5, 7, 9)]
        costs = [cost_of(codec, picture, data, quality) for data in files]
        gained.append(1 - costs[2] / costs[0])
        assert costs[1] <= costs[0] * (1 + 1e-9)
        assert costs[2] <= costs[0] * (1 + 1e-9)
        decoded = codec.decompress(files[2])
        assert decoded.pixels.shape == pixels.shape
        assert (decoded.alpha is None) == (alpha is None)
    assert max(gained) > 0.003


@pytest.mark.parametrize("size", [(1, 1), (1, 37), (18, 2), (16, 16)])
def test_small_pictures(codec: Codec, size: tuple[int, int]) -> None:
    picture = picture_of(drawn(*size, seed=3))
    usual, more = (codec.compress(picture, 70, effort, lossless="never") for effort in (5, 9))
    assert codec.decompress(more).pixels.shape == picture.pixels.shape
    assert cost_of(codec, picture, more, 70) <= cost_of(codec, picture, usual, 70) * (1 + 1e-9)


def test_what_is_dearer_is_not_kept(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    picture, qualities = picture_of(drawn(90, 75, 12)), (20, 60, 95)

    def payloads(effort: int) -> list[bytes]:
        files = (codec.compress(picture, q, effort, lossless="never") for q in qualities)
        tiles = (bitstream.read(data).tiles[0] for data in files)
        return [tile.payload for tile in tiles if tile is not None]

    usual = payloads(5)
    assert payloads(9) != usual
    monkeypatch.setattr(refinement, "refine", lambda _model, y, *_rest: y * 1.5)
    assert payloads(9) == usual


def test_the_same_bytes_every_time(codec: Codec, path: Path) -> None:
    picture = picture_of(drawn(97, 120, 4))
    data = codec.compress(picture, 50, 9)
    assert codec.compress(picture, 50, 9) == data
    assert Codec(weights.load(path), networks=torch.float32).compress(picture, 50, 9) == data


def test_tiles_one_by_one(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only photographs among the tiles are refined, and what is told of it adds up."""
    cut_into(monkeypatch, 128)
    pixels = drawn(200, 256, 21)
    pixels[:, 128:] = np.indices((200, 128)).sum(0)[..., None] // 5 % 2 * 255
    told: list[tuple[int, int]] = []
    picture = picture_of(pixels)
    refined: list[int] = []
    original = refine

    def spy(*arguments):
        refined.append(arguments[4])
        return original(*arguments)

    monkeypatch.setattr(refinement, "refine", spy)
    data = codec.compress(picture, 30, 7, progress=lambda *news: told.append(news))
    tiles = bitstream.read(data).tiles
    lossless = sum(tile is None for tile in tiles)
    assert 0 < lossless < len(tiles)
    assert refined == [2] * (len(tiles) - lossless)
    done, total = zip(*told, strict=True)
    assert set(total) == {3 * len(tiles)}
    assert list(done) == sorted(set(done))
    assert done[-1] == total[0]
    usual = codec.compress(picture, 30, 5)
    # each tile by itself is no dearer; of what it does to its neighbours it knows nothing
    assert cost_of(codec, picture, data, 30) <= cost_of(codec, picture, usual, 30) * 1.001
    monkeypatch.setattr(codec, "workers", 3)
    assert codec.compress(picture, 30, 7) == data


def test_lossless_and_flat_pictures_take_no_rounds(
    codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refinement, "refine", None)
    picture = picture_of(drawn(40, 50, 2))
    exact = codec.compress(picture, 50, 9, lossless="always")
    assert (codec.decompress(exact).pixels == picture.pixels).all()
    flat = picture_of(np.full((40, 50, 3), 77, np.uint8))
    assert codec.compress(flat, 50, 9) == codec.compress(flat, 50, 5)


@pytest.mark.parametrize(
    ("effort", "has_mirror"), [(1, False), (3, False), (5, True), (7, True), (9, True)]
)
def test_a_file_says_whether_networks_see_the_mirror_image(
    codec: Codec, effort: int, has_mirror: bool
) -> None:
    data = codec.compress(picture_of(drawn(50, 70, 3)), 50, effort, lossless="never")
    file = bitstream.read(data)
    assert file.header.has_mirror == has_mirror
    changed = replace(file, header=replace(file.header, has_mirror=not has_mirror))
    pixels = codec.decompress(data).pixels
    assert (codec.decompress(bitstream.write(changed)).pixels != pixels).any()


def test_lossless_files_have_no_mirror(codec: Codec) -> None:
    data = codec.compress(picture_of(drawn(50, 70, 3)), 50, 9, lossless="always")
    assert not bitstream.read_header(data).has_mirror


def test_a_view_sees_what_decoding_gives(codec: Codec) -> None:
    """One tile, so no neighbour is guessed: its error is that of the decoded picture."""
    picture = picture_of(drawn(70, 85, 6))
    gain = gain_index(45)
    data = codec.compress(picture, 45, 5, lossless="never")
    networks = Networks(codec.model, codec.networks, bitstream.read_header(data).has_mirror)
    tile = Tile(0, 0, 85, 70)
    view = TileView(networks, picture, networks.window(tile, tile), gain, is_grey=False)
    (coded,) = decoded_tiles(codec, data)

    def error_of(data: bytes) -> float:
        difference = codec.decompress(data).pixels.astype(float) - picture.pixels
        return float(np.square(difference).mean(axis=2).sum())

    (sent,) = bitstream.read(data).tiles
    assert sent is not None
    assert sent.filters
    found = filters.unpack(sent.filters, 3)
    assert view.exact_error(coded.latent, found) == pytest.approx(error_of(data), rel=1e-6)
    expected = error_of(unfiltered(data))
    assert expected != pytest.approx(error_of(data), rel=1e-3)
    nothing = None, None, None
    assert view.exact_error(coded.latent, nothing) == pytest.approx(expected, rel=1e-6)
    y_hat = (coded.latent.float() * 2.0**-GRID_BITS).permute(2, 0, 1)[None]
    assert float(view.error(y_hat)) == pytest.approx(expected, rel=0.02)


def test_bits_are_tallied_once(codec: Codec) -> None:
    picture, tally = picture_of(drawn(64, 80, 9)), Tally()
    data = codec.compress_at(picture, gain_index(60), 9, tally)
    (alone,) = bitstream.read(data).tiles
    assert alone is not None
    assert alone.filters is None
    ideal = sum(bits for part, bits in codec.parts(data).items() if part.startswith("slice"))
    assert sum(tally.bits.values()) == pytest.approx(ideal, rel=0.01)


def test_weights_that_training_left_nothing_in() -> None:
    bare = Codec(weights.load(GOLDEN / "tiny.safetensors"))
    picture = picture_of(drawn(20, 20, 1))
    for effort in (7, 9):
        with pytest.raises(ModelError, match="efforts above 5 need that; use -e 5"):
            bare.compress(picture, 50, effort)
    assert bare.compress(picture, 50, 5)


def test_weights_that_are_gone(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "gone.safetensors"
    copy.write_bytes(path.read_bytes())
    codec = Codec(weights.load(copy))
    copy.unlink()
    with pytest.raises(ModelError, match="gone.safetensors: not a weights file"):
        codec.compress(picture_of(drawn(20, 20, 1)), 50, 7)
