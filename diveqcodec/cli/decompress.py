"""`diveq decompress`: `.dvq` files to pictures."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import click

from diveqcodec.cli import batch, completion, dvq
from diveqcodec.cli.batch import PICTURE_SUFFIXES, Naming
from diveqcodec.cli.console import Misuse
from diveqcodec.cli.files import STREAM
from diveqcodec.cli.jobs import Job, Outcome, Writing, store
from diveqcodec.cli.kinds import DVQ, DVQ_SUFFIX
from diveqcodec.cli.options import (
    Session,
    background_option,
    batch_options,
    check_cluster,
    check_existing,
    find_model,
    force_option,
    model_option,
    session_options,
)
from diveqcodec.cli.standing import picture_state
from diveqcodec.cli.tiles import crop_options, decompressed
from diveqcodec.container.bitstream import NO_MODEL
from diveqcodec.errors import ModelError
from diveqcodec.image.kinds import SUFFIXES

if TYPE_CHECKING:
    from diveqcodec.container.canvas import Crop
    from diveqcodec.image import Format
    from diveqcodec.zoo import Entry

SUFFIX_OF: dict[Format, str] = {
    "png": ".png",
    "jpeg": ".jpg",
    "webp": ".webp",
    "tiff": ".tiff",
    "ppm": ".ppm",
}


@dataclass(frozen=True, slots=True)
class _Settings:
    """The command's options; `entry` is what `-m` names."""

    inputs: tuple[str, ...]
    format: Format
    crop: Crop | None
    is_partial: bool
    background: tuple[int, int, int] | None
    writing: Writing
    entry: Entry | None


@click.command(short_help="Decompress .dvq files to pictures.")
@click.argument(
    "inputs", metavar="INPUT...", nargs=-1, required=True, shell_complete=completion.dvq_files
)
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    shell_complete=completion.files,
    help="A file, a folder, or - for stdout.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(list(SUFFIX_OF)),
    help="Of the picture; the default is what -o ends in, else png.",
)
@crop_options
@model_option
@background_option
@force_option
@batch_options
@session_options()
def command(
    session: Session,
    inputs: tuple[str, ...],
    output: str | None,
    format_: Format | None,
    crop: Crop | None,
    partial: bool,
    model: str | None,
    background: tuple[int, int, int] | None,
    force: bool,
    processes: int,
    skip_existing: bool,
    keep_times: bool,
    cluster: str | None,
) -> None:
    """Decompress .dvq files to pictures.

    INPUT is a .dvq file, a folder (recursively), or - for stdin. A file names its model, so -m is
    only needed for weights that are not installed. Everything but JPEG is written losslessly.
    """
    check_existing(force, skip_existing)
    check_cluster(cluster, processes, keep_times, [*inputs, output])
    chosen = _format(output, inputs, format_)
    sources = batch.expand(inputs, DVQ, session.console)
    jobs = batch.plan(inputs, sources, output, Naming(SUFFIX_OF[chosen], (DVQ_SUFFIX,)))
    batch.check_json(jobs, session.console)
    entry = None if model is None else find_model(model)
    writing = Writing(force, keep_times)
    last = inputs[-2:]  # of 10,000 names no process needs more
    settings = _Settings(last, chosen, crop, partial, background, writing, entry)
    work = functools.partial(_decompress, settings)
    status = batch.run(
        *(jobs, work, session),
        processes=processes,
        cluster=cluster,
        looks=picture_state if skip_existing else None,
    )
    session.finish(status)


def _decompress(settings: _Settings, job: Job, session: Session) -> Outcome:
    from diveqcodec import image

    start = time.perf_counter()
    data, header = dvq.read(job.source, settings.inputs, tuple(PICTURE_SUFFIXES))
    batch.check(job, settings.writing.is_forced)
    entry, loading = None, 0.0
    if header.model_id != NO_MODEL:
        entry = _entry(session, header.model_id, settings.entry)
        _, loading = session.timed_codec(entry)
    picture = decompressed(session, entry, data, settings.crop, settings.is_partial)
    if settings.background is not None:
        picture = image.flatten(picture, settings.background)
    stream = BytesIO()
    notices = picture.notices + image.save(
        picture, stream, settings.format, workers=session.cores()
    )
    store(job, stream.getvalue(), settings.writing)
    seconds = time.perf_counter() - start - loading
    height, width = picture.pixels.shape[:2]
    line = f"{job.source.name} -> {job.target_name}   {width}x{height}   {seconds:.2f} s"
    record = {
        "input": job.source.name,
        "output": job.target_name,
        "width": width,
        "height": height,
        "format": settings.format,
        "model": None if entry is None else entry.name,
        "model_id": None if entry is None else entry.model_id,
        "seconds": seconds,
        "notices": list(notices),
    }
    return Outcome(line, record, notices, len(data), len(stream.getvalue()))


def _entry(session: Session, model_id: bytes, given: Entry | None) -> Entry:
    """The weights that a file needs: those of `-m` if they are the ones, else installed ones.

    Raises:
        ModelError: there are none.
    """
    wanted = model_id.hex()
    if given is not None and given.model_id == wanted:
        return given
    found = session.installed(model_id)
    if found is not None:
        return found
    if given is not None:
        raise ModelError(f"needs model {wanted}, not {given.name} ({given.model_id})")
    raise ModelError(f"needs model {wanted}, which is not installed; give it with -m PATH")


def _format(output: str | None, inputs: tuple[str, ...], asked: Format | None) -> Format:
    """The format to write: what `--format` or the name of the output asks for.

    Raises:
        Misuse: they contradict each other, or the suffix says nothing that can be written.
    """
    suffix = "" if output in (None, STREAM) else Path(output or "").suffix.lower()
    if not suffix or batch.is_folder_name(output or ""):
        return asked or "png"
    named = next((one for one in SUFFIX_OF if PICTURE_SUFFIXES.get(suffix) == one), None)
    if batch.may_make_several(inputs):
        return asked or named or "png"  # a folder to be made, with a dot in its name
    if asked is not None:
        if named != asked and suffix in {DVQ_SUFFIX, *SUFFIXES}:
            raise Misuse(f"-o {output}: {suffix} is not {asked}, which --format asks for")
        return asked
    if named is None:
        raise Misuse(f"-o {output}: {suffix} cannot be written; say with --format what shall be")
    return named
