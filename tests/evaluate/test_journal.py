"""Rows of a journal are taken only where they are what would be measured now."""

import importlib.util
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

from diveqcodec.codec import Codec
from diveqcodec.errors import DiveqError
from diveqcodec.evaluate import baselines, libraries
from diveqcodec.evaluate import journal as journals
from diveqcodec.evaluate.anchors import ANCHORS, anchor
from diveqcodec.evaluate.baselines import LearnedBaseline
from diveqcodec.evaluate.dvq import DvqCodec
from diveqcodec.evaluate.journal import Journal
from diveqcodec.evaluate.results import Measurement, Results
from diveqcodec.evaluate.run import Folders, ImageCodec, evaluate, in_the_way
from diveqcodec.evaluate.trials import Trial, measure
from diveqcodec.exact.weights import CodingModel
from diveqcodec.image import Picture
from tests.support.learned import ARCHITECTURE, save_checkpoint, with_compressai
from tests.support.places import ROOT
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
    [
        ("bytes", "1e400"),
        ("psnr_rgb", "NaN"),
        ("psnr_rgb", "Infinity"),
        ("encoding_seconds", "NaN"),
    ],
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


def test_two_runs_do_not_share_a_journal(files: list[Path], tmp_path: Path) -> None:
    """Each would write its rows where the other's are."""
    path = tmp_path / "journal"
    with Journal(path) as first:
        for _ in range(2):
            with pytest.raises(DiveqError, match="journal: another run adds rows to this journal"):
                Journal(path)
        evaluate(Rounding(), files, [8], Folders(tmp_path / "work"), journal=first)
    with Journal(path) as second:
        assert len(second) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="no locks")
def test_a_journal_is_free_when_its_process_is_dead(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    code = (
        "import sys, time, pathlib\n"
        "from diveqcodec.evaluate.journal import Journal\n"
        "journal = Journal(pathlib.Path(sys.argv[1]))\n"
        "print('open', flush=True)\n"
        "time.sleep(600)\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        try:
            with pytest.raises(DiveqError, match="another run adds rows"):
                Journal(path)
        finally:
            other.kill()
    with Journal(path) as journal:
        assert len(journal) == 0


def test_where_there_are_no_locks_no_row_is_lost(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "lock", lambda file: None)
    path, work = tmp_path / "journal", Folders(tmp_path / "work")
    with Journal(path) as first, Journal(path) as second:
        evaluate(Rounding(), files, [8], work, journal=first)
        evaluate(Rounding(), files, [4], work, journal=second)
        evaluate(Rounding(), files, [2], work, journal=first)
    with Journal(path) as both:
        assert len(both) == 6


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of size")
def test_a_journal_on_a_full_disk(files: list[Path], tmp_path: Path) -> None:
    import resource

    path = tmp_path / "journal"
    measured(Rounding(), files[:1], tmp_path, 8)
    size = path.stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(journal: Journal) -> None:
        (row,) = (journal.row(key) for key in journal._rows)
        assert row is not None
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, limits[1]))
        with journal:  # closing it says nothing else
            journal.add([("key", Measurement(row, ""))])

    try:
        with pytest.raises(DiveqError, match="journal: cannot be written: "):
            fill(Journal(path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.stat().st_size == size + 10
    with Journal(path) as journal:
        assert len(journal) == 1
    assert path.stat().st_size == size


@dataclass
class Meddling(Rounding):
    """Somebody else writes to the picture while it is coded."""

    file: Path = Path()
    content: bytes = b""

    def compress(self, picture: Picture, quality: float) -> bytes:
        self.file.write_bytes(self.content)
        return super().compress(picture, quality)


def test_rows_are_noted_for_the_bytes_that_were_read(files: list[Path], tmp_path: Path) -> None:
    old, new = (path.read_bytes() for path in files)
    first = measured(Meddling(file=files[0], content=new), files[:1], tmp_path, 8)
    again = Rounding()
    measured(again, files[:1], tmp_path, 8)
    assert again.calls  # nobody has measured the new content
    files[0].write_bytes(old)
    assert measured(Rounding(), files[:1], tmp_path, 8) == first


def test_a_picture_that_changes_is_named(files: list[Path], tmp_path: Path) -> None:
    """Half of its rows, or one codec's, would be those of another picture."""
    old, new = (path.read_bytes() for path in files)
    text = r"a\.png: changed while it was measured; measure it again"
    measured(Rounding(), files[:1], tmp_path, 8)

    class Between(Rounding):
        def basis(self, quality: float) -> str:  # asked for the rows that are known
            if quality == 4:
                files[0].write_bytes(new)
            return ""

    refused: list[str] = []
    for with_journal in (True, False):
        files[0].write_bytes(old)
        refused.clear()
        trials = [
            Trial(codec, (8, 4), Rounding)
            for codec in (Between(), Meddling(name="other", file=files[0], content=new))
        ]
        trials.append(Trial(Rounding(name="last"), (8, 4), Rounding))
        with Journal(tmp_path / f"{with_journal}") as journal:
            found = measure(
                *(trials, files, lambda row: None, lambda path, why: refused.append(str(why))),
                journal=journal if with_journal else None,
            )
        assert len(refused) == 1
        assert re.search(text, refused[0])
        assert [results.images for results in found.results] == [("b.png",)] * 3
    files[0].write_bytes(old)
    with pytest.raises(DiveqError, match=text):
        measured(Between(), files[:1], tmp_path, 8, 4)


def test_a_saved_picture_is_the_rows_own(files: list[Path], tmp_path: Path) -> None:
    folders = Folders(tmp_path / "work", tmp_path / "out")
    target = tmp_path / "out" / "a.png.q8.png"

    def coded(codec: Rounding) -> int:
        with Journal(tmp_path / "journal") as journal:
            evaluate(codec, files, [8], folders, journal=journal)
        return codec.calls.count("compress")

    assert coded(Rounding()) == 3  # with a warm-up
    own = target.read_bytes()
    assert coded(Rounding()) == 0
    for other in (files[0].read_bytes(), own + b"more", own[:-9]):
        target.write_bytes(other)
        assert coded(Rounding()) == 2
        assert target.read_bytes() == own
    assert coded(Rounding(description="effort 9")) == 3  # of the same pixels, by chance
    # a journal of older versions has rows alone
    path = tmp_path / "journal"
    path.write_text(re.sub(', "saved": "[^"]+"', "", path.read_text()))
    assert coded(Rounding()) == 3
    assert coded(Rounding()) == 0


def test_which_files_are_in_the_way(files: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    folders, asked = Folders(tmp_path / "work", out), (files, [8, 4], out)
    paths = [out / f"{name}.png.q{quality}.png" for name in "ab" for quality in (8, 4)]

    class Stopping(Rounding):
        def compress(self, picture: Picture, quality: float) -> bytes:
            if self.calls.count("compress") == 2:
                raise KeyboardInterrupt
            return super().compress(picture, quality)

    with Journal(tmp_path / "journal") as journal:
        assert list(in_the_way(Rounding(), *asked, journal)) == []
        with pytest.raises(KeyboardInterrupt):
            evaluate(Stopping(), files, [8, 4], folders, journal=journal)
        assert len(journal) == 0
    assert paths[0].exists()  # saved, but not noted any more
    with Journal(tmp_path / "journal") as journal:
        assert list(in_the_way(Rounding(), *asked, journal)) == []
        other = Rounding(description="another effort")
        assert list(in_the_way(other, *asked, journal)) == paths[:1]
        assert list(in_the_way(Rounding(), *asked, None)) == paths[:1]
        evaluate(Rounding(), files, [8, 4], folders, journal=journal)
        assert list(in_the_way(Rounding(), *asked, journal)) == []
        assert list(in_the_way(other, *asked, journal)) == paths
        evaluate(other, files[:1], [8], folders, journal=journal)  # by -f; of the same bytes
        paths[0].write_bytes(b"something else")
        assert list(in_the_way(Rounding(), *asked, journal)) == paths[:1]
