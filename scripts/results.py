"""The README's figures on a folder of pictures: measure, then write the table and the plot.

    python scripts/results.py measure KODAK     results/*.json, through real files (an hour or less)
    python scripts/results.py table             README.md, between its two markers
    python scripts/results.py plot              results/kodak.png and .svg

`make results KODAK=DIR` is the first, `make results-table` and `make results-plot` the others,
which need no pictures. `measure KODAK --only diveq webp` measures these codecs again and leaves the
other files alone. BD-rates are against the published curve of VTM over a fixed range of PSNR.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from diveqcodec import zoo
from diveqcodec.codec import Codec
from diveqcodec.errors import DiveqError
from diveqcodec.evaluate.anchors import anchor
from diveqcodec.evaluate.bdrate import bd_rate
from diveqcodec.evaluate.curves import Curve, published_curves, read_curve
from diveqcodec.evaluate.dvq import DvqCodec
from diveqcodec.evaluate.offered import ANCHORS, QUALITIES
from diveqcodec.evaluate.plot import PlotOptions, plot_curves
from diveqcodec.evaluate.report import results_json
from diveqcodec.evaluate.run import ImageCodec, Row, evaluate

ROOT = Path(__file__).resolve().parent.parent
README, RESULTS = ROOT / "README.md", ROOT / "results"
OURS = "diveq"
RANGE = (28.5, 38.5)  # dB, of the BD-rates
START, END = "<!-- results:", "<!-- end of results -->"


def measure(folder: Path, names: Sequence[str], target: Path) -> None:
    """Code every PNG picture of `folder` with each codec: `target`/NAME.json.

    Raises:
        DiveqError: there is no such picture, or one cannot be coded.
    """
    files = sorted(folder.glob("*.png"))
    if not files:
        raise DiveqError(f"{folder}: no PNG pictures there; give the folder that holds Kodak's 24")
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        codec: ImageCodec
        if name == OURS:
            codec = DvqCodec(Codec(zoo.load()))
            codec.name = OURS
            qualities: Sequence[float] = QUALITIES
        else:
            codec = anchor(name)
            qualities = codec.qualities
        with tempfile.TemporaryDirectory() as workdir:
            results = evaluate(codec, files, qualities, Path(workdir), _show)
        (target / f"{name}.json").write_text(results_json(results), "utf-8")


def table(readme: Path, results: Path) -> None:
    """Write the tables of `results`/*.json between the markers of `readme`.

    Raises:
        DiveqError: a file of results is missing, is of other pictures than the others, or the
            markers are not there.
    """
    content = _same_pictures(results)
    ours = read_curve(results / f"{OURS}.json")
    count, source = len(content["images"]), ours.description
    lines = ["", f"Kodak, {count} pictures, one model ({source}), bytes on disk:", ""]
    lines += ["| `-q` | bpp | PSNR-RGB | MS-SSIM |", "|---|---|---|---|"]
    columns = [content["results"][key] for key in ("bpp", "psnr-rgb", "ms-ssim-rgb")]
    for quality, bpp, psnr, ms_ssim in zip(content["qualities"], *columns, strict=True):
        similarity = "–" if ms_ssim is None else f"{ms_ssim:.4f}"
        lines.append(f"| {quality:g} | {bpp:.3f} | {psnr:.2f} dB | {similarity} |")
    lines += ["", f"Bits for equal PSNR against VTM (BD-rate, {RANGE[0]}–{RANGE[1]} dB):", ""]
    lines += ["| codec | BD-rate | measured |", "|---|---|---|"]
    for name, figure, where in sorted(_rates(ours, results), key=lambda row: row[1]):
        shown = f"**{name}**" if name == OURS else name
        lines.append(f"| {shown} | {figure:+.1f} % | {where} |")
    lines += ["", "![Rate-distortion curves on Kodak](results/kodak.png)", ""]
    text = readme.read_text("utf-8")
    head, start, rest = text.partition(START)
    marker, _, rest = rest.partition("\n")
    _, end, tail = rest.partition(END)
    if not (start and end):
        raise DiveqError(f"{readme}: the lines {START} ... --> and {END} are not in it")
    readme.write_text(head + START + marker + "\n" + "\n".join(lines) + END + tail, "utf-8")


def plot(results: Path) -> None:
    """Draw the curves of `results`/*.json there, as PNG and SVG."""
    published = published_curves("kodak")
    curves = [read_curve(results / f"{name}.json") for name in (OURS, *ANCHORS)]
    curves += [published[name] for name in ("vtm", "bmshj2018-hyperprior")]
    options = PlotOptions(
        title="Kodak: whole files, PSNR of 8-bit RGB", emphasised=frozenset({OURS})
    )
    for suffix in (".png", ".svg"):
        plot_curves(curves, results / f"kodak{suffix}", options)


def _same_pictures(results: Path) -> dict[str, Any]:
    """Our own file of results, after a look at the pictures of the others."""
    contents: dict[str, dict[str, Any]] = {}
    for name in (OURS, *ANCHORS):
        path = results / f"{name}.json"
        read_curve(path)  # raises what is wrong with the file
        contents[name] = json.loads(path.read_text("utf-8"))
        if contents[name]["images"] != contents[OURS]["images"]:
            raise DiveqError(f"{path}: is of other pictures than {OURS}.json; measure both again")
    return contents[OURS]


def _rates(ours: Curve, results: Path) -> list[tuple[str, float, str]]:
    published = published_curves("kodak")
    vtm = published.pop("vtm")
    rows = [(OURS, bd_rate(ours, vtm, RANGE).value, "here")]
    for name in ANCHORS:
        curve = read_curve(results / f"{name}.json")
        rows.append((name, bd_rate(curve, vtm, RANGE).value, "here, Pillow"))
    for name, curve in published.items():
        if min(curve.psnr) <= RANGE[0] and max(curve.psnr) >= RANGE[1]:
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
    measuring.add_argument("--only", nargs="+", choices=(OURS, *ANCHORS), default=(OURS, *ANCHORS))
    measuring.add_argument("--threads", type=int, default=0)
    commands.add_parser("table", help="write README.md's tables")
    commands.add_parser("plot", help="draw results/kodak.png and .svg")
    arguments = parser.parse_args()
    try:
        if arguments.command == "measure":
            if arguments.threads:
                torch.set_num_threads(arguments.threads)
            measure(arguments.folder, arguments.only, RESULTS)
        elif arguments.command == "table":
            table(README, RESULTS)
        else:
            plot(RESULTS)
    except DiveqError as error:
        parser.exit(1, f"Error: {error}\n")


if __name__ == "__main__":
    main()
