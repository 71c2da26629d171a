import importlib.util
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diveqcodec.errors import ConfigError, DamagedError, DiveqError, ModelError
from diveqcodec.evaluate import compressai_compat
from diveqcodec.evaluate.anchors import anchor
from diveqcodec.evaluate.baselines import LearnedBaseline
from diveqcodec.evaluate.compressai_compat import import_compressai
from diveqcodec.evaluate.journal import Journal
from diveqcodec.evaluate.metrics import Pixels, psnr
from diveqcodec.evaluate.resultfiles import results_json
from diveqcodec.evaluate.results import Results, Row, in_common
from diveqcodec.evaluate.run import Folders, Listeners, Task, evaluate
from diveqcodec.evaluate.workers import Workers
from diveqcodec.image import Picture
from diveqcodec.processes import LocalProcesses
from diveqcodec.store import Place
from tests.support.learned import ARCHITECTURE, save_checkpoint, with_compressai
from tests.support.rounding import Dying, Picky, Rounding

IGNORED = Listeners(refuse=lambda path, error: None)


def drawn(height: int, width: int) -> Pixels:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 3, columns * 2, rows + columns], axis=-1).astype(np.uint8)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two pictures of the same name in different folders, the second with transparency."""
    paths = [tmp_path / "in" / "a" / "one.png", tmp_path / "in" / "b" / "one.png"]
    for path in paths:
        path.parent.mkdir(parents=True)
    Image.fromarray(drawn(20, 30)).save(paths[0])
    transparent = np.dstack([drawn(40, 25), np.full((40, 25), 77, np.uint8)])
    Image.fromarray(transparent).save(paths[1])
    return paths


def test_rows_are_those_of_files_on_disk(files: list[Path], tmp_path: Path) -> None:
    codec, seen = Rounding(), list[Row]()
    results = evaluate(codec, files, [8, 1], Folders(tmp_path / "work"), Listeners(seen.append))
    assert list(results.rows) == seen
    assert [(row.image, row.quality) for row in seen] == [
        ("a/one.png", 8),
        ("a/one.png", 1),
        ("b/one.png", 8),
        ("b/one.png", 1),
    ]
    written = sorted((tmp_path / "work").rglob("*.rnd"))
    assert [path.stat().st_size for path in written] == [1803, 1803, 3003, 3003]
    assert [row.size for row in seen] == [1803, 1803, 3003, 3003]
    assert seen[0].bpp == pytest.approx(8 * 1803 / 600)
    first = drawn(20, 30)
    assert seen[0].psnr == pytest.approx(psnr(first, first & np.uint8(0xF8)))
    assert seen[1].psnr == math.inf
    assert seen[0].ms_ssim is None
    assert min(row.encoding_seconds for row in seen) > 0
    assert codec.calls == ["compress", "decompress"] * 5  # one warm-up


def test_points_are_means_of_per_image_values(files: list[Path], tmp_path: Path) -> None:
    results = evaluate(Rounding(), files, [8, 4], Folders(tmp_path))
    rows = [row for row in results.rows if row.quality == 8]
    point = results.points()[0]
    assert point.psnr == pytest.approx((rows[0].psnr + rows[1].psnr) / 2)
    assert point.bpp == pytest.approx((8 * 1803 / 600 + 8 * 3003 / 1000) / 2)
    assert point.parts["header"] == pytest.approx((24 / 600 + 24 / 1000) / 2)
    assert sum(point.parts.values()) == pytest.approx(point.bpp)
    assert results.images == ("a/one.png", "b/one.png")


def test_size_and_decoded_picture_come_from_the_disk(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def write_spoiled(path: Path, data: bytes) -> int:
        return write(path, data[:3] + bytes([data[3] ^ 255]) + data[4:] + b"tail")

    monkeypatch.setattr(Path, "write_bytes", write_spoiled)
    row = evaluate(Rounding(), files[:1], [1], Folders(tmp_path)).rows[0]
    assert row.size == 1803 + 4
    assert row.psnr == pytest.approx(10 * math.log10(1800))  # one value is off by 255


def test_decoded_pictures_are_saved(files: list[Path], tmp_path: Path) -> None:
    evaluate(Rounding(), files, [8], Folders(tmp_path / "work", tmp_path / "out"))
    saved = sorted((tmp_path / "out").rglob("*.png"))
    assert [path.relative_to(tmp_path / "out").as_posix() for path in saved] == [
        "a/one.png.q8.png",
        "b/one.png.q8.png",
    ]
    with Image.open(saved[0]) as image:
        assert np.array_equal(np.asarray(image), drawn(20, 30) // 8 * 8)


def test_transparency_costs_nobody_bits(files: list[Path], tmp_path: Path) -> None:
    class Strict(Rounding):
        def compress(self, picture: Picture, quality: float) -> bytes:
            assert picture.alpha is None
            return super().compress(picture, quality)

    assert evaluate(Strict(), files, [1], Folders(tmp_path)).rows[1].psnr == math.inf


def test_results_name_no_folder_of_this_machine(files: list[Path], tmp_path: Path) -> None:
    text = results_json(evaluate(anchor("jpeg"), files, [50], Folders(tmp_path / "work")))
    assert str(tmp_path) not in text
    content = json.loads(text)
    assert content["name"] == "jpeg"
    assert content["environment"]["torch"] == torch.__version__


def test_a_real_codec_through_the_loop(files: list[Path], tmp_path: Path) -> None:
    results = evaluate(anchor("jpeg"), files, [20, 80], Folders(tmp_path))
    curve = results.curve()
    assert curve.name == "jpeg"
    assert curve.psnr[0] < curve.psnr[1]
    with Image.open(tmp_path / "a" / "one.png.q20.jpg") as image:
        assert image.format == "JPEG"


def test_a_refused_picture_leaves_no_rows_and_the_rest_is_measured(
    files: list[Path], tmp_path: Path
) -> None:
    cut = files[0].with_name("cut.png")
    cut.write_bytes(files[0].read_bytes()[:70])
    refused: list[tuple[Place, str]] = []
    results = evaluate(
        Picky(),
        [cut, files[1], files[0]],
        [8, 1],
        Folders(tmp_path),
        Listeners(refuse=lambda path, error: refused.append((path, str(error)))),
    )
    assert [path for path, _ in refused] == [cut, files[1]]
    assert "cut.png" in refused[0][1]
    assert refused[1][1] == "picky: too high"
    assert [(row.image, row.quality) for row in results.rows] == [
        ("a/one.png", 8),
        ("a/one.png", 1),
    ]
    with pytest.raises(DiveqError, match="too high"):
        evaluate(Picky(), files, [8, 1], Folders(tmp_path))


def test_the_first_good_picture_warms_up(files: list[Path], tmp_path: Path) -> None:
    codec = Rounding()
    cut = files[0].with_name("cut.png")
    cut.write_bytes(files[0].read_bytes()[:70])
    evaluate(codec, [cut, files[0]], [8], Folders(tmp_path), IGNORED)
    assert codec.calls == ["compress", "decompress"] * 2


def test_pictures_in_common(files: list[Path], tmp_path: Path) -> None:
    def measured(codec: Rounding) -> Results:
        return evaluate(codec, files, [8, 1], Folders(tmp_path), IGNORED)

    picky, rounding = in_common([measured(Picky()), measured(Rounding())])
    assert picky.images == rounding.images == ("a/one.png",)
    assert [point.quality for point in rounding.points()] == [8, 1]
    assert rounding.points()[0].bpp == pytest.approx(8 * 1803 / 600)  # a mean of one picture


def timeless(results: Results) -> list[Row]:
    return [replace(row, encoding_seconds=0, decoding_seconds=0) for row in results.rows]


def test_a_journal_saves_all_work_but_what_is_new(files: list[Path], tmp_path: Path) -> None:
    path, coded = tmp_path / "journal", Folders(tmp_path / "work")
    with Journal(path) as journal:
        first = evaluate(Rounding(), files, [8, 1], coded, journal=journal)
    again, seen = Rounding(), list[Row]()
    with Journal(path) as journal:
        assert len(journal) == 4
        second = evaluate(again, files, [8, 1], coded, Listeners(seen.append), journal=journal)
    assert again.calls == []
    assert second == first  # times too, and a PSNR that is infinite
    assert seen == list(first.rows)
    moved = files[0].rename(files[0].with_name("moved.png"))
    changed = Rounding()
    drawn_anew = files[1].with_name("new.png")
    Image.fromarray(drawn(40, 25) ^ np.uint8(1)).save(drawn_anew)
    with Journal(path) as journal:
        third = evaluate(changed, [moved, drawn_anew], [1, 4], coded, journal=journal)
    # the renamed picture at one new quality, and a new picture at both; one warm-up
    assert changed.calls == ["compress", "decompress"] * 4
    assert [(row.image, row.quality) for row in third.rows] == [
        ("a/moved.png", 1),
        ("a/moved.png", 4),
        ("b/new.png", 1),
        ("b/new.png", 4),
    ]
    for other in (Rounding(description="other settings"), Rounding(name="other")):
        with Journal(path) as journal:
            evaluate(other, [moved], [1], coded, journal=journal)
        assert other.calls


def test_a_journal_knows_nothing_of_other_versions(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, coded = tmp_path / "journal", Folders(tmp_path / "work")
    with Journal(path) as journal:
        evaluate(Rounding(), files, [8], coded, journal=journal)
    monkeypatch.setattr("diveqcodec.evaluate.run.environment", lambda: {"pillow": "999"})
    codec = Rounding()
    with Journal(path) as journal:
        evaluate(codec, files, [8], coded, journal=journal)
    assert codec.calls == ["compress", "decompress"] * 3


def test_a_journal_cut_short_goes_on(files: list[Path], tmp_path: Path) -> None:
    path, coded = tmp_path / "journal", Folders(tmp_path / "work")
    with Journal(path) as journal:
        first = evaluate(Rounding(), files, [8, 1], coded, journal=journal)
    data = path.read_bytes()
    ends = [place for place, byte in enumerate(data, start=1) if byte == 10]
    for end in (0, 1, ends[0] - 1, ends[0], ends[1] - 5, ends[2], ends[-1] - 1):
        path.write_bytes(data[:end])
        codec = Rounding()
        with Journal(path) as journal:
            found = evaluate(codec, files, [8, 1], coded, journal=journal)
        assert timeless(found) == timeless(first)
        whole = max(0, sum(place <= end for place in ends) - 1)
        measured = codec.calls.count("compress") - 1  # the warm-up
        assert measured == 4 - whole
        with Journal(path) as journal:
            assert len(journal) == 4


def test_what_is_no_journal_is_left_alone(files: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "precious.txt"
    for content in (b"precious", b"{}\n", b"\n", files[0].read_bytes()):
        path.write_bytes(content)
        with pytest.raises(DiveqError, match="is no journal of diveq eval"):
            Journal(path)
        assert path.read_bytes() == content
    with Journal(tmp_path / "journal") as journal:
        evaluate(Rounding(), files, [8], Folders(tmp_path / "work"), journal=journal)
    lines = (tmp_path / "journal").read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b'{"key": "x", "row": {}}\n' + lines[1])
    with pytest.raises(DiveqError, match="line 2 is damaged"):
        Journal(path)
    with pytest.raises(DiveqError, match="cannot be"):
        Journal(tmp_path)


def test_saved_pictures_are_not_missing_because_rows_are_known(
    files: list[Path], tmp_path: Path
) -> None:
    folders = Folders(tmp_path / "work", tmp_path / "out")
    with Journal(tmp_path / "journal") as journal:
        evaluate(Rounding(), files, [8], Folders(tmp_path / "work"), journal=journal)
        evaluate(Rounding(), files, [8], folders, journal=journal)
        assert len(list((tmp_path / "out").rglob("*.png"))) == 2
        codec = Rounding()
        evaluate(codec, files, [8], folders, journal=journal)
        assert codec.calls == []


def test_refused_pictures_have_no_rows_from_a_journal(files: list[Path], tmp_path: Path) -> None:
    with Journal(tmp_path / "journal") as journal:
        evaluate(Picky(), files, [8], Folders(tmp_path), journal=journal)
        found = evaluate(Picky(), files, [8, 1], Folders(tmp_path), IGNORED, journal=journal)
    assert found.images == ("a/one.png",)


@pytest.mark.slow
def test_several_processes_find_the_same(files: list[Path], tmp_path: Path) -> None:
    cut = files[0].with_name("cut.png")
    cut.write_bytes(files[0].read_bytes()[:70])
    folders = Folders(tmp_path / "work", tmp_path / "out")
    refused, seen = list[str](), list[Row]()
    listeners = Listeners(seen.append, lambda path, error: refused.append(f"{path.name}: {error}"))
    alone = evaluate(Picky(), [cut, *files], [8, 1], folders, IGNORED)
    with Journal(tmp_path / "journal") as journal:
        together = evaluate(
            *(Picky(), [cut, *files], [8, 1], folders, listeners),
            journal=journal,
            pool=Workers(Picky, LocalProcesses(2)),
        )
        assert len(journal) == 2
    assert timeless(together) == timeless(alone)
    assert timeless(replace(together, rows=tuple(seen))) == timeless(alone)
    assert sorted(line.partition(":")[0] for line in refused) == ["cut.png", "one.png"]
    tasks = [Task(path, f"{i}.png", (8,)) for i, path in enumerate(files)]
    dead = list(Workers(Dying, LocalProcesses(2)).measure(tasks, folders))
    assert [task for task, _ in dead] == tasks
    assert all("the process at work on it died" in str(error) for _, error in dead)


def test_what_cannot_be_evaluated(files: list[Path], tmp_path: Path) -> None:
    class Cropping(Rounding):
        def decompress(self, data: bytes) -> Picture:
            return Picture(super().decompress(data).pixels[:-1])

    with pytest.raises(DiveqError, match="nothing to evaluate"):
        evaluate(Rounding(), [], [8], Folders(tmp_path))
    with pytest.raises(DiveqError, match="nothing to evaluate"):
        evaluate(Rounding(), files, [], Folders(tmp_path))
    with pytest.raises(DiveqError, match=r"one\.png: given twice"):
        evaluate(Rounding(), [files[0], files[0]], [8], Folders(tmp_path))
    with pytest.raises(DiveqError, match=r"one\.png: rounding decoded 30x19 pixels .* 30x20"):
        evaluate(Cropping(), files[:1], [8], Folders(tmp_path))
    with pytest.raises(DiveqError, match=r"none\.png: no such file"):
        evaluate(Rounding(), [files[0].with_name("none.png")], [8], Folders(tmp_path))
    with pytest.raises(DiveqError, match=r"is no name of a file"):
        evaluate(Rounding(), [files[0].with_name("nul\0.png")], [8], Folders(tmp_path))
    with pytest.raises(DiveqError, match="cannot write and read back"):
        evaluate(Rounding(), files[:1], [8], Folders(files[0]))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("weights") / "small.pth.tar")


@with_compressai
def test_a_learned_baseline(checkpoint: Path, files: list[Path], tmp_path: Path) -> None:
    codec = LearnedBaseline(ARCHITECTURE, {2: checkpoint})
    picture = Picture(drawn(70, 50))
    data = codec.compress(picture, 2)
    # The same networks by hand: padded as in CompressAI's evaluation, rounded to 8 bits.
    model = codec._models[2]
    x = torch.from_numpy(drawn(70, 50)).permute(2, 0, 1)[None] / 255
    ops = import_compressai("compressai.ops")
    padding, unpadding = ops.compute_padding(70, 50, min_div=64)
    with torch.no_grad():
        coded = model.compress(torch.nn.functional.pad(x, padding))
        x_hat = model.decompress(coded["strings"], coded["shape"])["x_hat"]
    expected = torch.nn.functional.pad(x_hat, unpadding)[0].permute(1, 2, 0)
    decoded = codec.decompress(data).pixels
    assert np.array_equal(decoded, (expected * 255).round().to(torch.uint8).numpy())
    assert len(data) == sum(len(one[0]) for one in coded["strings"]) + 15 + 2 * 4
    results = evaluate(codec, files, codec.qualities, Folders(tmp_path))
    assert [row.image for row in results.rows] == ["a/one.png", "b/one.png"]


@with_compressai
def test_damaged_files_of_a_baseline(checkpoint: Path) -> None:
    codec = LearnedBaseline(ARCHITECTURE, {2: checkpoint})
    data = codec.compress(Picture(drawn(64, 64)), 2)
    for damaged in (*(data[:end] for end in range(len(data))), data + b"\0"):
        with pytest.raises(DamagedError):
            codec.decompress(damaged)
    with pytest.raises(ConfigError, match="no checkpoint for quality 3"):
        codec.decompress(b"\x03" + data[1:])


@with_compressai
def test_baselines_that_cannot_be_loaded(checkpoint: Path, tmp_path: Path) -> None:
    name = ARCHITECTURE
    with pytest.raises(ConfigError, match=f"nothing: CompressAI has no such model.*{name}"):
        LearnedBaseline("nothing", {1: checkpoint})
    with pytest.raises(ConfigError, match="one checkpoint at least"):
        LearnedBaseline(name, {})
    with pytest.raises(ModelError, match=r"none\.pth: cannot read"):
        LearnedBaseline(name, {1: tmp_path / "none.pth"})
    (tmp_path / "text.pth").write_text("not weights")
    with pytest.raises(ModelError, match=r"text\.pth: not a checkpoint of ScaleHyperprior"):
        LearnedBaseline(name, {1: tmp_path / "text.pth"})
    torch.save({"other": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(ModelError, match=r"other\.pth: not a checkpoint of ScaleHyperprior"):
        LearnedBaseline(name, {1: tmp_path / "other.pth"})
    for value in (math.nan, math.inf):
        content = torch.load(checkpoint, weights_only=True)
        for weights in content["state_dict"].values():
            if weights.is_floating_point():
                weights.fill_(value)
        torch.save(content, tmp_path / "nan.pth")
        with pytest.raises(ModelError, match=r"nan\.pth: not a checkpoint of .* no finite numbers"):
            LearnedBaseline(name, {1: tmp_path / "nan.pth"})
    for wrong in ([1, 2], {"g_a.0.weight": "text"}, {1: 2}):
        torch.save(wrong, tmp_path / "wrong.pth")
        with pytest.raises(ModelError, match=r"wrong\.pth: not a checkpoint of ScaleHyperprior"):
            LearnedBaseline(name, {1: tmp_path / "wrong.pth"})
    with pytest.raises(ConfigError, match=r"no checkpoint for quality 1\.5; there are 1"):
        LearnedBaseline(name, {1: checkpoint}).compress(Picture(drawn(8, 8)), 1.5)


def test_no_remedy_that_cannot_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Python 3.13 the extra brings no compressai, so nobody is told to install it."""
    monkeypatch.setattr(compressai_compat, "_TOO_NEW", (3, 11))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DiveqError, match=r"none for this Python; use Python 3\.11 or 3\.12"):
        import_compressai("compressai.zoo.image")
