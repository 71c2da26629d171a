"""What the commands say of tiles: lossless or not, a crop, progress within a large picture.

Knows no codec.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from diveqcodec.cli.console import Console
from diveqcodec.cli.options import Session

if TYPE_CHECKING:
    from diveqcodec.container.canvas import Crop
    from diveqcodec.image import Picture
    from diveqcodec.parallel import Progress
    from diveqcodec.quality import Lossless
    from diveqcodec.zoo import Entry

F = TypeVar("F", bound=Callable[..., Any])


def lossless_options(function: F) -> F:
    """Gives a command `--lossless` and `--lossy`: an argument `lossless`, one of the codec's."""
    return click.option(
        "--lossless/--lossy",
        "lossless",
        default=None,
        callback=_lossless,
        help="Keep all pixels exactly, or none on purpose; by default, tiles and parts of them "
        "that look drawn are lossless where that is the better bargain.",
    )(function)


def crop_options(function: F) -> F:
    """Gives a command `--crop` and `--partial`."""
    for option in (
        click.option(
            "--partial", is_flag=True, help="Save what is whole of a damaged file, the rest grey."
        ),
        click.option(
            "--crop",
            metavar="X,Y,W,H",
            callback=_crop,
            help="Only this part, in pixels; reads only its tiles.",
        ),
    ):
        function = option(function)
    return function


def compressed(
    session: Session,
    entry: Entry | None,
    picture: Picture,
    quality: float,
    effort: int,
    lossless: Lossless,
) -> bytes:
    """The file of a picture; without weights every pixel is kept, and no torch is loaded."""
    if entry is None:
        from diveqcodec.container import pixelfile

        return pixelfile.compress(picture, effort)
    with progress(session.console) as tell:
        codec = session.codec(entry)
        return codec.compress(picture, quality, effort, lossless=lossless, progress=tell)


def decompressed(
    session: Session, entry: Entry | None, data: bytes, crop: Crop | None, is_partial: bool
) -> Picture:
    """The picture of a file, or the part of it; no weights and no torch for one that needs none."""
    if entry is None:
        from diveqcodec.container import pixelfile

        return pixelfile.decompress(data, crop, is_partial=is_partial)
    with progress(session.console) as tell:
        codec = session.codec(entry)
        return codec.decompress(data, crop=crop, partial=is_partial, progress=tell)


@contextlib.contextmanager
def progress(console: Console) -> Iterator[Progress]:
    """Something to tell of tiles, and rounds in them: a bar on a terminal, if for one file only."""
    with contextlib.ExitStack() as stack:
        advance: Callable[[int], None] | None = None
        told = 0

        def tell(done: int, total: int) -> None:
            nonlocal advance, told
            if advance is None:
                advance = stack.enter_context(console.counter(total, "step"))
            advance(done - told)
            told = done

        yield tell


def _lossless(_ctx: click.Context, _param: click.Parameter, value: bool | None) -> Lossless:
    if value is None:
        return "auto"
    return "always" if value else "never"


def _crop(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Crop | None:
    """Four numbers, the last two positive; whether they fit the picture shows later."""
    if value is None:
        return None
    try:
        x, y, width, height = (int(part) for part in value.split(","))
    except ValueError as error:
        raise click.BadParameter(
            f"{value}: give left, top, width and height, as in 0,0,640,480"
        ) from error
    if min(x, y) < 0 or min(width, height) < 1:
        raise click.BadParameter(f"{value}: left and top are 0 or more, width and height 1 or more")
    return x, y, width, height
