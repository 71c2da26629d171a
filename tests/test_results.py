"""`make results`: measuring writes files of results, and README.md has the figures in them."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from diveqcodec.errors import DiveqError
from diveqcodec.evaluate.offered import ANCHORS, QUALITIES
from scripts import results
from tests.commands import draw, install_tiny, opened


@pytest.fixture
def readme(tmp_path: Path) -> Path:
    return Path(shutil.copy(results.README, tmp_path / "README.md"))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A copy of the repository's files of results."""
    folder = tmp_path / "results"
    folder.mkdir()
    for name in (results.OURS, *ANCHORS):
        shutil.copy(results.RESULTS / f"{name}.json", folder)
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["results.py", *map(str, arguments)])
    results.main()


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values), "utf-8")


def test_the_readme_has_the_figures_of_the_files(readme: Path) -> None:
    results.table(readme, results.RESULTS)
    assert readme.read_text("utf-8") == results.README.read_text("utf-8"), "make results-table"


def test_old_figures_are_replaced_and_nothing_else(readme: Path) -> None:
    text = readme.read_text("utf-8")
    start, end = text.index("\n", text.index(results.START)) + 1, text.index(results.END)
    readme.write_text(text[:start] + "old figures\n" + text[end:], "utf-8")
    results.table(readme, results.RESULTS)
    assert readme.read_text("utf-8") == text


def test_the_table_says_how_many_pictures_and_which_qualities(readme: Path, files: Path) -> None:
    for name in (results.OURS, *ANCHORS):
        change(files / f"{name}.json", images=["one.png", "two.png"])
    ours = json.loads((files / "diveq.json").read_text("utf-8"))
    qualities = [quality + 1 for quality in ours["qualities"]]
    change(files / "diveq.json", qualities=qualities)
    results.table(readme, files)
    text = readme.read_text("utf-8")
    assert "Kodak, 2 pictures, one model" in text
    table = text[text.index("| `-q` |") :].splitlines()[2:]
    shown = [line.split()[1] for line in table[: len(qualities)]]
    assert shown == [f"{quality:g}" for quality in qualities]


def test_what_makes_no_table(readme: Path, files: Path) -> None:
    text = readme.read_text("utf-8")
    change(files / "webp.json", images=["another.png"])
    with pytest.raises(DiveqError, match=r"webp\.json: is of other pictures than diveq\.json"):
        results.table(readme, files)
    (files / "webp.json").unlink()
    with pytest.raises(DiveqError, match=r"webp\.json: not a readable JSON file"):
        results.table(readme, files)
    assert readme.read_text("utf-8") == text
    readme.write_text("no markers")
    with pytest.raises(DiveqError, match=r"README\.md: the lines"):
        results.table(readme, results.RESULTS)


def test_the_plot_is_written_twice(files: Path) -> None:
    results.plot(files)
    assert opened(files / "kodak.png").width > 1000
    text = (files / "kodak.svg").read_text("utf-8")
    assert all(f">{name}</text>" in text for name in (results.OURS, *ANCHORS, "vtm"))


def test_only_the_named_codecs_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install_tiny(monkeypatch, tmp_path)
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    draw(tmp_path / "kodak" / "one.png")
    (tmp_path / "kodak" / "notes.txt").write_text("not a picture")
    run(monkeypatch, "measure", tmp_path / "kodak", "--only", "jpeg")
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["jpeg.json"]
    run(monkeypatch, "measure", tmp_path / "kodak", "--only", "diveq")
    content = json.loads((tmp_path / "results" / "diveq.json").read_text("utf-8"))
    assert (content["name"], content["images"]) == ("diveq", ["one.png"])
    assert content["qualities"] == list(QUALITIES)
    assert "one.png q5 " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["empty", "nope", "notes.txt"])
def test_a_folder_without_pictures(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("not a picture")
    with pytest.raises(SystemExit) as end:
        run(monkeypatch, "measure", tmp_path / name)
    assert end.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"Error: {tmp_path / name}: no PNG pictures there; ")
    assert not (tmp_path / "results").exists()
