"""`diveq thumbnail`: a small PNG of a `.dvq` file, as file managers ask for it."""

from __future__ import annotations

import contextlib
from io import BytesIO
from pathlib import Path

import click

from diveqcodec.cli import completion, dvq
from diveqcodec.cli.console import OutputError, reason
from diveqcodec.cli.files import check_target, write_atomic
from diveqcodec.cli.jobs import Source
from diveqcodec.cli.options import Session, force_option, session_options
from diveqcodec.container.bitstream import NO_MODEL
from diveqcodec.errors import DiveqError


@click.command(short_help="Make a small PNG of a .dvq file.")
@click.argument("source", metavar="FILE", shell_complete=completion.dvq_files)
@click.argument("target", metavar="OUTPUT", type=click.Path(path_type=Path))
@click.option(
    "-s",
    "--size",
    type=click.IntRange(1, 4096),
    default=256,
    show_default=True,
    help="Longest side in pixels; smaller pictures stay as they are.",
)
@force_option
@session_options(json=False)
def command(session: Session, source: str, target: Path, size: int, force: bool) -> None:
    """Make a small PNG of a .dvq file, for file managers (see diveq desktop).

    Transparency and the colour profile are kept.
    """
    from PIL import Image

    from diveqcodec import image

    path = Path(source)
    check_target(target, path, force, in_place=True)
    try:
        data, header = dvq.read(Source(source, path), [source])
        if header.model_id == NO_MODEL:
            from diveqcodec.container import pixelfile

            picture = pixelfile.decompress(data)
        else:
            from diveqcodec import api

            picture = api.decompress(data, device=session.device())
    except DiveqError as error:
        raise DiveqError(f"{source}: {str(error).removeprefix(f'{source}: ')}") from error
    stream = BytesIO()
    image.save(picture, stream, "png")
    with Image.open(stream) as whole:
        whole.thumbnail((size, size))
        small = BytesIO()
        whole.save(small, "png", icc_profile=picture.icc)
    _write(target, small.getvalue())


def _write(target: Path, data: bytes) -> None:
    """Write a file whole, but for one that is empty, which is written where it lies.

    File managers make an empty file and hold it open: they would not see another in its place.
    Nor may they write beside it, perhaps, so one with something in it is then written there too.

    Raises:
        OutputError: it cannot be written; what it held is put back.
    """
    if not (target.is_file() and not target.stat().st_size):
        try:
            write_atomic(target, data)
            return
        except OutputError as error:
            if not (isinstance(error.__cause__, PermissionError) and target.is_file()):
                raise
    before: bytes | None = None
    try:
        before = target.read_bytes()
        target.write_bytes(data)
    except OSError as error:
        with contextlib.suppress(OSError):
            if before is not None:
                target.write_bytes(before)
        raise OutputError(f"{target}: cannot be written: {reason(error)}") from error
