import csv
import json
from pathlib import Path

import pytest

from diveqcodec.cli import evaluate
from diveqcodec.evaluate.anchors import ANCHORS
from diveqcodec.evaluate.curves import read_curve
from tests.commands import diveq, draw, errors, install_tiny, opened


@pytest.fixture(autouse=True)
def _sandbox(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install_tiny(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    draw(Path("set/a.png"), size=(40, 24))
    draw(Path("set/sub/b.png"), size=(33, 35))
    Path("set/notes.txt").write_text("not a picture")


def test_the_anchors_are_those_that_exist() -> None:
    assert set(evaluate.ANCHORS) == set(ANCHORS)


def test_results_as_table_json_csv_plot_and_pictures() -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("scipy")
    files = ("-o", "r.json", "--csv", "r.csv", "--plot", "r.png", "--save-images", "decoded")
    result = diveq("eval", "set", "-q", "20,60,90", "--anchor", "jpeg", "--parts", *files)
    assert result.exit_code == 0, result.output
    assert "slice 1 bpp" in result.stdout
    assert "diveq-1: 2 pictures" in result.stdout
    assert "jpeg: 2 pictures" in result.stdout
    assert "BD-rate" in result.stdout

    content = json.loads(Path("r.json").read_text())
    assert content["images"] == ["a.png", "sub/b.png"]
    assert content["qualities"] == [20, 60, 90]
    diveq("compress", "set/a.png", "-q", 60, "-o", "a.dvq")
    row = content["rows"][1]
    assert row["bytes"] == Path("a.dvq").stat().st_size
    assert sum(row["parts"].values()) == 8 * row["bytes"]
    assert read_curve(Path("r.jpeg.json")).name == "jpeg"

    with Path("r.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert {len(row) for row in rows} == {len(head)}
    assert [row[0] for row in rows].count("diveq-1") == 6
    assert rows[-1][0] == "jpeg"
    assert opened("r.png").width > 500
    decoded = sorted(str(path) for path in Path("decoded").rglob("*.png"))
    assert decoded[0] == "decoded/a.png.q20.png"
    assert len(decoded) == 6


def test_one_picture_needs_no_folder() -> None:
    result = diveq("eval", "set/a.png", "-q", "50")
    assert result.exit_code == 0
    assert "diveq-1: 1 picture\n" in result.stdout
    assert not Path("set/a.dvq").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("-q", "20,high"),
        ("-q", "0"),
        ("--anchor", "jxl"),
        ("--plot", "r.gif"),
        ("--range", "9,2"),
        ("-m", "nonsuch"),
    ],
)
def test_wrong_usage_is_seen_before_any_work(arguments: tuple[str, ...]) -> None:
    result = diveq("eval", "set", *arguments)
    assert result.exit_code == 2
    assert arguments[-1] in errors(result)[0]


def test_published_curves_and_files_are_anchors_too() -> None:
    pytest.importorskip("scipy")
    first = diveq("eval", "set/a.png", "-q", "20,60,90", "-o", "r.json")
    assert first.exit_code == 0
    assert json.loads(Path("r.json").read_text())["rows"][0]["parts"] == {}
    result = diveq(
        "eval",
        "set/a.png",
        "-q",
        "20,60,90",
        "--curve",
        "vtm",
        "--curve",
        "r.json",
        "--range",
        "1,2",
    )
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert any(line.startswith("vtm ") and "1" in line and "2" in line for line in lines)
    assert any(line.startswith("diveq-1 ") for line in lines)
    itself = diveq("eval", "set/a.png", "-q", "20,60,90", "--curve", "r.json")
    assert "+0.0 %" in itself.stdout.replace("-0.0 %", "+0.0 %")


def test_unknown_curve_names_the_known_ones() -> None:
    result = diveq("eval", "set/a.png", "-q", "50", "--curve", "vtn")
    assert result.exit_code == 1
    assert errors(result)[0].startswith("Error: vtn: no such file or curve; there are: ")
    assert "vtm" in errors(result)[0]


def test_missing_and_empty_data() -> None:
    Path("empty").mkdir()
    for name, message in (
        ("nope", "Error: nope: no such file or folder"),
        ("empty", "Error: empty: contains no pictures"),
        ("set/notes.txt", "Error: set/notes.txt: not an image that Pillow can read"),
    ):
        result = diveq("eval", name, "-q", "50")
        assert result.exit_code == 1
        assert errors(result) == [message]


def test_existing_results_are_refused_before_any_work() -> None:
    Path("r.webp.json").write_text("precious")
    result = diveq("eval", "nope", "-o", "r.json", "--anchor", "webp")
    assert errors(result) == ["Error: r.webp.json: already exists; use -f to overwrite"]
    assert Path("r.webp.json").read_text() == "precious"
