"""The report for a browser: what is in it, that it holds alone, and that it works in a real one."""

import base64
import html
import io
import json
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from diveqcodec.evaluate.anchors import anchor
from diveqcodec.evaluate.crops import SIDE, at_equal_bytes
from diveqcodec.evaluate.html import Report, html_report
from diveqcodec.evaluate.results import Results, Row
from diveqcodec.evaluate.run import Folders, evaluate
from diveqcodec.evaluate.trials import Trial
from tests.support.commands import diveq, draw, install_tiny

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@dataclass(frozen=True, slots=True)
class Measured:
    trials: list[Trial]
    results: list[Results]
    files: list[Path]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """Two JPEGs, WebP beside them, on two pictures: the second is small and has an awkward name."""
    folder = tmp_path_factory.mktemp("report")
    files = [folder / "in" / "a.png", folder / "in" / "<" / "script><b>&'\".png"]
    random = np.random.default_rng(0)
    for path, side in zip(files, (260, 50), strict=True):
        draw(path, size=(side + 30, side))
        pixels = np.asarray(Image.open(path)).copy()
        noise = random.integers(0, 60, (side // 2, side // 2, 1), np.uint8)
        pixels[: side // 2, : side // 2] //= 2
        pixels[: side // 2, : side // 2] += noise
        Image.fromarray(pixels).save(path)
    trials, results = [], []
    for name in ("webp", "jpeg"):
        codec = anchor(name)
        qualities = (10, 30, 60, 90)
        trials.append(Trial(codec, qualities, lambda: anchor("webp")))
        results.append(evaluate(codec, files, qualities, Folders(folder / name)))
    return Measured(trials, results, files)


@pytest.fixture(scope="module")
def page(measured: Measured) -> str:
    return html_report(Report(measured.trials, measured.results, [], measured.files, None))


def crops_of(page: str) -> list[dict[str, Any]]:
    match = re.search(r'id="crops-data">(.*?)</script>', page, re.DOTALL)
    assert match
    content: list[dict[str, Any]] = json.loads(match[1])
    return content


def test_it_is_whole_and_loads_nothing(page: str) -> None:
    assert "{{" not in page
    for reference in re.findall(r"(?:src|href)=[\"']?([^\"'> ]+)", page):
        assert reference.startswith("data:")
    assert "http" not in re.sub(r'base64,[^"]+', "", page).replace("http-equiv", "")
    assert "default-src 'none'" in page
    assert page.count("<script") == page.count("</script>") == 2


def test_names_cannot_break_out(page: str, measured: Measured) -> None:
    name = measured.files[1].name  # in the folder "<", so that the two make a whole tag
    assert name not in page
    assert html.escape(f"</{name}") in page
    assert f"</{name}" in {picture["image"] for picture in crops_of(page)}


@pytest.mark.parametrize("name", ["<!--<script>.png", "]]>&lt;.png", "\u2028\u2029.png"])
def test_names_end_no_script_and_begin_none(name: str, tmp_path: Path) -> None:
    """Behind `<!--<script>` a browser takes the next `</script>` for a part of the text."""
    path, codec = draw(tmp_path / name, size=(60, 50)), anchor("webp")
    results = [evaluate(codec, [path], (10, 60), Folders(tmp_path / "work"))]
    page = html_report(Report([Trial(codec, (10, 60), lambda: codec)], results, [], [path], None))
    (text,) = re.findall(r'id="crops-data">(.*?)</script>', page, re.DOTALL)
    assert not set("<>&\u2028\u2029") & set(text)
    assert [picture["image"] for picture in json.loads(text)] == [name]


def test_every_picture_has_its_figures_and_best_and_worst_are_marked(page: str) -> None:
    table = page[page.index('id="pictures"') :].partition("</table>")[0]
    assert "<th>jpeg</th>" in table
    assert "<th>jpeg, MS-SSIM</th>" in table
    rows = table.partition("<tbody>")[2].split("</tr>")[:-1]
    assert len(rows) == 2
    assert table.count('class="best"') == table.count('class="worst"') == 1  # one has no MS-SSIM
    figures = [float(re.findall(r'class="\w*" data-value="(-?[\d.]+)"', row)[0]) for row in rows]
    assert 'class="best"' in rows[figures.index(min(figures))]
    assert 'title="' in rows[1]  # why there is none


def test_crops_are_those_of_files_of_equal_bytes(page: str, measured: Measured) -> None:
    pictures = {picture["image"]: picture for picture in crops_of(page)}
    assert len(pictures) == 2
    picture = pictures["a.png"]
    names = [codec["name"] for codec in picture["codecs"]]
    assert names == ["original", "webp", "jpeg"]
    sizes = [
        int(re.findall(r"([\d,]+) bytes", codec["says"])[0].replace(",", ""))
        for codec in picture["codecs"][1:]
    ]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.01)
    quality = float(re.findall(r"quality ([\d.]+)", picture["codecs"][2]["says"])[0])
    original = Image.open(measured.files[0])
    data = anchor("jpeg").compress(_picture(np.asarray(original)), quality)
    assert len(data) == sizes[1]
    decoded = anchor("jpeg").decompress(data).pixels
    assert len(picture["crops"]) == 2
    for crop in picture["crops"]:
        left, top = map(int, re.findall(r"\(at (\d+), (\d+)\)", crop["title"])[0])
        area = slice(top, top + SIDE), slice(left, left + SIDE)
        shown = [np.asarray(Image.open(io.BytesIO(base64.b64decode(i)))) for i in crop["images"]]
        assert np.array_equal(shown[0], np.asarray(original)[area])
        assert np.array_equal(shown[2], decoded[area])
        assert shown[1].shape == shown[0].shape == (crop["height"], crop["width"], 3)
    small = pictures[f"</{measured.files[1].name}"]
    assert [(crop["width"], crop["height"]) for crop in small["crops"]] == [(80, 50)]


def _picture(pixels: Any) -> Any:
    from diveqcodec.image import Picture

    return Picture(pixels)


@pytest.mark.parametrize("quality", [10, 30, 60])
def test_fine_qualities_come_within_one_percent_and_whole_ones_to_the_nearest(
    measured: Measured, quality: float
) -> None:
    webp, jpeg = (
        replace(found, rows=tuple(row for row in found.rows if row.image == "a.png"))
        for found in measured.results
    )
    jpegs = replace(jpeg, rows=tuple(row for row in jpeg.rows if row.quality == quality))
    codecs = [anchor("jpeg"), anchor("webp")]
    first, fine = at_equal_bytes(measured.files[0], "a.png", codecs, [jpegs, webp]).coded
    assert first.quality == quality
    assert fine.size == pytest.approx(first.size, rel=0.01)
    # Whole qualities may be further apart than that, and then none lies nearer.
    webps = replace(webp, rows=tuple(row for row in webp.rows if row.quality == quality))
    first, whole = at_equal_bytes(measured.files[0], "a.png", codecs[::-1], [webps, jpeg]).coded
    picture = _picture(np.asarray(Image.open(measured.files[0])))
    beside = [len(codecs[0].compress(picture, round(whole.quality) + step)) for step in (-1, 1)]
    assert beside[0] < whole.size < beside[1]
    distance = abs(whole.size - first.size)
    nearest = min(abs(size - first.size) for size in beside)
    assert distance <= max(0.0101 * first.size, nearest)


def test_crops_lie_where_the_codecs_differ_most(measured: Measured) -> None:
    codecs = [trial.codec for trial in measured.trials]
    found = at_equal_bytes(measured.files[0], "a.png", codecs, measured.results)
    original = np.asarray(Image.open(measured.files[0])).astype(int)
    errors = [((original - coded.pixels.astype(int)) ** 2).sum(2) for coded in found.coded]

    def advantage(top: int, left: int) -> int:
        area = slice(top, top + SIDE), slice(left, left + SIDE)
        return int((errors[0] - errors[1])[area].sum())

    height, width = original.shape[:2]
    everywhere = [
        advantage(top, left)
        for top in (*range(0, height - SIDE, 16), height - SIDE)
        for left in (*range(0, width - SIDE, 16), width - SIDE)
    ]
    worst, best = found.crops
    assert "worst" in worst.title
    assert advantage(worst.top, worst.left) == max(everywhere)
    assert advantage(best.top, best.left) == min(everywhere)


def test_a_codec_alone_and_lists_of_fixed_qualities(measured: Measured) -> None:
    page = html_report(
        Report(measured.trials[:1], measured.results[:1], [], measured.files[:1], None)
    )
    assert "Nothing was measured or named to compare with." in page
    (picture,) = crops_of(page)
    assert picture["crops"][0]["title"].startswith("where the error is largest")

    class Fixed:
        """JPEG with the qualities it was measured at only, as learned baselines have."""

        name = "fixed"

        def __init__(self) -> None:
            self.compress, self.decompress = anchor("jpeg").compress, anchor("jpeg").decompress

    codecs = [measured.trials[0].codec, Fixed()]
    found = at_equal_bytes(measured.files[0], "a.png", codecs, measured.results)
    assert found.coded[1].quality in (10, 30, 60, 90)


def test_the_command_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_tiny(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    draw(Path("set/a.png"), size=(64, 48))
    result = diveq(
        *("eval", "set", "-q", "20,60,90", "-e", "1,5", "--anchor", "jpeg"), "--html", "r.html"
    )
    assert result.exit_code == 0, result.output
    page = Path("r.html").read_text("utf-8")
    assert "diveq-5-e1: 1 picture" in page
    (picture,) = crops_of(page)
    assert [codec["name"] for codec in picture["codecs"]] == [
        "original",
        "diveq-5-e1",
        "diveq-5-e5",
        "jpeg",
    ]
    again = diveq("eval", "set", "--html", "r.html")
    assert "r.html: already exists" in again.stderr


# Run by the browser after the page's own script: moves the slider, chooses, sorts, reports.
PROBE = """
<script>
var seen = { errors: window.failures || [] };
var stages = document.querySelectorAll(".stage");
seen.viewers = stages.length;
var slider = document.querySelector("input[type=range]");
seen.before = getComputedStyle(stages[0].querySelector(".right")).clipPath;
slider.value = 20;
slider.dispatchEvent(new Event("input"));
seen.after = getComputedStyle(stages[0].querySelector(".right")).clipPath;
var select = document.querySelector("select");
seen.choices = Array.from(select.options).map(function (option) { return option.text; });
seen.beside = document.querySelectorAll("select")[1].value;
select.value = 0;
select.dispatchEvent(new Event("change"));
seen.left = document.querySelector(".says span").textContent;
var heads = document.querySelectorAll("#pictures th");
function order() {
  return Array.from(document.querySelectorAll("#pictures tbody tr")).map(function (row) {
    return Number(row.cells[1].dataset.value);
  });
}
heads[1].click();
seen.rising = order();
heads[1].click();
seen.falling = order();
window.addEventListener("load", function () {
  seen.pictures = Array.from(document.images).map(function (image) { return image.naturalWidth; });
  seen.ready = document.body.dataset.ready;
  var report = document.createElement("pre");
  report.id = "probe";
  report.textContent = JSON.stringify(seen);
  document.body.appendChild(report);
});
</script>
"""
GUARD = "<script>var failures = []; onerror = function (m) { failures.push(m); };</script>"


def test_it_works_in_a_browser(page: str, tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser is installed (looked for {', '.join(BROWSERS)})")
    probed = page.replace("<style>", f"{GUARD}<style>", 1).replace("</body>", f"{PROBE}</body>")
    path = tmp_path / "report.html"
    path.write_text(probed, "utf-8")
    run = subprocess.run(
        [
            browser,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--virtual-time-budget=5000", f"--user-data-dir={tmp_path / 'profile'}"),
            *("--dump-dom", path.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    match = re.search(r'<pre id="probe">(.*?)</pre>', run.stdout, re.DOTALL)
    assert match, run.stderr[-2000:]
    seen = json.loads(html.unescape(match[1]))
    assert seen["errors"] == []
    assert seen["ready"] == "yes"
    assert seen["viewers"] == 3  # two crops of the large picture, one of the small
    assert (seen["before"], seen["after"]) == ("inset(0px 0px 0px 50%)", "inset(0px 0px 0px 20%)")
    assert seen["choices"] == ["original", "webp", "jpeg"]
    assert (seen["left"], seen["beside"]) == ("original", "2")
    assert seen["rising"] == sorted(seen["rising"])
    assert seen["falling"] == sorted(seen["rising"], reverse=True)
    # one plot, for a small picture leaves no MS-SSIM, and both sides of every viewer
    assert len(seen["pictures"]) == 1 + 2 * 3
    assert "No plot over MS-SSIM: no curve has ms-ssim to draw." in run.stdout
    assert min(seen["pictures"]) > 0


class Whole:
    """JPEG by another name, with the qualities it was measured at only."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.compress, self.decompress = anchor("jpeg").compress, anchor("jpeg").decompress


def curves_of(name: str, sizes: dict[str, float], errors: dict[str, float]) -> Results:
    """Results of pictures with so many times the bytes, and the error that MS-SSIM leaves.

    Twice the bytes are 4 dB of PSNR and half that error, so that BD-rates are known by hand.
    """
    rows = tuple(
        Row(
            *(image, 170, 165, 20 + 20 * step, round(1000 * factor * 2**step), 30 + 4 * step),
            *(1 - 0.1 * errors[image] / 2**step, 0.5, 0.25),
        )
        for image, factor in sizes.items()
        for step in range(4)
    )
    return Results(name, "", rows, {})


@pytest.fixture(scope="module")
def against_two(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with two anchors: which picture is best differs by anchor and by metric."""
    folder = tmp_path_factory.mktemp("two")
    files = [draw(folder / f"{name}.png", size=(170, 165)) for name in "abcd"]
    names = [path.name for path in files]
    ones = dict.fromkeys(names, 1.0)
    results = [
        curves_of("ours", ones, ones),
        curves_of(
            "left",
            dict(zip(names, (2.0, 0.8, 1.25, 1.0), strict=True)),
            dict(zip(names, (0.5, 1.0, 1.6, 0.5), strict=True)),
        ),
        curves_of(
            "right",
            dict(zip(names, (0.5, 1.0, 1.25, 2.0), strict=True)),
            dict(zip(names, (1.0, 1.6, 1.0, 0.5), strict=True)),
        ),
    ]
    qualities = tuple(row.quality for row in results[0].rows[:4])
    trials = [Trial(Whole(found.name), qualities, lambda: Whole("")) for found in results]
    return html_report(Report(trials, results, [], files, None))


def test_best_and_worst_are_told_against_each_anchor_and_in_both_metrics(against_two: str) -> None:
    table = against_two[against_two.index('id="pictures"') :].partition("</table>")[0]
    heads = re.findall(r"<th>(.*?)</th>", table)
    assert heads == ["picture", "size", "left", "left, MS-SSIM", "right", "right, MS-SSIM"]
    rows = [
        re.findall(r'<td class="(\w*)" data-value="(-?[\d.]+)"', row)
        for row in table.partition("<tbody>")[2].split("</tr>")[:-1]
    ]
    figures = np.array([[float(value) for _, value in row] for row in rows])
    # left: sizes; sizes times errors; right: the same
    shares = [(2, 0.8, 1.25, 1), (1, 0.8, 2, 0.5), (0.5, 1, 1.25, 2), (0.5, 1.6, 1.25, 1)]
    assert figures == pytest.approx(100 / np.array(shares).T - 100, abs=0.15)
    marks = [[mark for mark, _ in row] for row in rows]
    assert [list(column) for column in zip(*marks, strict=True)] == [
        ["best", "worst", "", ""],
        ["", "", "best", "worst"],
        ["worst", "", "", "best"],
        ["worst", "best", "", ""],
    ]
    # Crops of the worst and the best against each anchor, in PSNR; the same picture only once.
    pictures = crops_of(against_two)
    assert [picture["image"] for picture in pictures] == ["b.png", "a.png", "d.png"]
    names = ["original", "ours", "left", "right"]
    assert all([one["name"] for one in picture["codecs"]] == names for picture in pictures)


def test_both_metrics_are_plotted(against_two: str, page: str) -> None:
    plots = dict(
        re.findall(
            r'<img alt="([\w-]+) over rate" src="data:image/svg\+xml;base64,(.*?)"', against_two
        )
    )
    assert list(plots) == ["PSNR", "MS-SSIM"]
    titles = {"PSNR": "PSNR-RGB (dB)", "MS-SSIM": "MS-SSIM (dB)"}
    for metric, data in plots.items():
        svg = base64.b64decode(data).decode()
        ElementTree.fromstring(svg)
        assert titles[metric] in svg
        for name in ("ours", "left", "right"):
            assert name in svg
    assert "No plot over" not in against_two
    assert re.findall(r'<img alt="([\w-]+) over rate"', page) == ["PSNR"]
    assert "No plot over MS-SSIM: no curve has ms-ssim to draw." in page
