import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from diveqcodec.errors import DiveqError
from diveqcodec.evaluate.comparison import compare
from diveqcodec.evaluate.curves import Curve, published_curves, read_curve
from diveqcodec.evaluate.report import bd_table, results_csv, results_table
from diveqcodec.evaluate.resultfiles import read_results, results_json
from diveqcodec.evaluate.results import Results, Row


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
    lines = list(csv.DictReader(io.StringIO(results_csv([replace(results, rows=rows)]))))
    assert len(lines) == 4
    assert lines[2]["image"] == "sub/b.png"
    assert lines[2]["codec"] == "ours"
    assert float(lines[2]["bpp"]) == 0.7
    assert lines[2]["slices_bits"] == "5520"
    assert lines[3]["ms_ssim_rgb"] == ""


def results_of(
    name: str, *pictures: list[tuple[int, float]], ms_ssim: float | None = None
) -> Results:
    """Results of pictures a.png, b.png, ... with these sizes and PSNRs at qualities 1, 2, ..."""
    rows = tuple(
        replace(row(f"{chr(97 + place)}.png", quality, size, psnr), ms_ssim=ms_ssim, parts={})
        for place, points in enumerate(pictures)
        for quality, (size, psnr) in enumerate(points, start=1)
    )
    return Results(name, "", rows, {})


def test_bd_table() -> None:
    curves = published_curves()
    tested = results_of("x", [(200, 28.0), (400, 30.0), (1200, 35.0), (2500, 39.0)])
    rivals = [curves["vtm"], curves["cheng2020-anchor"]]
    lines = bd_table("x", compare(tested, rivals, (28.5, 38.5))).splitlines()
    assert lines[0] == "x: bits needed for equal distortion, negative is better"
    assert lines[1].split()[:6] == ["anchor", "BD-rate", "over", "PSNR", "median", "won"]
    assert lines[2].startswith("vtm  ")
    assert "28.50-38.50 dB" in lines[2]
    assert lines[2].split()[-3:] == ["-", "-", "-"]  # no MS-SSIM, and VTM has no pictures
    assert lines[3].split()[:2] == ["cheng2020-anchor", "-"]
    notes = "\n".join(lines[4:])
    assert "cheng2020-anchor, PSNR: cheng2020-anchor: covers 28.58-36.70 dB" in notes
    assert (
        "vtm, cheng2020-anchor, MS-SSIM: x: a Bjøntegaard delta needs at least two points with"
        in notes
    )
    assert "28.58-36.70 dB" in bd_table("x", compare(tested, rivals)).splitlines()[3]


def test_medians_and_wins_beside_the_mean_curve() -> None:
    """Two small pictures won, one that costs ten times as much lost: mean and median differ."""
    points = [(100, 30.0), (200, 34.0), (400, 38.0)]
    large = [(10 * size, psnr) for size, psnr in points]
    ours = [[(80, 30.0), (160, 34.0), (320, 38.0)]] * 2
    lost = [(int(1.5 * size), psnr) for size, psnr in large]
    (compared,) = compare(results_of("x", *ours, lost), [results_of("y", points, points, large)])
    assert compared.psnr.of_images == pytest.approx({"a.png": -20, "b.png": -20, "c.png": 50})
    assert compared.psnr.median == pytest.approx(-20)
    assert compared.psnr.won == 2
    assert (compared.psnr.best, compared.psnr.worst) == ("a.png", "c.png")
    assert compared.psnr.delta is not None
    # means of equal weight: (80 + 80 + 1500) / (100 + 100 + 1000) at every quality
    assert compared.psnr.delta.value == pytest.approx(100 * (1660 / 1200 - 1))
    line = bd_table("x", [compared]).splitlines()[2].split()
    assert line[0] == "y"
    assert " ".join(line[5:11]) == "-20.0 % 2 of 3 -"


def test_lossless_pictures_are_capped_left_out_and_said() -> None:
    points = [(100, 30.0), (200, 34.0), (400, math.inf)]
    both = results_of("x", points, [(100, 30.0), (200, 34.0), (400, 38.0)])
    assert [point.psnr for point in both.points()] == [30, 34, (60 + 38) / 2]
    assert [point.lossless for point in both.points()] == [0, 0, 1]
    table = results_table(both)
    assert "49.000*" in table
    assert "* quality 3: 1 of 2 pictures lossless, counted as 60 dB" in table
    (compared,) = compare(both, [results_of("y", *[[(90, 30.0), (180, 34.0), (360, 38.0)]] * 2)])
    assert compared.psnr.delta is not None
    assert (compared.psnr.delta.high, compared.psnr.delta.left_out) == (34, 1)
    assert compared.psnr.of_images == pytest.approx({"a.png": 100 / 9, "b.png": 100 / 9})
    assert "y, PSNR: 1 lossless point left out" in bd_table("x", [compared])
    nearly = results_of("x", [(100, 30.0), (200, 75.0)])
    assert nearly.points()[1].psnr == 60  # below a lossless picture, or level with it, never above
    whole = results_of("x", [(100, 30.0), (200, math.inf), (300, math.inf)])
    (compared,) = compare(whole, [both])
    assert "but there is 1 (2 are lossless)" in compared.psnr.reason


def test_small_pictures_say_what_is_missing() -> None:
    points = [(100, 30.0), (200, 34.0)]
    tested = results_of("x", points, points)
    tested = replace(
        tested, rows=(*(replace(r, ms_ssim=0.9) for r in tested.rows[:2]), *tested.rows[2:])
    )
    assert results_table(tested).splitlines()[-1] == (
        "no MS-SSIM: 1 of 2 pictures with a side below 161 pixels (b.png)"
    )
    (compared,) = compare(tested, [tested])
    assert compared.ms_ssim.reason.startswith(
        "x: a Bjøntegaard delta needs at least two points with ms-ssim"
    )
    assert "2 have none" in compared.ms_ssim.reason
    assert set(compared.ms_ssim.without) == {"a.png", "b.png"}
    assert "x, MS-SSIM: x: a Bjøntegaard delta needs at least two points" in bd_table(
        "x", [compared]
    )


def test_a_picture_needs_a_decibel_to_compare() -> None:
    tested = results_of("x", [(100, 30.0), (200, 34.0)], [(100, 30.0), (200, 34.0)])
    rival = results_of("y", [(100, 29.0), (200, 30.9)], [(100, 29.0), (200, 31.1)])
    (compared,) = compare(tested, [rival])
    assert set(compared.psnr.of_images) == {"b.png"}
    assert "less than 1 dB" in compared.psnr.without["a.png"]
    (compared,) = compare(tested, [rival], (30.5, 40))
    assert set(compared.psnr.without) == {"a.png", "b.png"}


def test_results_read_back_with_every_row(results: Results, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    lossless = replace(results.rows[3], psnr=math.inf, ms_ssim=None)
    results = replace(results, rows=(*results.rows[:3], lossless))
    path.write_text(results_json(results), encoding="utf-8")
    assert read_results(path) == results
    content = json.loads(path.read_text())
    assert content["lossless"] == [0, 1]
    path.write_text(json.dumps({**content, "rows": []}))
    assert read_results(path) is None
    for damage in ({"bytes": 0}, {"image": None, "width": "wide"}, {"quality": None}):
        content["rows"][0] |= damage
        path.write_text(json.dumps(content))
        with pytest.raises(DiveqError, match="not a readable JSON file of results"):
            read_results(path)


@pytest.mark.parametrize("number", ["1e400", "-1e400", "NaN", "Infinity", "9" * 400, "9" * 5000])
def test_numbers_without_end_are_in_no_row(results: Results, tmp_path: Path, number: str) -> None:
    """Python's JSON reads them all; what is lossless has no number, but null."""
    path = tmp_path / "r.json"
    content = json.loads(results_json(results))
    for key in set(content["rows"][0]) - {"image", "bpp", "parts"}:
        row = {**content["rows"][0], key: "HERE"}
        text = json.dumps({**content, "rows": [row]}).replace('"HERE"', number)
        path.write_text(text)
        with pytest.raises(DiveqError, match=r"r\.json: not a readable JSON file of results"):
            read_results(path)
    for wrong in ({"width": 1.5}, {"bytes": 2.0**60}, {"parts": {"slices": math.inf}}):
        path.write_text(json.dumps({**content, "rows": [content["rows"][0] | wrong]}))
        with pytest.raises(DiveqError, match="not a readable JSON file of results"):
            read_results(path)


def test_csv_of_several_codecs(results: Results) -> None:
    other = replace(results, name="jpeg", rows=tuple(replace(r, parts={}) for r in results.rows))
    lines = list(csv.DictReader(io.StringIO(results_csv([other, results]))))
    assert [line["codec"] for line in lines] == ["jpeg"] * 4 + ["ours"] * 4
    assert lines[0]["slices_bits"] == ""
    assert lines[4]["slices_bits"] == str(8 * 500 - 80)


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
        '{"name": "x", "results": {"bpp": [%s], "psnr": [30]}}' % ("9" * 400),
        '{"name": "x", "results": {"bpp": [1e400], "psnr": [30]}}',
        "[" * 100_000,
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
