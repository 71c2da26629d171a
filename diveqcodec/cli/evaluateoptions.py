"""What the options of `diveq eval` mean: texts of the command line to values, or wrong usage."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from diveqcodec.errors import ConfigError
from diveqcodec.evaluate.offered import PLOT_SUFFIXES
from diveqcodec.quality import HIGHEST, LOWEST

if TYPE_CHECKING:
    from diveqcodec.evaluate.comparison import Range

Baselines = dict[str, dict[int, Path]]  # architecture -> quality -> weights
_WHOLE = re.compile("[0-9]{1,9}")  # Python makes no number of some thousand digits


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command's options, as click names them."""

    dataset: str
    qualities: tuple[float, ...]
    efforts: tuple[int, ...]
    model: str | None
    anchors: tuple[str, ...]
    baselines: Baselines
    curves: tuple[str, ...]
    bd_range: Range | None
    parts: bool
    output: Path | None
    csv: Path | None
    plot: Path | None
    html: Path | None
    save_images: Path | None
    jobs: int | None
    cluster: str | None
    resume: Path | None
    force: bool


def parse_qualities(
    _context: click.Context, _option: click.Parameter, value: str
) -> tuple[float, ...]:
    """'20,50' -> (20.0, 50.0)."""
    try:
        qualities = tuple(dict.fromkeys(float(part) for part in value.split(",")))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a list such as 20,50,80") from error
    if not all(LOWEST <= quality <= HIGHEST for quality in qualities):
        raise click.BadParameter(f"{value!r}: qualities are from {LOWEST} to {HIGHEST}")
    return qualities


def parse_efforts(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> tuple[int, ...]:
    """'1,5' -> (1, 5); the codec knows which there are."""
    if value is None:
        return ()
    parts = value.split(",")
    if not all(_WHOLE.fullmatch(part) for part in parts):
        raise click.BadParameter(f"{value!r} is not a list such as 1,5")
    return tuple(dict.fromkeys(map(int, parts)))


def parse_anchors(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    """Each anchor once, all of them known: avif and avif:speed=6 are the same."""
    if not values:
        return ()
    from diveqcodec.evaluate.anchors import parse

    found: dict[str, str] = {}
    try:
        for value in values:
            found.setdefault(parse(value).name, value)
    except ConfigError as error:
        raise click.BadParameter(str(error)) from error
    return tuple(found.values())


def parse_range(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> tuple[float, float] | None:
    """'28.5,38.5' -> (28.5, 38.5)."""
    if value is None:
        return None
    try:
        low, high = (float(part) for part in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not two numbers such as 28.5,38.5") from error
    if not (math.isfinite(low) and math.isfinite(high)):
        raise click.BadParameter(f"{value!r}: both ends are finite numbers")
    if not low < high:
        raise click.BadParameter(f"{value!r}: the lower end comes first")
    return low, high


def parse_baselines(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> Baselines:
    """['a:3=x.pth', 'a:5=y.pth'] -> {'a': {3: x.pth, 5: y.pth}}."""
    found: Baselines = {}
    for value in values:
        head, separator, path = value.partition("=")
        architecture, colon, quality = head.partition(":")
        if not (architecture and colon and separator and path):
            raise click.BadParameter(
                f"{value!r} is not ARCH:QUALITY=PATH, such as bmshj2018-hyperprior:3=weights.pth"
            )
        if not (_WHOLE.fullmatch(quality) and int(quality) < 1 << 16):
            raise click.BadParameter(f"{value!r}: the quality is a whole number from 0 to 65535")
        if not Path(path).is_file():
            raise click.BadParameter(f"{path}: no such file")
        checkpoints = found.setdefault(architecture, {})
        if int(quality) in checkpoints:
            raise click.BadParameter(f"{head}: given twice; give every quality once")
        checkpoints[int(quality)] = Path(path)
    return found


def check_plot(
    _context: click.Context, _option: click.Parameter, value: Path | None
) -> Path | None:
    """A file name whose suffix is a format of plots."""
    if value is not None and value.suffix.lower() not in PLOT_SUFFIXES:
        raise click.BadParameter(f"{value}: plots are written as {', '.join(PLOT_SUFFIXES)}")
    return value
