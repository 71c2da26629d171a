"""`diveq compress`: pictures to `.dvq` files."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from diveqcodec.cli import batch
from diveqcodec.cli.batch import Job, Outcome
from diveqcodec.cli.files import read_stdin
from diveqcodec.cli.kinds import PICTURES
from diveqcodec.cli.options import (
    Session,
    background_option,
    find_model,
    force_option,
    model_option,
    session_options,
)
from diveqcodec.cli.tiles import compressed, lossless_options
from diveqcodec.errors import DiveqError, ImageError

if TYPE_CHECKING:
    from diveqcodec.encoder import Lossless
    from diveqcodec.image import Picture
    from diveqcodec.zoo import Entry

EFFORTS = ("1", "5")  # as the codec has them, which is not loaded for --help


@dataclass(frozen=True, slots=True)
class _Settings:
    """The command's options."""

    inputs: tuple[str, ...]
    quality: float
    effort: int
    lossless: Lossless
    metadata: Literal["none", "icc", "all"]
    background: tuple[int, int, int] | None
    is_forced: bool
    entry: Entry


@click.command(short_help="Compress pictures to .dvq files.")
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@click.option("-o", "--output", metavar="PATH", help="A file, a folder, or - for stdout.")
@click.option(
    "-q",
    "--quality",
    type=click.FloatRange(1, 100),
    default=50,
    show_default=True,
    help="1 is smallest, 100 best.",
)
@click.option(
    "-e",
    "--effort",
    type=click.Choice(EFFORTS),
    default="5",
    show_default=True,
    help="1 takes the nearest codewords, 5 weighs them against their bits.",
)
@lossless_options
@model_option
@click.option(
    "--metadata",
    type=click.Choice(["none", "icc", "all"]),
    default="icc",
    show_default=True,
    help="What to keep beside the pixels: all is ICC profile, EXIF and XMP.",
)
@background_option
@force_option
@session_options()
def command(
    session: Session,
    inputs: tuple[str, ...],
    output: str | None,
    quality: float,
    effort: str,
    lossless: Lossless,
    model: str | None,
    metadata: Literal["none", "icc", "all"],
    background: tuple[int, int, int] | None,
    force: bool,
) -> None:
    """Compress pictures to .dvq files.

    INPUT is a picture of any format, a folder (recursively), or - for stdin. The output lies beside
    the input unless -o names another place; with a folder as -o the tree is mirrored.
    """
    sources = batch.expand(inputs, PICTURES, session.console)
    jobs = batch.plan(inputs, sources, output, ".dvq")
    batch.check_json(jobs, session.console)
    settings = _Settings(
        inputs, quality, int(effort), lossless, metadata, background, force, find_model(model)
    )
    status = batch.run(jobs, lambda job: _compress(job, session, settings), session.console)
    session.finish(status)


def _compress(job: Job, session: Session, settings: _Settings) -> Outcome:
    start = time.perf_counter()
    batch.check(job, settings.is_forced)
    picture = _prepared(_load(job, settings.inputs), settings)
    height, width, channels = picture.pixels.shape
    entry, loading = None, 0.0
    if settings.lossless != "always":
        entry = settings.entry
        _, loading = session.timed_codec(entry)
    data = compressed(session, entry, picture, settings.quality, settings.effort, settings.lossless)
    batch.store(job, data)
    seconds = time.perf_counter() - start - loading
    raw = width * height * (channels + (picture.alpha is not None))
    bpp, ratio = 8 * len(data) / (width * height), raw / len(data)
    line = (
        f"{job.source.name} -> {job.target_name}   {width}x{height}   {len(data):,} B   "
        f"{bpp:.3f} bpp   {ratio:.0f}:1   {seconds:.2f} s"
    )
    record = {
        "input": job.source.name,
        "output": job.target_name,
        "width": width,
        "height": height,
        "bytes": len(data),
        "bpp": bpp,
        "ratio": ratio,
        "quality": settings.quality,
        "effort": settings.effort,
        "model": None if entry is None else entry.name,
        "model_id": None if entry is None else entry.model_id,
        "seconds": seconds,
        "notices": list(picture.notices),
    }
    return Outcome(line, record, picture.notices)


def _load(job: Job, inputs: tuple[str, ...]) -> Picture:
    from diveqcodec import image

    path, name = job.source.path, job.source.name
    source: Path | BytesIO = BytesIO(read_stdin()) if path is None else path
    try:
        return image.load(source, name=name)
    except ImageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            hint = batch.hint_output(inputs, job.source, (".dvq",))
            raise DiveqError(f"{name}: no such file{hint}") from error
        raise


def _prepared(picture: Picture, settings: _Settings) -> Picture:
    """The picture as it is to be stored: flattened, and without the metadata not asked for."""
    from diveqcodec import image

    if settings.background is not None:
        picture = image.flatten(picture, settings.background)
    if settings.metadata != "all":
        picture = replace(picture, exif=None, xmp=None)
    if settings.metadata == "none":
        picture = replace(picture, icc=None)
    return picture
