"""`diveq eval`: rates and distortions through real files, beside classical codecs."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from diveqcodec.cli import batch
from diveqcodec.cli.files import check_target, write_atomic
from diveqcodec.cli.kinds import PICTURES
from diveqcodec.cli.options import (
    Session,
    find_model,
    force_option,
    model_option,
    session_options,
)
from diveqcodec.errors import DiveqError

if TYPE_CHECKING:
    from diveqcodec.evaluate.curves import Curve
    from diveqcodec.evaluate.run import ImageCodec, Results, Row

ANCHORS = ("jpeg", "jpeg2000", "webp", "avif")  # as diveqcodec.evaluate.anchors has them
QUALITIES = "5,20,35,50,65,80,95"
_PLOTS = (".png", ".svg", ".pdf")


@dataclass(frozen=True, slots=True)
class _Outputs:
    """Files that the command writes, each None if it was not asked for."""

    json: Path | None
    csv: Path | None
    plot: Path | None
    images: Path | None


def _parse_qualities(
    _context: click.Context, _option: click.Parameter, value: str
) -> tuple[float, ...]:
    try:
        qualities = tuple(dict.fromkeys(float(part) for part in value.split(",")))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a list such as 20,50,80") from error
    if not all(1 <= quality <= 100 for quality in qualities):
        raise click.BadParameter(f"{value!r}: qualities are from 1 to 100")
    return qualities


def _parse_range(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> tuple[float, float] | None:
    if value is None:
        return None
    try:
        low, high = (float(part) for part in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not two numbers such as 28.5,38.5") from error
    if not low < high:
        raise click.BadParameter(f"{value!r}: the lower end comes first")
    return low, high


def _check_plot(
    _context: click.Context, _option: click.Parameter, value: Path | None
) -> Path | None:
    if value is not None and value.suffix.lower() not in _PLOTS:
        raise click.BadParameter(f"{value}: plots are written as {', '.join(_PLOTS)}")
    return value


@click.command(short_help="Measure rate and distortion on pictures.")
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option(
    "-q",
    "--qualities",
    metavar="LIST",
    default=QUALITIES,
    show_default=True,
    callback=_parse_qualities,
    help="Qualities, with commas.",
)
@model_option
@click.option(
    "--anchor",
    "anchors",
    type=click.Choice(ANCHORS),
    multiple=True,
    help="Measure this codec too, and give BD-rates; may be repeated.",
)
@click.option(
    "--curve",
    "curves",
    metavar="FILE|NAME",
    multiple=True,
    help="A curve to compare with: a result file in CompressAI's layout, or one of the published "
    "curves on Kodak that come along (jpeg, webp, bpg, vtm, ...); may be repeated.",
)
@click.option(
    "--range",
    "bd_range",
    metavar="LOW,HIGH",
    callback=_parse_range,
    help="Range of PSNR in dB for the BD-rates; without it, all that two curves share.",
)
@click.option("--parts", is_flag=True, help="Also say what the bits are spent on.")
@click.option(
    "-o",
    "--output",
    metavar="FILE.json",
    type=click.Path(path_type=Path),
    help="Results in CompressAI's layout; those of an anchor go to FILE.ANCHOR.json.",
)
@click.option("--csv", metavar="FILE", type=click.Path(path_type=Path), help="Every picture.")
@click.option(
    "--plot",
    metavar="FILE",
    type=click.Path(path_type=Path),
    callback=_check_plot,
    help="Rate-distortion curves as .png, .svg or .pdf.",
)
@click.option(
    "--save-images",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Keep the decoded pictures, as PNG.",
)
@force_option
@session_options(json=False)
def command(
    session: Session,
    dataset: Path,
    qualities: tuple[float, ...],
    model: str | None,
    anchors: tuple[str, ...],
    curves: tuple[str, ...],
    bd_range: tuple[float, float] | None,
    parts: bool,
    output: Path | None,
    csv: Path | None,
    plot: Path | None,
    save_images: Path | None,
    force: bool,
) -> None:
    """Measure rate and distortion on the pictures of DATASET, a folder or one picture.

    Rates are sizes of files on disk, and distortions those of pictures decoded from them. The table
    has means over the pictures. Needs pip install 'diveqcodec[eval]'.
    """
    outputs = _Outputs(output, csv, plot, save_images)
    _check_outputs(outputs, anchors, force)
    entry = find_model(model)
    files = _pictures(session, dataset)
    from diveqcodec.evaluate.anchors import anchor
    from diveqcodec.evaluate.ours import Measured, MeasuredByPart

    known = [_curve(name) for name in dict.fromkeys(curves)]
    others = [anchor(name) for name in dict.fromkeys(anchors)]
    ours = (MeasuredByPart if parts else Measured)(session.codec(entry))
    results = [_measure(session, ours, files, qualities, outputs.images)]
    results += [_measure(session, other, files, other.qualities, None) for other in others]
    _print(session, results, known, bd_range)
    _write(results, known, outputs)


def _measure(
    session: Session,
    codec: ImageCodec,
    files: list[Path],
    qualities: tuple[float, ...],
    images: Path | None,
) -> Results:
    from diveqcodec.evaluate.run import evaluate

    with (
        session.console.counter(len(files) * len(qualities), "file") as advance,
        tempfile.TemporaryDirectory() as workdir,
    ):

        def progress(_row: Row) -> None:
            advance(1)

        return evaluate(codec, files, qualities, Path(workdir), progress, save_images=images)


def _print(
    session: Session,
    results: list[Results],
    known: list[Curve],
    bd_range: tuple[float, float] | None,
) -> None:
    from diveqcodec.evaluate.report import bd_table, results_table

    blocks = []
    for one in results:
        pictures = len(one.images)
        noun = "picture" if pictures == 1 else "pictures"
        blocks.append(f"{one.name}: {pictures} {noun}\n{results_table(one)}")
    tested, *anchors = (one.curve() for one in results)
    if anchors or known:
        blocks.append(bd_table(tested, anchors + known, bd_range))
    session.console.result("\n\n".join(blocks))


def _curve(name: str) -> Curve:
    """A published curve by its name, or a file's.

    Raises:
        DiveqError: neither.
    """
    from diveqcodec.evaluate.curves import published_curves, read_curve

    published = published_curves()
    if name in published:
        return published[name]
    if not Path(name).exists():
        raise DiveqError(f"{name}: no such file or curve; there are: {', '.join(published)}")
    return read_curve(Path(name))


def _write(results: list[Results], known: list[Curve], outputs: _Outputs) -> None:
    from diveqcodec.evaluate.report import results_csv, results_json

    if outputs.json is not None:
        paths = _json_files(outputs.json, [one.name for one in results[1:]])
        for path, one in zip(paths, results, strict=True):
            write_atomic(path, results_json(one).encode())
    if outputs.csv is not None:
        write_atomic(outputs.csv, _joined([results_csv(one) for one in results]).encode())
    if outputs.plot is not None:
        _plot([*(one.curve() for one in results), *known], outputs.plot)


def _joined(tables: list[str]) -> str:
    """CSV tables as one, for each has the codec's name in its first column.

    The first has the most columns: a codec's own parts come last, and the others have none.
    """
    head, *lines = tables[0].splitlines()
    for table in tables[1:]:
        its_head, *its_lines = table.splitlines()
        missing = "," * (head.count(",") - its_head.count(","))
        lines += [line + missing for line in its_lines]
    return "\n".join([head, *lines]) + "\n"


def _plot(curves: list[Curve], path: Path) -> None:
    from diveqcodec.evaluate.plot import PlotOptions, plot_curves

    plot_curves(curves, path, PlotOptions(emphasised=[curves[0].name]))


def _json_files(path: Path, anchors: list[str]) -> list[Path]:
    """The file of our results and those of the anchors: r.json, r.webp.json."""
    return [path, *(path.with_name(f"{path.stem}.{name}{path.suffix}") for name in anchors)]


def _check_outputs(outputs: _Outputs, anchors: tuple[str, ...], is_forced: bool) -> None:
    """Refuse before anything is measured, which may take hours."""
    targets = [] if outputs.json is None else _json_files(outputs.json, list(anchors))
    targets += [path for path in (outputs.csv, outputs.plot) if path is not None]
    for target in targets:
        check_target(target, None, is_forced)


def _pictures(session: Session, dataset: Path) -> list[Path]:
    """The picture files of a dataset.

    Raises:
        DiveqError: there are none.
    """
    if not dataset.exists():
        raise DiveqError(f"{dataset}: no such file or folder")
    sources = batch.expand([str(dataset)], PICTURES, session.console)
    return [source.path for source in sources if source.path is not None]
