"""Pictures for training: found, refused, cropped; and the trade-offs of a step."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from diveqcodec.errors import TrainingError
from diveqcodec.train import data
from diveqcodec.train.config import DataConfig
from tests.support.tiffs import page, raw_like, tiff
from tests.support.training import draw_pictures

CPU = torch.device("cpu")


def test_only_usable_pictures_are_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    draw_pictures(tmp_path / "deep" / "er", 2)
    draw_pictures(tmp_path / ".hidden", 1)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing else")
    cut = (tmp_path / "deep" / "er" / "picture-00.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(cut[: len(cut) // 2])
    Image.new("RGB", (63, 500)).save(tmp_path / "narrow.png")
    Image.new("LA", (64, 64)).save(tmp_path / "grey.png")
    (tmp_path / "grey.png").rename(tmp_path / "grey")  # content counts, not the name
    (tmp_path / "moved.png").symlink_to("nowhere")
    loaded = data.load(tmp_path, 64, CPU)
    assert loaded.names == ["deep/er/picture-00.png", "deep/er/picture-01.png", "grey"]
    assert [line.partition(":")[0] for line in loaded.skipped] == [
        "broken.png",
        "cut.png",
        "moved.png",
        "narrow.png",
        "notes.txt",
    ]
    assert loaded.skipped[0] == "broken.png: not an image that Pillow can read"
    assert loaded.skipped[1].startswith("cut.png: cannot be decoded (")
    assert "63x500 is smaller than the crop of 64" in loaded.skipped[3]
    assert loaded.skipped[2] == "moved.png: no such file"
    assert caplog.text.count("left out") == 5


def test_names_need_not_be_utf8(tmp_path: Path) -> None:
    """Their hash is that of their bytes, as it is of other names."""
    draw_pictures(tmp_path, 10)
    name = os.fsdecode(b"caf\xe9.png")
    try:
        (tmp_path / "picture-00.png").rename(tmp_path / name)
    except OSError:
        pytest.skip("names are UTF-8 here")
    loaded = data.load(tmp_path, 64, CPU)
    assert loaded.names[0] == name
    joined = b"\n".join(map(os.fsencode, loaded.names))
    assert loaded.summary() == {
        "pictures": 10,
        "names_sha256": hashlib.sha256(joined).hexdigest()[:16],
    }
    assert [len(part.names) for part in loaded.split(16)] == [9, 1]


def test_no_preview_is_trained_on(tmp_path: Path) -> None:
    """A camera's raw file is left out with its remedy; the full page of a TIFF is taken."""
    random = np.random.default_rng(0)
    full = random.integers(0, 256, (80, 96, 3), dtype=np.uint8)
    preview = random.integers(0, 256, (70, 70, 3), dtype=np.uint8)
    (tmp_path / "raw.dng").write_bytes(tiff([raw_like(preview)]))
    (tmp_path / "scan.tif").write_bytes(tiff([page(preview, 2, t254=1), page(full, 2)]))
    loaded = data.load(tmp_path, 64, CPU)
    assert loaded.names == ["scan.tif"]
    np.testing.assert_array_equal(loaded.tensors[0].permute(1, 2, 0).numpy(), full)
    assert loaded.skipped == [
        "raw.dng: a camera's raw file (EXAMPLE), not developed; "
        "make a TIFF or PNG of it first, such as with rawpy"
    ]


def test_many_files_left_out_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    draw_pictures(tmp_path, 1)
    for number in range(13):
        (tmp_path / f"{number:02d}.xmp").write_text("beside a picture")
    assert len(data.load(tmp_path, 64, CPU).skipped) == 13
    assert [line.partition(":")[0] for line in caplog.messages[-2:]] == [
        "left out 09.xmp",
        "left out 3 more",
    ]


@pytest.mark.parametrize(("name", "content"), [("notes.txt", "words"), ("a.png", "garbage")])
def test_a_folder_of_no_pictures_is_one_line(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(TrainingError) as caught:
        data.load(tmp_path, 64, CPU)
    reason = f"({name}: not an image that Pillow can read)"
    assert str(caught.value) == f"{tmp_path}: no usable picture of 1 {reason}"


def test_pictures_are_trained_on_as_they_are_coded(tmp_path: Path) -> None:
    """16-bit grey is not clipped to white, CMYK is turned, hidden colours are not seen."""
    ramp = np.linspace(0, 65535, 80).astype(np.uint16)
    Image.fromarray(np.tile(ramp, (64, 1))).save(tmp_path / "deep.png")
    Image.new("CMYK", (64, 64), (0, 255, 255, 0)).save(tmp_path / "print.jpg", quality=100)
    pixels = np.full((64, 64, 4), (40, 80, 120, 255), np.uint8)
    pixels[10:30, 10:30] = (255, 0, 255, 0)
    Image.fromarray(pixels).save(tmp_path / "window.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing else")
    loaded = data.load(tmp_path, 64, CPU)
    assert loaded.names == ["deep.png", "print.jpg", "window.png"]
    assert [line.partition(":")[0] for line in loaded.skipped] == ["broken.png"]
    deep, printed, window = loaded.tensors
    wanted = torch.from_numpy(np.round(ramp / 257).astype(np.uint8))
    assert torch.equal(deep, wanted.expand(3, 64, 80))
    red = torch.tensor([255.0, 0.0, 0.0])[:, None, None]
    torch.testing.assert_close(printed.float(), red.expand(3, 64, 64), atol=4.0, rtol=0)
    colour = torch.tensor([40, 80, 120], dtype=torch.uint8)[:, None, None]
    assert torch.equal(window, colour.expand(3, 64, 64))


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((400, 200), (300, 150)), ((200, 400), (150, 300)), ((900, 80), (720, 64)), ((9, 300), None)],
)
def test_large_pictures_are_shrunk_as_far_as_crops_fit(
    tmp_path: Path, size: tuple[int, int], wanted: tuple[int, int] | None
) -> None:
    width, height = size
    columns = np.arange(width) * 255 // width
    grey = np.broadcast_to(columns.astype(np.uint8), (height, width))
    Image.fromarray(np.ascontiguousarray(grey)).save(tmp_path / "a.png")
    if wanted is None:
        with pytest.raises(TrainingError, match="9x300 is smaller than the crop of 64"):
            data.load(tmp_path, 64, CPU, 300)
        return
    loaded = data.load(tmp_path, 64, CPU, 300)
    (picture,) = loaded.tensors
    assert tuple(picture.shape) == (3, wanted[1], wanted[0])
    assert loaded.megabytes == 3 * wanted[0] * wanted[1] / 1e6
    ramp = torch.arange(wanted[0]) * 255.0 / wanted[0]
    torch.testing.assert_close(picture[0].float(), ramp.expand(wanted[::-1]), atol=3.0, rtol=0)
    assert data.load(tmp_path, 64, CPU).tensors[0].shape == (3, height, width)


def test_folders_without_usable_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no such folder"):
        data.load(tmp_path / "missing", 64, CPU)
    with pytest.raises(TrainingError, match="contains no pictures"):
        data.load(tmp_path, 64, CPU)
    Image.new("RGB", (8, 8)).save(tmp_path / "small.png")
    sides = "both sides of a picture must have 16 pixels at least"
    with pytest.raises(TrainingError, match=rf"of 1 \(small.png: 8x8 .* 64\); {sides}$"):
        data.load(tmp_path, 64, CPU)
    Image.new("RGB", (200, 150)).save(tmp_path / "more.png")
    with pytest.raises(TrainingError, match=r"make crops smaller with --set data.crop=144$"):
        data.load(tmp_path, 256, CPU)


def test_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 70)).save(tmp_path / "turned.jpg", exif=exif)
    assert data.load(tmp_path, 64, CPU).tensors[0].shape == (3, 80, 70)


def test_crops_are_a_function_of_seed_and_step(tmp_path: Path) -> None:
    pictures = data.load(draw_pictures(tmp_path), 64, CPU)
    config = DataConfig(crop=64, batch=3)
    x = data.batch(pictures, config, 5, 11)
    assert x.shape == (3, 3, 64, 64)
    assert 0 <= float(x.min()) < float(x.max()) <= 1
    assert torch.equal(x, data.batch(pictures, config, 5, 11))
    assert not torch.equal(x, data.batch(pictures, config, 5, 12))
    assert not torch.equal(x, data.batch(pictures, config, 6, 11))


def test_pictures_as_large_as_the_crop_are_used_whole() -> None:
    pixels = torch.arange(3 * 64 * 64).remainder(251).view(3, 64, 64).to(torch.uint8)
    crops = data.batch(data.Pictures(["a"], [pixels], []), DataConfig(crop=64, batch=6), 0, 0)
    flipped = pixels.flip(2)
    found = crops.mul(255).round().to(torch.uint8)
    turned = sum(torch.equal(crop, flipped) for crop in found)
    assert turned + sum(torch.equal(crop, pixels) for crop in found) == 6
    assert 0 < turned < 6


def test_held_out_pictures_depend_on_names_alone(tmp_path: Path) -> None:
    pictures = data.load(draw_pictures(tmp_path, 30), 64, CPU)
    training, held_out = pictures.split(2)
    assert len(held_out.names) == 2
    assert sorted(training.names + held_out.names) == pictures.names
    turned = data.Pictures(pictures.names[::-1], pictures.tensors[::-1], [])
    assert set(turned.split(2)[1].names) == set(held_out.names)
    assert len(pictures.split(100)[1].names) == 3  # never more than a tenth


def test_a_share_of_the_crops_is_a_part_of_all(tmp_path: Path) -> None:
    """What a process takes does not depend on how many there are."""
    pictures = data.load(draw_pictures(tmp_path), 64, CPU)
    config = DataConfig(crop=64, batch=4)
    whole = data.batch(pictures, config, 5, 11)
    halves = [data.batch(pictures, config, 5, 11, share) for share in (range(2), range(2, 4))]
    assert torch.equal(torch.cat(halves), whole)
    assert len(whole.flatten(1).unique(dim=0)) == 4


def shares(
    values: torch.Tensor, low: float, high: float, config: DataConfig
) -> NDArray[np.float64]:
    """Where trade-offs stand in their distribution, 0 ... 1."""
    logs = np.log(values.double().numpy())
    if low < config.knee < high and config.above:
        points, at = [0.0, 1 - config.above, 1.0], np.log([low, config.knee, high])
        return np.interp(logs, at, points)
    return (logs - np.log(low)) / np.log(high / low)


@pytest.mark.parametrize(
    ("low", "high", "knee", "above"),
    [
        (0.0006, 1.5, 0.25, 0.12),
        (0.001, 0.1, 0.25, 0.12),  # the knee lies above
        (0.3, 1.5, 0.25, 0.12),  # or below: nothing is drawn more rarely
        (0.001, 0.1, 0.01, 0.0),
    ],
)
@pytest.mark.parametrize("batch", [1, 2, 3, 4, 8, 12])
def test_trade_offs_are_one_from_each_stratum(
    low: float, high: float, knee: float, above: float, batch: int
) -> None:
    config = DataConfig(batch=batch, knee=knee, above=above if knee > 0.1 or above else 0.0)
    for step in range(20):
        values = data.lambdas(low, high, config, 0, step)
        assert values.shape == (batch,)
        assert low * 0.999 < float(values.min()) <= float(values.max()) < high * 1.001
        strata = np.floor(shares(values, low, high, config) * batch + 1e-5)
        assert sorted(strata.tolist()) == list(range(batch))
        assert torch.equal(values, data.lambdas(low, high, config, 0, step))


def test_a_share_of_the_trade_offs_is_above_the_knee() -> None:
    config = DataConfig(batch=4, knee=0.25, above=0.12)
    values = torch.cat([data.lambdas(0.0006, 1.5, config, 0, step) for step in range(1000)])
    assert float((values > 0.25).float().mean()) == pytest.approx(0.12, abs=0.01)
    assert float((values > (0.25 * 1.5) ** 0.5).float().mean()) == pytest.approx(0.06, abs=0.01)
    assert float((values < (0.25 * 0.0006) ** 0.5).float().mean()) == pytest.approx(0.44, abs=0.01)


@pytest.mark.parametrize("batch", [4, 8, 16])
def test_every_part_of_a_batch_has_as_many_high_trade_offs(batch: int) -> None:
    """Of each two neighbours one is above the median, of each four one in every quarter."""
    config, seen = DataConfig(batch=batch), set()
    for step in range(40):
        values = data.lambdas(0.0006, 1.5, config, 0, step)
        strata = values.argsort().argsort()
        seen.add(tuple(strata.tolist()))
        for size in (2, 4):
            for part in strata.view(-1, size):
                assert sorted((part * size // batch).tolist()) == list(range(size))
    assert len(seen) > 3  # and who gets which changes


def test_no_more_pictures_are_read_than_are_wanted(tmp_path: Path) -> None:
    draw_pictures(tmp_path, 5)
    (tmp_path / "picture-03.png").write_bytes(b"never looked at")
    loaded = data.load(tmp_path, 64, CPU, limit=3)
    assert loaded.names == [f"picture-0{number}.png" for number in range(3)]
    assert not loaded.skipped
    assert len(data.load(tmp_path, 64, CPU).names) == 4
