import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from diveqcodec.errors import DiveqError
from diveqcodec.evaluate.curves import Curve, published_curves, read_curve
from diveqcodec.evaluate.report import bd_table, results_csv, results_json, results_table
from diveqcodec.evaluate.run import Results, Row


def row(image: str, quality: float, size: int, psnr: float, ms_ssim: float | None = 0.9) -> Row:
    parts = {"header": 80, "slices": 8 * size - 80}
    return Row(image, 100, 80, quality, size, psnr, ms_ssim, 0.25, 0.125, parts)


@pytest.fixture
def results() -> Results:
    rows = (
        row("a.png", 10, 500, 30),
        row("a.png", 50, 1000, 34, 0.96),
        row("sub/b.png", 10, 700, 32, 0.92),
        row("sub/b.png", 50, 1500, 35, 0.98),
    )
    return Results("ours", "small, fast", rows, {"torch": "2.0", "torch_threads": 1})


def test_table(results: Results) -> None:
    assert results_table(results).splitlines() == [
        "quality     bpp  PSNR-RGB  MS-SSIM  encode s  decode s  header bpp  slices bpp",
        "     10  0.6000    31.000  0.91000     0.250     0.125      0.0100      0.5900",
        "     50  1.2500    34.500  0.97000     0.250     0.125      0.0100      1.2400",
    ]


def test_a_missing_ms_ssim_is_visible(results: Results) -> None:
    rows = (*results.rows[:3], replace(results.rows[3], ms_ssim=None))
    results = replace(results, rows=rows)
    assert results_table(results).splitlines()[2].split()[3] == "-"
    assert json.loads(results_json(results))["results"]["ms-ssim-rgb"] == [
        pytest.approx(0.91),
        None,
    ]


def test_json_is_compressais_layout_with_extra_keys(results: Results) -> None:
    content = json.loads(results_json(results))
    assert (content["name"], content["description"]) == ("ours", "small, fast")
    assert content["results"] == {
        "bpp": pytest.approx([0.6, 1.25]),
        "psnr-rgb": [31, 34.5],
        "ms-ssim-rgb": pytest.approx([0.91, 0.97]),
        "encoding_time": [0.25, 0.25],
        "decoding_time": [0.125, 0.125],
    }
    assert content["images"] == ["a.png", "sub/b.png"]
    assert content["environment"] == {"torch": "2.0", "torch_threads": 1}
    assert content["rows"][2]["bytes"] == 700
    assert content["rows"][2]["parts"] == {"header": 80, "slices": 5520}


def test_json_reads_back_as_the_curve(results: Results, tmp_path: Path) -> None:
    path = tmp_path / "ours.json"
    path.write_text(results_json(results), encoding="utf-8")
    assert read_curve(path) == results.curve()


def test_a_lossless_picture_is_null_and_stays_out(results: Results, tmp_path: Path) -> None:
    lossless = replace(results.rows[3], psnr=math.inf)
    path = tmp_path / "ours.json"
    path.write_text(results_json(replace(results, rows=(*results.rows[:3], lossless))))
    assert json.loads(path.read_text())["results"]["psnr-rgb"] == [31, None]
    curve = read_curve(path)
    assert curve.psnr[0] == 31
    assert math.isnan(curve.psnr[1])


def test_csv_has_a_line_a_picture_and_quality(results: Results) -> None:
    rows = (*results.rows[:3], replace(results.rows[3], ms_ssim=None))
    lines = list(csv.DictReader(io.StringIO(results_csv(replace(results, rows=rows)))))
    assert len(lines) == 4
    assert lines[2]["image"] == "sub/b.png"
    assert lines[2]["codec"] == "ours"
    assert float(lines[2]["bpp"]) == 0.7
    assert lines[2]["slices_bits"] == "5520"
    assert lines[3]["ms_ssim_rgb"] == ""


def test_bd_table() -> None:
    curves = published_curves()
    anchors = [curves["vtm"], curves["cheng2020-anchor"]]
    lines = bd_table(curves["webp"], anchors, (28.5, 38.5)).splitlines()
    assert lines[0] == "webp: bits needed for equal PSNR-RGB, negative is better"
    assert lines[1].split() == ["anchor", "BD-rate", "over", "PSNR"]
    assert lines[2] == "vtm               +83.8 %  28.50-38.50 dB"
    assert lines[3].startswith("cheng2020-anchor        -  cheng2020-anchor: covers 28.58-36.70 dB")
    assert "28.58-36.70" in bd_table(curves["webp"], anchors, None).splitlines()[3]


def test_compressais_other_spelling(tmp_path: Path) -> None:
    path = tmp_path / "paper.json"
    path.write_text('{"name": "paper", "results": {"bpp": [0.4, 0.2], "psnr": [33, 30]}}')
    curve = read_curve(path)
    assert (curve.name, curve.bpp, curve.psnr) == ("paper", (0.2, 0.4), (30, 33))
    assert all(math.isnan(value) for value in curve.ms_ssim)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"name": "x", "results": []}',
        '{"name": "x", "results": {}}',
        '{"results": {"bpp": [1], "psnr": [30]}}',
        '{"name": "x", "results": {"bpp": [1, 2], "psnr": [30]}}',
        '{"name": "x", "results": {"bpp": [0], "psnr": [30]}}',
        '{"name": "x", "results": {"bpp": [], "psnr": []}}',
        '{"name": "x", "results": {"bpp": ["much"], "psnr": [30]}}',
        '{"name": "x", "results": {"bpp": [[1]], "psnr": [30]}}',
        '{"name": "x", "results": {"bpp": 1, "psnr": [30]}}',
    ],
)
def test_files_that_are_no_curves(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(DiveqError):
        read_curve(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DiveqError, match=r"none\.json: not a readable JSON file"):
        read_curve(tmp_path / "none.json")


def test_points_are_sorted_and_repeated_ones_kept_once() -> None:
    curve = Curve.from_points("x", [2, 1, 2], [33, 30, 33], [0.9, 0.8, 0.9])
    assert (curve.bpp, curve.psnr, curve.ms_ssim) == ((1, 2), (30, 33), (0.8, 0.9))


def test_no_published_curves_for_other_pictures() -> None:
    with pytest.raises(DiveqError, match="clic: no published curves"):
        published_curves("clic")
