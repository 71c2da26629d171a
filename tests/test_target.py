"""Targets: sizes from below, PSNR from above, few encodes, and the nearest where there is none."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest

from diveqcodec.codec import Codec
from diveqcodec.container import bitstream
from diveqcodec.errors import ConfigError
from diveqcodec.image import Picture
from diveqcodec.target import MAX_ENCODES, MAX_QUICK_ENCODES, Target, search, visible_psnr
from tests.support.places import ROOT
from tests.support.tiny import drawn, picture_of

PICTURE = Picture(np.full((100, 100, 3), 100, np.uint8))


@dataclass
class Made:
    """A codec of curves: sizes, and an error of every pixel that gives a PSNR."""

    start: float = 300.0
    slope: float = 0.04
    bend: float = 0.0
    noise: float = 0.0
    is_lossless_from: float = 101.0
    tried: list[float] = field(default_factory=list)

    def compress(self, picture: Picture, quality: float, effort: int) -> bytes:
        assert effort == 5
        self.tried.append(quality)
        x = quality - 1
        log = math.log(self.start) + self.slope * x + self.bend * x * x / 100
        log += self.noise * math.sin(quality * 1e4)
        return repr(quality).encode().ljust(round(math.exp(log)), b"\0")

    def decompress(self, data: bytes) -> Picture:
        quality = float(data.rstrip(b"\0"))
        wanted = 25 + 0.15 * quality + self.bend * quality
        if quality >= self.is_lossless_from:
            return PICTURE
        squares = 255**2 / 10 ** (wanted / 10)  # on average: some of the samples are off by 20
        pixels = PICTURE.pixels.astype(int).reshape(-1)
        pixels[: round(squares / 400 * pixels.size)] += 20
        return Picture(pixels.reshape(PICTURE.pixels.shape).astype(np.uint8))


@pytest.mark.parametrize("slope", [0.02, 0.04, 0.07])
@pytest.mark.parametrize("bend", [-0.015, 0.0, 0.02])
@pytest.mark.parametrize("noise", [0.0, 0.001])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.77, 0.99])
def test_sizes_from_below(slope: float, bend: float, noise: float, share: float) -> None:
    coder = Made(3000, slope, bend, noise)
    wanted = len(coder.compress(PICTURE, 1 + 99 * share, 5))
    coder.tried.clear()
    found = search(coder, PICTURE, Target("size", wanted), 5)
    assert found.is_reached
    assert 0.99 * wanted <= len(found.data) <= wanted
    assert found.value == len(found.data)
    assert found.encodes == len(coder.tried) <= 6
    bits = search(coder, PICTURE, Target("bpp", 8 * wanted / 10_000), 5)
    assert 0.99 * wanted <= len(bits.data) <= wanted
    assert bits.value == pytest.approx(8 * len(bits.data) / 10_000)


@pytest.mark.parametrize("bend", [-0.05, 0.0, 0.05])
@pytest.mark.parametrize("wanted", [26.0, 30.0, 33.3, 34.0])
def test_psnr_from_above(wanted: float, bend: float) -> None:
    coder = Made(bend=bend)
    found = search(coder, PICTURE, Target("psnr", wanted), 5)
    assert found.is_reached
    assert wanted <= found.value <= wanted + 0.05
    assert found.value == visible_psnr(PICTURE, coder.decompress(found.data))
    assert found.encodes <= 6


@pytest.mark.parametrize(
    ("target", "quality"),
    [
        (Target("size", 10), 1.0),
        (Target("size", 10**8), 100.0),
        (Target("psnr", 5.0), 1.0),
        (Target("psnr", 90.0), 100.0),
        (Target("psnr", 1e308), 100.0),
        (Target("bpp", 1e308), 100.0),
        (Target("size", 10**20), 100.0),
    ],
)
def test_out_of_reach_is_the_nearest(target: Target, quality: float) -> None:
    found = search(Made(), PICTURE, target, 5)
    assert not found.is_reached
    assert found.quality == quality
    assert found.encodes <= 4


def test_coarse_sizes_give_the_nearest_that_is_not_larger() -> None:
    class Coarse(Made):
        def compress(self, picture: Picture, quality: float, effort: int) -> bytes:
            return super().compress(picture, quality // 10 * 10, effort)

    coder = Coarse(start=1000)
    found = search(coder, PICTURE, Target("size", 6900), 5)  # 7,099 is nearer, but larger
    assert not found.is_reached
    assert len(found.data) == len(coder.compress(PICTURE, 40, 5)) < 6900
    assert found.encodes <= MAX_ENCODES


def test_a_knee_of_the_curve_is_no_trap() -> None:
    class Knee(Made):
        """Next to flat up to a quality, and steep from there on."""

        def compress(self, picture: Picture, quality: float, effort: int) -> bytes:
            return super().compress(picture, quality / 20 + max(0, quality - 70) * 3, effort)

    coder = Knee()
    for quality in (71.0, 75.0, 80.0):
        wanted = len(coder.compress(PICTURE, quality, 5))
        coder.tried.clear()
        found = search(coder, PICTURE, Target("size", wanted), 5)
        assert 0.99 * wanted <= len(found.data) <= wanted
        assert found.encodes == len(coder.tried) <= MAX_ENCODES


def test_small_pictures_are_worth_more_tries() -> None:
    class Step(Made):
        """Sizes that jump over the target at a quality that is hard to guess."""

        def compress(self, picture: Picture, quality: float, effort: int) -> bytes:
            return super().compress(picture, quality + 40 * (quality > 61.803), effort)

    large = Picture(np.zeros((257, 256, 1), np.uint8))
    target = Target("size", 8000)
    one, other = search(Step(), PICTURE, target, 5), search(Step(), large, target, 5)
    assert not one.is_reached
    assert not other.is_reached
    assert other.encodes == MAX_ENCODES < one.encodes <= MAX_QUICK_ENCODES
    assert one.quality == pytest.approx(61.803, abs=0.1)


def test_a_step_to_lossless_is_no_trap() -> None:
    found = search(Made(is_lossless_from=40.0), PICTURE, Target("psnr", 28.0), 5)
    assert found.is_reached
    assert 28 <= found.value <= 28.05
    found = search(Made(is_lossless_from=40.0), PICTURE, Target("psnr", 60.0), 5)
    assert not found.is_reached
    assert found.value == math.inf


def test_a_slow_effort_begins_where_a_quick_one_ends() -> None:
    class Slow(Made):
        def compress(self, picture: Picture, quality: float, effort: int) -> bytes:
            efforts.append(effort)
            size = len(super().compress(picture, quality, 5))
            return repr(quality).encode().ljust(size - (effort == 9) * size // 30, b"\0")

    efforts: list[int] = []
    found = search(Slow(3000), PICTURE, Target("size", 20_000), 9)
    assert found.is_reached
    assert 19_800 <= len(found.data) <= 20_000
    assert found.encodes == len(efforts)
    assert efforts == sorted(efforts)
    assert efforts.count(5) > 1
    assert 1 <= efforts.count(9) <= 2


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_targets_that_no_picture_has(value: float) -> None:
    with pytest.raises(ConfigError, match="must be above 0"):
        Target("bpp", value)
    with pytest.raises(ConfigError, match="of so many digits: must be above 0"):
        Target("size", -(10**400))


def test_psnr_is_of_what_can_be_seen() -> None:
    pixels = np.zeros((4, 4, 1), np.uint8)
    alpha = np.full((4, 4), 255, np.uint8)
    alpha[0] = 0
    other = pixels.copy()
    other[0] = 255
    assert visible_psnr(Picture(pixels, alpha), Picture(other)) == math.inf
    other[1, 0] = 51
    assert visible_psnr(Picture(pixels, alpha), Picture(other)) == pytest.approx(
        10 * math.log10(25 * 12), abs=1e-9
    )


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_a_real_codec(codec: Codec, share: float) -> None:
    picture = picture_of(drawn(128, 160, 3))
    wanted = len(codec.compress(picture, 1 + 99 * share))
    found = search(codec, picture, Target("size", wanted), 5)
    assert found.is_reached
    assert 0.99 * wanted <= len(found.data) <= wanted
    assert found.encodes <= 8  # sizes of the tiny model go up and down, too
    assert bitstream.read_header(found.data).width == 160
    assert codec.compress(picture, found.quality, 5) == found.data
    sharp = visible_psnr(picture, codec.decompress(found.data))
    found = search(codec, picture, Target("psnr", sharp), 5)
    # The tiny model's PSNR goes up and down with quality by more than the tolerance.
    assert abs(found.value - sharp) <= 0.5
    assert found.value == visible_psnr(picture, codec.decompress(found.data))
    assert found.encodes <= MAX_QUICK_ENCODES


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [30.0, 36.0])
@pytest.mark.parametrize("bpp", [0.25, 1.0])
def test_the_shipped_weights(wanted: float, bpp: float) -> None:
    from diveqcodec import zoo
    from diveqcodec.image import load

    codec = Codec(zoo.load())
    picture = load(ROOT / "sample_images" / "cat.png")
    found = search(codec, picture, Target("bpp", bpp), 5)
    assert found.is_reached
    assert 0.99 * bpp <= found.value <= bpp
    assert found.encodes <= 6
    found = search(codec, picture, Target("psnr", wanted), 5)
    assert found.is_reached
    assert wanted <= found.value <= wanted + 0.05
    assert found.encodes <= 6
