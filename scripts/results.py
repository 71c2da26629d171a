"""The README's figures on a folder of pictures: measure, then write the table and the plot.

    python scripts/results.py measure KODAK     results/*.json, through real files (an hour or less)
    python scripts/results.py table             README.md, between its two markers
    python scripts/results.py plot              results/kodak.png and .svg

`make results KODAK=DIR` is the first, `make results-table` and `make results-plot` the others,
which need no pictures. BD-rates are against the published curve of VTM over a fixed range of PSNR.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from diveqcodec import zoo
from diveqcodec.codec import Codec
from diveqcodec.evaluate.anchors import ANCHORS, anchor
from diveqcodec.evaluate.bdrate import bd_rate
from diveqcodec.evaluate.curves import Curve, published_curves, read_curve
from diveqcodec.evaluate.ours import Measured
from diveqcodec.evaluate.plot import PlotOptions, plot_curves
from diveqcodec.evaluate.report import results_json
from diveqcodec.evaluate.run import ImageCodec, Row, evaluate

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
OURS = "diveq"
QUALITIES = (5.0, 20.0, 35.0, 50.0, 65.0, 80.0, 95.0)
RANGE = (28.5, 38.5)  # dB, of the BD-rates
HERE = ("jpeg", "jpeg2000", "webp", "avif")  # coded here, through Pillow
START, END = "<!-- results:", "<!-- end of results -->"


def measure(folder: Path, names: Sequence[str]) -> None:
    """Code every picture of `folder` with our model and with the classical codecs."""
    files = sorted(folder.glob("*.png"))
    RESULTS.mkdir(exist_ok=True)
    for name in names:
        codec: ImageCodec
        if name == OURS:
            codec = Measured(Codec(zoo.load()))
            codec.name = OURS
            qualities: Sequence[float] = QUALITIES
        else:
            codec = anchor(name)
            qualities = ANCHORS[name].qualities
        with tempfile.TemporaryDirectory() as workdir:
            results = evaluate(codec, files, qualities, Path(workdir), _show)
        (RESULTS / f"{name}.json").write_text(results_json(results), "utf-8")


def table() -> None:
    """Write the tables between the markers of README.md."""
    ours = read_curve(RESULTS / f"{OURS}.json")
    vtm = published_curves("kodak")["vtm"]
    lines = ["", f"Kodak, 24 pictures, one model ({ours.description}), bytes on disk:", ""]
    lines += ["| `-q` | bpp | PSNR-RGB | MS-SSIM |", "|---|---|---|---|"]
    for quality, *point in zip(QUALITIES, ours.bpp, ours.psnr, ours.ms_ssim, strict=True):
        lines.append("| {:g} | {:.3f} | {:.2f} dB | {:.4f} |".format(quality, *point))
    lines += ["", f"Bits for equal PSNR against VTM (BD-rate, {RANGE[0]}–{RANGE[1]} dB):", ""]
    lines += ["| codec | BD-rate | measured |", "|---|---|---|"]
    for name, figure, where in sorted(_rates(ours, vtm), key=lambda row: row[1]):
        shown = f"**{name}**" if name == OURS else name
        lines.append(f"| {shown} | {figure:+.1f} % | {where} |")
    lines += ["", "![Rate-distortion curves on Kodak](results/kodak.png)", ""]
    readme = ROOT / "README.md"
    text = readme.read_text("utf-8")
    head, rest = text.split(START, 1)
    marker, rest = rest.split("\n", 1)
    _, tail = rest.split(END, 1)
    readme.write_text(head + START + marker + "\n" + "\n".join(lines) + END + tail, "utf-8")


def plot() -> None:
    """Draw the curves as PNG and SVG."""
    published = published_curves("kodak")
    curves = [read_curve(RESULTS / f"{name}.json") for name in (OURS, *HERE)]
    curves += [published[name] for name in ("vtm", "bmshj2018-hyperprior") if name in published]
    options = PlotOptions(
        title="Kodak: whole files, PSNR of 8-bit RGB", emphasised=frozenset({OURS})
    )
    for suffix in (".png", ".svg"):
        plot_curves(curves, RESULTS / f"kodak{suffix}", options)


def _rates(ours: Curve, vtm: Curve) -> list[tuple[str, float, str]]:
    rows = [(OURS, bd_rate(ours, vtm, RANGE).value, "here")]
    for name in HERE:
        curve = read_curve(RESULTS / f"{name}.json")
        rows.append((name, bd_rate(curve, vtm, RANGE).value, "here, Pillow"))
    for name, curve in published_curves("kodak").items():
        lowest, highest = min(curve.psnr), max(curve.psnr)
        if name != "vtm" and lowest <= RANGE[0] and highest >= RANGE[1]:
            rows.append((name, bd_rate(curve, vtm, RANGE).value, "published"))
    return rows


def _show(row: Row) -> None:
    sys.stderr.write(f"{row.image} q{row.quality:g} {row.bpp:.4f} bpp {row.psnr:.3f} dB\n")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure", help="code a folder of PNG pictures")
    measuring.add_argument("folder", type=Path)
    measuring.add_argument("--only", nargs="+", choices=(OURS, *HERE), default=(OURS, *HERE))
    measuring.add_argument("--threads", type=int, default=0)
    commands.add_parser("table", help="write README.md's tables")
    commands.add_parser("plot", help="draw results/kodak.png and .svg")
    arguments = parser.parse_args()
    if arguments.command == "measure":
        if arguments.threads:
            torch.set_num_threads(arguments.threads)
        measure(arguments.folder, arguments.only)
    elif arguments.command == "table":
        table()
    else:
        plot()


if __name__ == "__main__":
    main()
