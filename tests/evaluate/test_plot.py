import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from diveqcodec.errors import DiveqError
from diveqcodec.evaluate.curves import Curve, published_curves
from diveqcodec.evaluate.plot import PlotOptions, _spread, plot_curves


@pytest.fixture
def curves() -> list[Curve]:
    ours = Curve.from_points("diveq", [0.2, 0.5, 1.1, 1.8], [29, 32.4, 36.2, 39.0])
    return [*published_curves().values(), ours]


def texts(svg: Path) -> list[tuple[str, float]]:
    """Every text of an SVG file with its height on the page."""
    found = re.findall(r'<text [^>]*?y="([-\d.]+)"[^>]*>([^<]+)</text>', svg.read_text("utf-8"))
    return [(text, float(height)) for height, text in found]


def test_png(curves: list[Curve], tmp_path: Path) -> None:
    path = tmp_path / "rd.png"
    plot_curves(curves, path, PlotOptions("Kodak", emphasised=["diveq"]))
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width > 1000
        colours = image.convert("RGB").getcolors(1 << 24)
    assert colours is not None
    assert (200, 16, 46) in {colour for _, colour in colours}  # the emphasised line


def test_svg_names_every_curve_without_overlap(curves: list[Curve], tmp_path: Path) -> None:
    path = tmp_path / "rd.svg"
    plot_curves(curves, path, PlotOptions("Kodak", emphasised=["diveq"]))
    names = {curve.name for curve in curves}
    labels = [(text, height) for text, height in texts(path) if text in names]
    assert sorted(text for text, _ in labels) == sorted(names)
    heights = sorted(height for _, height in labels)
    assert min(b - a for a, b in zip(heights, heights[1:], strict=False)) > 10  # 9-point text
    shown = {text for text, _ in texts(path)}
    assert {"Kodak", "bits per pixel", "PSNR-RGB (dB)"} <= shown


def test_the_same_curves_give_the_same_file(curves: list[Curve], tmp_path: Path) -> None:
    paths = [tmp_path / "a.svg", tmp_path / "b.svg"]
    for path in paths:
        plot_curves(curves, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_ms_ssim_leaves_out_curves_without_it(curves: list[Curve], tmp_path: Path) -> None:
    path = tmp_path / "rd.svg"
    plot_curves(curves, path, PlotOptions(metric="ms-ssim"))
    shown = {text for text, _ in texts(path)}
    assert "vtm" in shown
    assert "diveq" not in shown


def lines(svg: Path) -> set[str]:
    """The colours of the lines drawn through points inside the axes."""
    drawn = re.findall(r'<path d="[^"]*L[^"]*" clip-path="[^"]*" style="([^"]*)"', svg.read_text())
    return {style.split("stroke: ")[1][:7] for style in drawn if "fill: none" in style}


def test_every_curve_has_a_line_of_its_own(curves: list[Curve], tmp_path: Path) -> None:
    path = tmp_path / "rd.svg"
    plot_curves(curves, path, PlotOptions(emphasised=["diveq"]))
    assert len(lines(path) - {"#e4e4e4"}) == len(curves)  # but the grid


def test_a_curve_beyond_the_rates_shown_is_named(
    curves: list[Curve], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "rd.svg"
    curves = [*curves, Curve.from_points("far", [7, 9], [44, 46])]
    plot_curves(curves, path, PlotOptions(rates=(0.3, 2)))
    assert len(lines(path) - {"#e4e4e4"}) == len(curves) - 1
    assert "far" not in {text for text, _ in texts(path)}
    assert caplog.messages == ["far: not in the plot, for it has nothing where it is drawn"]
    # It passes through without a point inside.
    plot_curves(curves[-1:], path, PlotOptions(rates=(7.5, 8)))
    assert len(lines(path) - {"#e4e4e4"}) == 1
    with pytest.raises(DiveqError, match="no curve has a point from 0 to 2 bpp"):
        plot_curves(curves[-1:], path, PlotOptions(rates=(0, 2)))


def test_a_curve_far_below_what_the_plot_is_about_is_named(
    curves: list[Curve], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "rd.svg"
    plot_curves(
        [*curves, Curve.from_points("bad", [0.3], [8])], path, PlotOptions("", "psnr", ["diveq"])
    )
    assert "bad" not in {text for text, _ in texts(path)}
    assert [message.partition(":")[0] for message in caplog.messages] == ["bad"]


def test_one_point_is_enough(tmp_path: Path) -> None:
    plot_curves([Curve.from_points("dot", [0.5], [30])], tmp_path / "rd.svg")
    assert "dot" in {text for text, _ in texts(tmp_path / "rd.svg")}


def test_spread() -> None:
    assert _spread([1, 1.2, 5], 1, 0, 10) == pytest.approx([0.6, 1.6, 5])
    assert _spread([2, 4, 6], 1, 0, 10) == [2, 4, 6]
    assert _spread([8, 9.5, 9.8], 1, 0, 10) == [8, 9, 10]
    assert _spread([-3, -3, 4], 1, 0, 10) == [0, 1, 4]


def test_what_cannot_be_drawn(curves: list[Curve], tmp_path: Path) -> None:
    with pytest.raises(DiveqError, match=r"written as \.png, \.svg, \.pdf"):
        plot_curves(curves, tmp_path / "rd.gif")
    with pytest.raises(DiveqError, match="no curve has psnr"):
        plot_curves([], tmp_path / "rd.png")
    (tmp_path / "no").write_text("")
    with pytest.raises(DiveqError, match="cannot write the plot"):
        plot_curves(curves, tmp_path / "no" / "rd.png")


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_plot_is_the_old_one_or_the_new_one(
    suffix: str, curves: list[Curve], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder of its own, which is made: other files of results have theirs made too."""
    path = tmp_path / "new" / f"rd{suffix}"
    plot_curves(curves, path)
    before = path.read_bytes()
    assert before[:4] in (b"\x89PNG", b"<?xm", b"%PDF")

    def fail(path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(DiveqError, match="cannot write the plot: No space left on device"):
        plot_curves(curves, path)
    assert list(path.parent.iterdir()) == [path]
    assert path.read_bytes() == before


def test_without_matplotlib(
    curves: list[Curve], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        DiveqError, match="matplotlib.figure: not installed; .* pip install matplotlib"
    ):
        plot_curves(curves, tmp_path / "rd.png")
