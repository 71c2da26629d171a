import sys

import numpy as np
import pytest
from PIL import features

from diveqcodec.errors import ConfigError, DiveqError
from diveqcodec.evaluate import anchors, offered
from diveqcodec.evaluate.anchors import ANCHORS, anchor, parse
from diveqcodec.evaluate.metrics import Pixels, psnr
from diveqcodec.image import Picture

SIGNATURES = {
    "jpeg": b"\xff\xd8\xff",
    "jpeg2000": b"\xff\x4f\xff\x51",
    "webp": b"RIFF",
    "jxl": b"\xff\x0a",
}


def drawn(height: int, width: int) -> Pixels:
    rows, columns = np.mgrid[:height, :width]
    waves = np.sin(rows / 7) * np.cos(columns / 5)
    noise = np.random.default_rng(0).normal(0, 8, (height, width, 3))
    colours = np.stack([128 + 90 * waves, rows * 255 / height, columns * 255 / width], axis=-1)
    return (colours + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture(params=sorted(ANCHORS))
def codec(request: pytest.FixtureRequest) -> anchors.Anchor:
    try:
        return anchor(request.param)
    except DiveqError as error:
        pytest.skip(str(error))


def test_rate_and_psnr_rise_along_the_grid(codec: anchors.Anchor) -> None:
    picture = Picture(drawn(96, 120))
    grid = codec.qualities[:: len(codec.qualities) // 3]
    files = [codec.compress(picture, quality) for quality in grid]
    assert files[0].startswith(SIGNATURES.get(codec.name, b"\x00\x00\x00"))
    sizes = [len(data) for data in files]
    assert sizes == sorted(set(sizes))
    values = [psnr(picture.pixels, codec.decompress(data).pixels) for data in files]
    assert values == sorted(set(values))
    assert values[-1] - values[0] > 3


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 37), (37, 1), (17, 31)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_and_grey(codec: anchors.Anchor, height: int, width: int, channels: int) -> None:
    picture = Picture(np.ascontiguousarray(drawn(height, width)[:, :, :channels]))
    decoded = codec.decompress(codec.compress(picture, codec.qualities[-1])).pixels
    assert decoded.shape[:2] == (height, width)
    assert decoded.dtype == np.uint8
    assert psnr(picture.pixels, decoded) > 12


def test_grey_is_coded_as_grey() -> None:
    picture = Picture(np.ascontiguousarray(drawn(40, 50)[:, :, :1]))
    for name in ("jpeg", "jpeg2000"):
        codec = anchor(name)
        assert codec.decompress(codec.compress(picture, codec.qualities[3])).pixels.shape[2] == 1


def test_jpeg2000_meets_the_rate_asked_for() -> None:
    picture = Picture(drawn(256, 256))
    for rate in (0.5, 2):
        data = anchor("jpeg2000").compress(picture, rate)
        assert 8 * len(data) / 256**2 == pytest.approx(rate, rel=0.1)


def test_jpeg2000_transforms_colours() -> None:
    data = anchor("jpeg2000").compress(Picture(drawn(64, 64)), 2)
    style = data.index(b"\xff\x52")  # COD: length 2, style 1, progression 1, layers 2, transform 1
    assert data[style + 8] == 1


def test_quality_out_of_bounds(codec: anchors.Anchor) -> None:
    for quality in (-1, codec.bounds[1] + 1, float("nan")):
        with pytest.raises(ConfigError, match=f"{codec.name}: quality .* is not in"):
            codec.compress(Picture(drawn(8, 8)), quality)


def test_bytes_of_another_format(codec: anchors.Anchor) -> None:
    for data in (b"", b"nothing of the sort", codec.compress(Picture(drawn(40, 40)), 20)[:-60]):
        with pytest.raises(DiveqError, match=f"{codec.name}: cannot decode"):
            codec.decompress(data)


def test_the_names_offered_are_those_that_exist() -> None:
    assert tuple(ANCHORS) == offered.ANCHORS


def test_settings_are_part_of_the_name() -> None:
    slow = parse("avif:speed=3")
    assert (slow.name, parse("avif:speed=6").name) == ("avif-speed3", "avif")
    assert "speed 3" in slow.description
    assert "speed 6" in parse("avif").description
    assert "{" not in "".join(parse(name).description for name in ANCHORS)


def test_settings_change_the_bytes() -> None:
    picture = Picture(drawn(96, 120))
    for name, specs in (("avif", ("avif:speed=9", "avif")), ("webp", ("webp:method=0", "webp"))):
        if not anchors.is_installed(name):
            pytest.skip(f"this Pillow has no {name}")
        fast, usual = (anchor(spec).compress(picture, 60) for spec in specs)
        assert fast != usual, name
        assert usual == anchor(name).compress(picture, 60)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("avif:speed=11", "avif:speed=11: speed is a whole number from 0 to 10"),
        ("avif:speed=-1", "speed is a whole number"),
        ("avif:speed=", "speed is a whole number"),
        ("avif:speed=6,pace=1", "avif has no setting 'pace'; there are: speed"),
        ("avif:", "avif has no setting ''"),
        ("jpeg:speed=1", "jpeg has no setting 'speed'; there are: none"),
    ],
)
def test_settings_that_do_not_exist(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(spec)


def test_jxl_needs_its_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    with pytest.raises(DiveqError, match="pillow_jxl: not installed; .* pillow-jxl-plugin"):
        anchor("jxl")


def test_unknown_anchor() -> None:
    with pytest.raises(ConfigError, match="heic: no such anchor; there are: jpeg, jpeg2000, webp"):
        anchor("heic")


def test_a_pillow_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda feature: feature != "avif")
    assert anchor("jpeg").name == "jpeg"
    with pytest.raises(DiveqError, match="avif: this Pillow was built without it"):
        anchor("avif")


def test_too_large_for_the_format() -> None:
    with pytest.raises(DiveqError, match="webp: cannot code this picture"):
        anchor("webp").compress(Picture(np.zeros((1, 20000, 3), np.uint8)), 50)
