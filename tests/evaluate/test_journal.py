"""Rows of a journal are taken only where they are what would be measured now."""

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

from diveqcodec.codec import Codec
from diveqcodec.errors import DiveqError
from diveqcodec.evaluate import baselines, libraries
from diveqcodec.evaluate.anchors import ANCHORS, anchor
from diveqcodec.evaluate.baselines import LearnedBaseline
from diveqcodec.evaluate.dvq import DvqCodec
from diveqcodec.evaluate.journal import Journal
from diveqcodec.evaluate.results import Results
from diveqcodec.evaluate.run import Folders, ImageCodec, evaluate
from diveqcodec.exact.weights import CodingModel
from diveqcodec.image import Picture
from tests.support.learned import ARCHITECTURE, save_checkpoint, with_compressai
from tests.support.rounding import Rounding


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two pictures."""
    paths = [tmp_path / "in" / name for name in ("a.png", "b.png")]
    paths[0].parent.mkdir()
    for number, path in enumerate(paths):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    return paths


class Silent:
    """`Rounding` that does not say what its bits are spent on."""

    name = "rounding"
    description = ""

    def __init__(self) -> None:
        self.codec = Rounding()

    def compress(self, picture: Picture, quality: float) -> bytes:
        return self.codec.compress(picture, quality)

    def decompress(self, data: bytes) -> Picture:
        return self.codec.decompress(data)


@dataclass
class Standing(Rounding):
    """Stands on a library."""

    library: str = "1"

    def basis(self, quality: float) -> str:
        return f"{self.library} for {quality:g}"


def measured(codec: ImageCodec, files: list[Path], folder: Path, *qualities: float) -> Results:
    with Journal(folder / "journal") as journal:
        return evaluate(codec, files, qualities, Folders(folder / "work"), journal=journal)


def test_rows_without_parts_are_measured_again_where_parts_are_wanted(
    files: list[Path], tmp_path: Path
) -> None:
    measured(Silent(), files[:1], tmp_path, 8)
    speaking = Rounding()
    found = measured(speaking, files, tmp_path, 8)
    assert speaking.calls.count("compress") == 3  # both pictures, and a warm-up
    assert [dict(row.parts) for row in found.rows] == [{"header": 24, "pixels": 14400}] * 2
    again = Rounding()
    assert measured(again, files, tmp_path, 8) == found
    assert again.calls == []


@pytest.mark.parametrize(
    ("key", "number"),
    [("bytes", "1e400"), ("psnr_rgb", "NaN"), ("psnr_rgb", "Infinity"), ("encoding_seconds", "NaN")],
)
def test_a_number_that_no_row_has_is_damage(
    files: list[Path], tmp_path: Path, key: str, number: str
) -> None:
    measured(Silent(), files, tmp_path, 8, 1)
    path = tmp_path / "journal"
    lines = path.read_text().splitlines(keepends=True)
    assert '"psnr_rgb": null' in lines[2]  # quality 1 is lossless
    lines[3] = re.sub(f'"{key}": [^,]+', f'"{key}": {number}', lines[3])
    path.write_text("".join(lines))
    with pytest.raises(DiveqError, match="journal: line 4 is damaged; delete the line"):
        Journal(path)
    path.write_text("".join([*lines[:3], "[" * 100_000 + "\n"]))
    with pytest.raises(DiveqError, match="line 4 is damaged"):
        Journal(path)


def test_parts_that_nobody_wants_are_left_out(files: list[Path], tmp_path: Path) -> None:
    spoken = measured(Rounding(), files, tmp_path, 8)
    silent = Silent()
    found = measured(silent, files, tmp_path, 8)
    assert silent.codec.calls == []
    assert [row.size for row in found.rows] == [row.size for row in spoken.rows]
    assert found.points()[0].parts == {}


def test_what_a_codec_stands_on_counts_at_every_quality(files: list[Path], tmp_path: Path) -> None:
    measured(Standing(), files, tmp_path, 8, 4)
    for library, count in (("1", 0), ("2", 4), ("1", 0), ("2", 0)):
        codec = Standing(library=library)
        measured(codec, files, tmp_path, 8, 4)
        assert codec.calls.count("compress") == count + (count > 0)  # and a warm-up
    other = Rounding()
    measured(other, files, tmp_path, 8, 4)
    assert other.calls


@pytest.mark.parametrize("name", ANCHORS)
def test_an_anchor_stands_on_its_library(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        codec = anchor(name)
    except DiveqError as error:
        pytest.skip(str(error))
    before = codec.basis(50)
    assert any(digit in before for digit in "123456789")
    monkeypatch.setattr(features, "version", lambda feature: "another")
    monkeypatch.setattr("importlib.metadata.version", lambda package: "another")
    assert codec.basis(50) != before
    assert "another" in codec.basis(50)


def test_ours_stands_on_the_precision_of_its_networks(tiny_model: CodingModel) -> None:
    codecs = [DvqCodec(Codec(tiny_model, dtype)) for dtype in (torch.float32, torch.bfloat16)]
    assert codecs[0].basis(50) != codecs[1].basis(50)
    assert codecs[0].description == codecs[1].description


@with_compressai
def test_a_baseline_stands_on_its_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (save_checkpoint(tmp_path / f"{seed}.pth", seed) for seed in (3, 4))
    same = tmp_path / "moved.pth"
    same.write_bytes(old.read_bytes())
    before = LearnedBaseline(ARCHITECTURE, {1: old, 2: old})
    after = LearnedBaseline(ARCHITECTURE, {1: same, 2: new})
    assert before.basis(1) == after.basis(1)
    assert before.basis(2) != after.basis(2)
    bases = {before.basis(1)}
    before._device = torch.device("cuda")
    bases.add(before.basis(1))
    monkeypatch.setattr(baselines, "version_of", lambda package: f"another {package}")
    bases.add(before.basis(1))
    assert len(bases) == 3


def test_a_package_that_pip_does_not_know_has_a_version() -> None:
    assert importlib.util.find_spec("nonsuch_package") is None
    assert libraries.version_of("nonsuch-package") == "not installed as a package"
    assert libraries.version_of("pillow")[0].isdigit()
