"""`diveq eval`: rates and distortions through real files, beside classical codecs."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from diveqcodec.cli import batch
from diveqcodec.cli.console import Misuse, describe
from diveqcodec.cli.files import check_target, write_atomic
from diveqcodec.cli.kinds import PICTURES
from diveqcodec.cli.options import (
    Session,
    find_model,
    force_option,
    model_option,
    session_options,
)
from diveqcodec.errors import ConfigError, DiveqError
from diveqcodec.evaluate.offered import ANCHORS, PLOT_SUFFIXES, QUALITIES

if TYPE_CHECKING:
    from diveqcodec.evaluate.baselines import LearnedBaseline
    from diveqcodec.evaluate.curves import Curve
    from diveqcodec.evaluate.run import ImageCodec, Results, Row

_Baselines = dict[str, dict[int, Path]]  # architecture -> quality -> weights


@dataclass(frozen=True, slots=True)
class _Outputs:
    """Files that the command writes, each None if it was not asked for."""

    json: Path | None
    csv: Path | None
    plot: Path | None
    images: Path | None


@dataclass(frozen=True, slots=True)
class _Trial:
    """A codec to measure: at these qualities, its decoded pictures going to a folder if any."""

    codec: ImageCodec
    qualities: Sequence[float]
    images: Path | None = None


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


def _parse_baselines(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> _Baselines:
    """['a:3=x.pth', 'a:5=y.pth'] -> {'a': {3: x.pth, 5: y.pth}}."""
    found: _Baselines = {}
    for value in values:
        head, separator, path = value.partition("=")
        architecture, colon, quality = head.partition(":")
        if not (architecture and colon and separator and path):
            raise click.BadParameter(
                f"{value!r} is not ARCH:QUALITY=PATH, such as bmshj2018-hyperprior:3=weights.pth"
            )
        if not (quality.isascii() and quality.isdecimal() and int(quality) < 1 << 16):
            raise click.BadParameter(f"{value!r}: the quality is a whole number from 0 to 65535")
        if not Path(path).is_file():
            raise click.BadParameter(f"{path}: no such file")
        checkpoints = found.setdefault(architecture, {})
        if int(quality) in checkpoints:
            raise click.BadParameter(f"{head}: given twice; give every quality once")
        checkpoints[int(quality)] = Path(path)
    return found


def _check_plot(
    _context: click.Context, _option: click.Parameter, value: Path | None
) -> Path | None:
    if value is not None and value.suffix.lower() not in PLOT_SUFFIXES:
        raise click.BadParameter(f"{value}: plots are written as {', '.join(PLOT_SUFFIXES)}")
    return value


@click.command(short_help="Measure rate and distortion on pictures.")
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option(
    "-q",
    "--qualities",
    metavar="LIST",
    default=",".join(f"{quality:g}" for quality in QUALITIES),
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
    "--baseline",
    "baselines",
    metavar="ARCH:QUALITY=PATH",
    multiple=True,
    callback=_parse_baselines,
    help="Measure a learned codec of CompressAI too, with these weights, such as "
    "mbt2018:3=weights.pth; may be repeated, once for every point of its curve.",
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
    help="Results in CompressAI's layout; those of other codecs go to FILE.CODEC.json.",
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
    baselines: _Baselines,
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
    has means over the pictures; one that cannot be read or coded is named and left out of all of
    them.
    """
    outputs = _Outputs(output, csv, plot, save_images)
    anchors = tuple(dict.fromkeys(anchors))
    _check_outputs(outputs, [*anchors, *baselines], force)
    entry = find_model(model)
    files = _pictures(session, dataset)
    from diveqcodec.evaluate.anchors import anchor
    from diveqcodec.evaluate.dvq import DvqCodec, DvqCodecByPart

    ours = (DvqCodecByPart if parts else DvqCodec)(session.codec(entry))
    known = _told_apart(curves, [ours.name, *anchors, *baselines])
    trials = [_Trial(ours, qualities, outputs.images)]
    trials += [_Trial(one, one.qualities) for one in map(anchor, anchors)]
    trials += [_Trial(one, one.qualities) for one in _learned(session, baselines)]
    results, left_out = _measure(session, trials, files)
    if results:
        _print(session, results, known, bd_range)
        _write(results, known, outputs)
    if left_out:
        session.finish(1)


def _learned(session: Session, baselines: _Baselines) -> list[LearnedBaseline]:
    """The learned codecs with their weights loaded.

    Raises:
        Misuse: there is no such architecture.
        DiveqError: the weights do not fit it, or compressai is not installed.
    """
    if not baselines:
        return []
    from diveqcodec.evaluate.baselines import LearnedBaseline

    device = str(session.device())
    try:
        return [LearnedBaseline(name, paths, device) for name, paths in baselines.items()]
    except ConfigError as error:
        raise Misuse(f"--baseline {error}") from error


def _measure(
    session: Session, trials: list[_Trial], files: list[Path]
) -> tuple[list[Results], set[Path]]:
    """The results of all trials on the pictures that every codec takes, and the other pictures.

    There are no results where there are no such pictures.
    """
    from diveqcodec.evaluate.run import evaluate, in_common

    left_out: set[Path] = set()
    steps = len(files) * sum(len(trial.qualities) for trial in trials)
    results = []
    with session.console.counter(steps, "file") as advance:

        def progress(_row: Row) -> None:
            advance(1)

        def refuse(path: Path, error: Exception) -> None:
            if path not in left_out:
                reason = describe(error).removeprefix(f"{path}: ")
                session.console.error(f"{path}: {reason}", error)
            left_out.add(path)

        for trial in trials:
            with tempfile.TemporaryDirectory() as workdir:
                where, images = Path(workdir), trial.images
                results.append(
                    evaluate(
                        *(trial.codec, files, trial.qualities, where, progress),
                        save_images=images,
                        refuse=refuse,
                    )
                )
    if len(left_out) == len(files):
        return [], left_out
    if left_out:
        session.console.note(f"{len(left_out)} of {len(files)} pictures left out for every codec")
    return in_common(results), left_out


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


def _told_apart(names: tuple[str, ...], measured: list[str]) -> list[Curve]:
    """The curves of --curve, under names that neither they nor the measured codecs share."""
    curves: list[Curve] = []
    for name in dict.fromkeys(names):
        curve = _curve(name)
        if curve.name in [*measured, *(one.name for one in curves)]:
            curve = replace(curve, name=f"{curve.name} ({name})")
        curves.append(curve)
    return curves


def _curve(name: str) -> Curve:
    """A published curve by its name, which then says so, or a file's.

    Raises:
        DiveqError: neither.
    """
    from diveqcodec.evaluate.curves import published_curves, read_curve

    published = published_curves()
    if name in published:
        return replace(published[name], name=f"{name} (published)")
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


def _json_files(path: Path, others: list[str]) -> list[Path]:
    """The file of our results and those of other codecs: r.json, r.webp.json."""
    return [path, *(path.with_name(f"{path.stem}.{name}{path.suffix}") for name in others)]


def _check_outputs(outputs: _Outputs, others: list[str], is_forced: bool) -> None:
    """Refuse before anything is measured, which may take hours."""
    targets = [] if outputs.json is None else _json_files(outputs.json, others)
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
