"""`make results`: measuring writes files of results, and two texts have the figures in them."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from diveqcodec.errors import DiveqError
from diveqcodec.evaluate.anchors import is_installed
from diveqcodec.evaluate.offered import QUALITIES
from scripts import results
from tests.support.commands import draw, install_tiny, opened


@pytest.fixture
def readme(tmp_path: Path) -> Path:
    return Path(shutil.copy(results.README, tmp_path / "README.md"))


@pytest.fixture
def full(tmp_path: Path) -> Path:
    return Path(shutil.copy(results.FULL, tmp_path / "results.md"))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A copy of the repository's files of results."""
    return Path(shutil.copytree(results.RESULTS, tmp_path / "results"))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["results.py", *map(str, arguments)])
    results.main()


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values), "utf-8")


def test_the_texts_have_the_figures_of_the_files(readme: Path, full: Path) -> None:
    results.table(readme, full, results.RESULTS)
    assert readme.read_text("utf-8") == results.README.read_text("utf-8"), "make results-table"
    assert full.read_text("utf-8") == results.FULL.read_text("utf-8"), "make results-table"


def test_old_figures_are_replaced_and_nothing_else(readme: Path, full: Path) -> None:
    texts = {path: path.read_text("utf-8") for path in (readme, full)}
    for path, text in texts.items():
        start, end = text.index("\n", text.index(results.START)) + 1, text.index(results.END)
        path.write_text(text[:start] + "old figures\n" + text[end:], "utf-8")
    results.table(readme, full, results.RESULTS)
    assert {path: path.read_text("utf-8") for path in texts} == texts


def test_the_short_table_and_list_say_what_the_long_ones_do() -> None:
    short, long = (path.read_text("utf-8") for path in (results.README, results.FULL))
    rows = {row[0]: row for row in rows_of(long, "| `-q` |")}
    assert len(rows) == len(QUALITIES)
    for quality, *cells in rows_of(short, "| `-q` |"):
        assert cells == [*rows[quality][1:3], *rows[quality][4:6]]  # without MS-SSIM
    for codec, figure, _ in rows_of(long, "| codec | BD-rate |"):
        assert f"{codec.strip('*')} {figure}" in short


def rows_of(text: str, head: str) -> list[list[str]]:
    """Cells of the table that begins like this, without its head."""
    table = text[text.index(head) :].partition("\n\n")[0]
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()[2:]]


def cut(path: Path, images: int) -> None:
    """Leave the rows of so many pictures in a file of results."""
    content = json.loads(path.read_text("utf-8"))
    names = content["images"][:images]
    rows = [row for row in content["rows"] if row["image"] in names]
    path.write_text(json.dumps({**content, "images": names, "rows": rows}), "utf-8")


def test_the_table_says_how_many_pictures_and_which_qualities(
    readme: Path, full: Path, files: Path
) -> None:
    for path in (files / "kodak").glob("*.json"):
        cut(path, 2)
    ours = files / "kodak" / f"{results.DEFAULT}.json"
    content = json.loads(ours.read_text("utf-8"))
    change(ours, rows=[{**row, "quality": row["quality"] + 1} for row in content["rows"]])
    results.table(readme, full, files)
    assert " of 2)" in full.read_text("utf-8")  # pictures won
    for path in (readme, full):
        text = path.read_text("utf-8")
        assert "Kodak, 2 pictures" in text
        shown = [row[0] for row in rows_of(text, "| `-q` |")][: len(content["qualities"])]
        assert shown == [f"{quality + 1:g}" for quality in content["qualities"]]


def test_sets_and_efforts_that_were_measured_get_their_place(
    readme: Path, full: Path, files: Path
) -> None:
    """A second effort and a second set: copies of Kodak's, with half the bytes for the one."""
    shutil.rmtree(files / "cid22", ignore_errors=True)
    shutil.copytree(files / "kodak", files / "cid22")
    slow = files / "kodak" / "diveq-e5.json"
    rows = json.loads(slow.read_text("utf-8"))["rows"]
    fast = files / "kodak" / "diveq-e1.json"
    shutil.copy(slow, fast)
    change(fast, name="diveq-e1", rows=[{**row, "bytes": 2 * row["bytes"]} for row in rows])
    results.table(readme, full, files)
    assert "Kodak, 24 pictures; CID22, 24 pictures; one model" in readme.read_text("utf-8")
    text = full.read_text("utf-8")
    assert "Kodak, 24 pictures; CID22, 24 pictures; one model" in text
    lines = text.splitlines()
    figures = {
        effort: next(
            line.split("|")[2] for line in lines if line.startswith(f"| **diveq -e {effort}**")
        )
        for effort in (1, 5)
    }
    one, five = (1 + float(figures[effort].strip(" %")) / 100 for effort in (1, 5))
    assert one == pytest.approx(2 * five, rel=1e-3)
    head = next(line for line in lines if line.startswith("| against |"))
    assert head.count("MS-SSIM") == 2
    assert "](../results/cid22.png)" in text
    (files / "kodak" / "webp.json").unlink()
    results.table(readme, full, files)
    assert "here, Pillow" in full.read_text("utf-8")
    assert "| webp | " in full.read_text("utf-8")  # published, and CID22's
    assert "| webp | – | – |" in full.read_text("utf-8")
    webp = [line for line in readme.read_text("utf-8").splitlines() if "webp +" in line]
    assert [line.partition(":")[0] for line in webp] == ["- as published"]


def test_what_makes_no_table(readme: Path, full: Path, files: Path) -> None:
    text = readme.read_text("utf-8")
    cut(files / "kodak" / "webp.json", 3)
    with pytest.raises(DiveqError, match=r"webp\.json: is of other pictures than diveq-e5\.json"):
        results.table(readme, full, files)
    rows = json.loads((results.RESULTS / "kodak" / "webp.json").read_text("utf-8"))["rows"]
    change(files / "kodak" / "webp.json", rows=rows[:-1])
    with pytest.raises(DiveqError, match=r"webp\.json: lacks rows of some pictures"):
        results.table(readme, full, files)
    change(files / "kodak" / "webp.json", rows=[])
    with pytest.raises(DiveqError, match=r"webp\.json: has no rows; measure it again"):
        results.table(readme, full, files)
    (files / "kodak" / "webp.json").write_text("{")
    with pytest.raises(DiveqError, match=r"webp\.json: not a readable JSON file"):
        results.table(readme, full, files)
    (files / "kodak" / "webp.json").unlink()
    (files / "kodak" / "diveq-e5.json").unlink()
    with pytest.raises(DiveqError, match=r"diveq-e5\.json: not a readable JSON file"):
        results.table(readme, full, files)
    full.write_text("no markers")
    with pytest.raises(DiveqError, match=r"results\.md: the lines"):
        results.table(readme, full, results.RESULTS)
    assert readme.read_text("utf-8") == text
    readme.write_text("no markers")
    with pytest.raises(DiveqError, match=r"README\.md: the lines"):
        results.table(readme, full, results.RESULTS)


def test_figures_of_another_model_are_not_mixed_in(readme: Path, full: Path, files: Path) -> None:
    change(files / "cid22" / "diveq-e5.json", description="diveq, model 0123456789abcdef, effort 5")
    with pytest.raises(
        DiveqError, match=r"cid22/diveq-e5\.json: is of model 0123456789abcdef, not"
    ):
        results.table(readme, full, files)


def test_the_plot_is_written_twice(files: Path) -> None:
    results.plot(files)
    assert opened(files / "kodak.png").width > 1000
    text = (files / "kodak.svg").read_text("utf-8")
    assert all(f">{name}</text>" in text for name in ("diveq-e5", "jpeg", "avif-speed3", "vtm"))


def test_only_the_named_codecs_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install_tiny(monkeypatch, tmp_path)
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    draw(tmp_path / "pictures" / "one.png")
    (tmp_path / "pictures" / "notes.txt").write_text("not a picture")
    folders = ("--kodak", tmp_path / "pictures", "--cid22", tmp_path / "pictures")
    run(monkeypatch, "measure", *folders, "--only", "jpeg")
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("results/*/*")}
    assert found == {"results/kodak/jpeg.json", "results/cid22/jpeg.json"}
    run(monkeypatch, "measure", *folders[:2], "--only", "diveq-e1", "--resume", tmp_path / "j")
    content = json.loads((tmp_path / "results" / "kodak" / "diveq-e1.json").read_text("utf-8"))
    assert (content["name"], content["images"]) == ("diveq-e1", ["one.png"])
    assert content["qualities"] == list(QUALITIES)
    assert "effort 1" in content["description"]
    assert "one.png q5 " in capsys.readouterr().err
    assert len((tmp_path / "j").read_text().splitlines()) == 1 + len(QUALITIES)


def test_jxl_is_offered_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "measure", "--help")
    assert ("jxl" in capsys.readouterr().out.partition("--jobs")[0]) == is_installed("jxl")


def test_no_folder_is_wrong_usage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        run(monkeypatch, "measure")
    assert end.value.code == 2
    assert "say where the pictures are: --kodak DIR, --cid22 DIR" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["empty", "nope", "notes.txt"])
def test_a_folder_without_pictures(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("not a picture")
    with pytest.raises(SystemExit) as end:
        run(monkeypatch, "measure", "--kodak", tmp_path / name)
    assert end.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"Error: {tmp_path / name}: no PNG pictures there; ")
    assert not (tmp_path / "results").exists()
