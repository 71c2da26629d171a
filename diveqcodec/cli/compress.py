"""`diveq compress`: pictures to `.dvq` files."""

from __future__ import annotations

import functools
import math
import time
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from diveqcodec.cli import batch, completion
from diveqcodec.cli.batch import Naming
from diveqcodec.cli.console import Misuse
from diveqcodec.cli.files import STREAM, is_pipe, read_remote, read_stdin
from diveqcodec.cli.jobs import Job, Outcome, Writing, store
from diveqcodec.cli.kinds import DVQ_SUFFIX, PICTURES
from diveqcodec.cli.options import (
    FiniteRange,
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
from diveqcodec.cli.standing import dvq_state
from diveqcodec.cli.tiles import compressed, lossless_options
from diveqcodec.errors import ConfigError, DiveqError, ImageError
from diveqcodec.exact.metadata import check_training
from diveqcodec.image.kinds import SUFFIXES
from diveqcodec.quality import DEFAULT_QUALITY, HIGHEST, LOWEST

if TYPE_CHECKING:
    from diveqcodec.codec import Codec
    from diveqcodec.image import Picture
    from diveqcodec.quality import Lossless
    from diveqcodec.target import Target
    from diveqcodec.zoo import Entry

EFFORTS = ("1", "3", "5", "7", "9")  # as the codec has them, which is not loaded for --help
_REFINED = 7  # the least effort that needs what training left in weights


@dataclass(frozen=True, slots=True)
class _Settings:
    """The command's options, as a process at work on a file needs them."""

    inputs: tuple[str, ...]
    quality: float
    target: Target | None
    effort: int
    lossless: Lossless
    metadata: Literal["none", "icc", "all"]
    background: tuple[int, int, int] | None
    writing: Writing
    is_strict: bool
    is_verified: bool
    entry: Entry | None  # None: without loss


@click.command(short_help="Compress pictures to .dvq files.")
@click.argument(
    "inputs", metavar="INPUT...", nargs=-1, required=True, shell_complete=completion.files
)
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    shell_complete=completion.files,
    help="A file, a folder, or - for stdout.",
)
@click.option(
    "-q",
    "--quality",
    type=FiniteRange(LOWEST, HIGHEST),
    default=DEFAULT_QUALITY,
    show_default=True,
    shell_complete=completion.qualities,
    help="1 is smallest, 100 best.",
)
@click.option("--target-bpp", type=float, metavar="B", help="Bits a pixel, at most, instead of -q.")
@click.option(
    "--target-size", type=click.IntRange(1), metavar="BYTES", help="Bytes a file, at most."
)
@click.option("--target-psnr", type=float, metavar="DB", help="PSNR in dB, at least.")
@click.option(
    "-e",
    "--effort",
    type=click.Choice(EFFORTS),
    default="5",
    show_default=True,
    help="1 takes the nearest codewords, 3 weighs them against their bits, 5 also looks at "
    "the mirror image, in decoding too; 7 and 9 refine that: smaller and slower.",
)
@lossless_options
@model_option
@click.option(
    "--metadata",
    type=click.Choice(["none", "icc", "all"]),
    default="icc",
    show_default=True,
    help="What to keep beside the pixels: all is ICC profile, EXIF with resolution, and XMP.",
)
@background_option
@click.option("--strict", is_flag=True, help="Refuse damaged files, even if the picture is whole.")
@click.option("--verify", is_flag=True, help="Decode what was written, and compare.")
@click.option(
    "--keep-suffix", is_flag=True, help="a.jpg becomes a.jpg.dvq, so that a.png may lie beside it."
)
@force_option
@batch_options
@session_options()
def command(
    session: Session,
    inputs: tuple[str, ...],
    output: str | None,
    quality: float,
    target_bpp: float | None,
    target_size: int | None,
    target_psnr: float | None,
    effort: str,
    lossless: Lossless,
    model: str | None,
    metadata: Literal["none", "icc", "all"],
    background: tuple[int, int, int] | None,
    strict: bool,
    verify: bool,
    keep_suffix: bool,
    force: bool,
    processes: int,
    skip_existing: bool,
    keep_times: bool,
    cluster: str | None,
) -> None:
    """Compress pictures to .dvq files.

    INPUT is a picture of any format, a folder (recursively), or - for stdin. The output lies beside
    the input unless -o names another place; with a folder as -o the tree is mirrored.
    """
    check_existing(force, skip_existing)
    check_cluster(cluster, processes, keep_times, [*inputs, output])
    target = _target({"bpp": target_bpp, "size": target_size, "psnr": target_psnr}, lossless)
    _check_name(output, inputs)
    sources = batch.expand(inputs, PICTURES, session.console)
    naming = Naming(DVQ_SUFFIX, () if keep_suffix else SUFFIXES, ", or use --keep-suffix")
    jobs = batch.plan(inputs, sources, output, naming)
    batch.check_json(jobs, session.console)
    is_coded = lossless != "always"
    entry = find_model(model) if is_coded or model is not None else None
    if not is_coded:
        _note_what_lossless_ignores(session)
    elif entry is not None and int(effort) >= _REFINED:
        check_training(entry.path)
    settings = _Settings(
        inputs=inputs[-2:],  # of 10,000 names no process needs more
        quality=quality,
        target=target,
        effort=int(effort),
        lossless=lossless,
        metadata=metadata,
        background=background,
        writing=Writing(force, keep_times),
        is_strict=strict,
        is_verified=verify,
        entry=entry if is_coded else None,
    )
    work = functools.partial(_compress, settings)
    status = batch.run(
        *(jobs, work, session),
        processes=processes,
        cluster=cluster,
        looks=dvq_state if skip_existing else None,
    )
    session.finish(status)


def _target(
    wanted: dict[Literal["bpp", "size", "psnr"], float | None], lossless: Lossless
) -> Target | None:
    """The target asked for, if any.

    Raises:
        Misuse: several, one beside `-q` or `--lossless`, or one that no file has.
    """
    asked = [(kind, value) for kind, value in wanted.items() if value is not None]
    if not asked:
        return None
    names = [f"--target-{kind}" for kind, _ in asked]
    names += ["-q"] * _is_given("quality")
    if len(names) > 1:
        raise Misuse(f"{' and '.join(names)} exclude each other; use one of them")
    if lossless == "always":
        raise Misuse(f"--lossless keeps every pixel: it excludes {names[0]}")
    from diveqcodec.target import Target

    try:
        return Target(*asked[0])
    except ConfigError as error:
        raise Misuse(str(error)) from error


def _note_what_lossless_ignores(session: Session) -> None:
    """Say that `-q` and `-m` do nothing; a file that keeps more than `-q` asks for is no error."""
    names = [name for name, option in (("-q", "quality"), ("-m", "model")) if _is_given(option)]
    if names:
        verb = "has" if len(names) == 1 else "have"
        session.console.note(
            f"--lossless keeps every pixel without weights: {' and '.join(names)} {verb} no effect"
        )


def _is_given(option: str) -> bool:
    """Whether an option stands in the command, and is not the default."""
    source = click.get_current_context().get_parameter_source(option)
    return source is click.core.ParameterSource.COMMANDLINE


def _check_name(output: str | None, inputs: tuple[str, ...]) -> None:
    """Refuse an output that is named like a picture.

    Raises:
        Misuse: it is.
    """
    if (
        output in (None, STREAM)
        or batch.may_make_several(inputs)
        or batch.is_folder_name(output or "")
    ):
        return
    path = Path(output or "")
    if path.suffix.lower() in SUFFIXES:
        name = (output or "").removesuffix(path.suffix) + DVQ_SUFFIX
        raise Misuse(f"-o {output}: what is written is no {path.suffix} file; name it {name}")


def _compress(settings: _Settings, job: Job, session: Session) -> Outcome:
    start = time.perf_counter()
    batch.check(job, settings.writing.is_forced)
    picture, size_before = _load(job, settings)
    picture = _prepared(picture, settings)
    height, width, channels = picture.pixels.shape
    entry, codec, loading = settings.entry, None, 0.0
    if entry is not None:
        codec, loading = session.timed_codec(entry)
    coded = _coded(session, entry, codec, picture, settings)
    data, notices = coded.data, picture.notices + coded.notices
    check = functools.partial(_verify, codec, picture) if settings.is_verified else None
    store(job, data, settings.writing, check)
    seconds = time.perf_counter() - start - loading
    raw = width * height * (channels + (picture.alpha is not None))
    bpp, ratio = 8 * len(data) / (width * height), raw / len(data)
    line = (
        f"{job.source.name} -> {job.target_name}   {width}x{height}   {len(data):,} B   "
        f"{bpp:.3f} bpp   {ratio:.0f}:1   {seconds:.2f} s"
    )
    if len(data) > size_before:
        notices += (f"larger than the input, which has {size_before:,} B",)
    record = {
        "input": job.source.name,
        "output": job.target_name,
        "width": width,
        "height": height,
        "bytes": len(data),
        "bpp": bpp,
        "ratio": ratio,
        "quality": coded.quality,
        **coded.record,
        "effort": settings.effort,
        "model": None if entry is None else entry.name,
        "model_id": None if entry is None else entry.model_id,
        "seconds": seconds,
        "notices": list(notices),
    }
    return Outcome(line, record, notices, size_before, len(data))


@dataclass(frozen=True, slots=True)
class _Coded:
    """A file's bytes, the quality they were made at, and what there is to say of a target."""

    data: bytes
    quality: float
    notices: tuple[str, ...] = ()
    record: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Coder:
    """A codec as the search for a target wants it: what tiles may be lossless is settled."""

    codec: Codec
    lossless: Lossless

    def compress(self, picture: Picture, quality: float, effort: int) -> bytes:
        return self.codec.compress(picture, quality, effort, lossless=self.lossless)

    def decompress(self, data: bytes) -> Picture:
        return self.codec.decompress(data)


def _coded(
    session: Session,
    entry: Entry | None,
    codec: Codec | None,
    picture: Picture,
    settings: _Settings,
) -> _Coded:
    """Compress at the quality asked for, or at that which comes nearest to the target."""
    target, quality = settings.target, settings.quality
    if target is None or codec is None:
        data = compressed(session, entry, picture, quality, settings.effort, settings.lossless)
        return _Coded(data, quality)
    from diveqcodec.target import search

    coder = _Coder(codec, settings.lossless)
    found = search(coder, picture, target, settings.effort)
    notices: tuple[str, ...] = ()
    if not found.is_reached:
        form = {"size": "{:,.0f} B", "bpp": "{:.4f} bpp", "psnr": "{:.2f} dB"}[target.kind]
        nearest = form.format(found.value) if math.isfinite(found.value) else "every pixel exact"
        wanted = form.format(target.value)
        notices = (f"{nearest} is the nearest found to the target of {wanted}",)
    record = {
        f"target_{target.kind}": target.value,
        "is_target_reached": found.is_reached,
        "encodes": found.encodes,
    }
    if target.kind == "psnr" and math.isfinite(found.value):
        record["psnr"] = found.value
    return _Coded(found.data, found.quality, notices, record)


def _load(job: Job, settings: _Settings) -> tuple[Picture, int]:
    """The picture, and the size of its file."""
    from diveqcodec import image

    path, name = job.source.path, job.source.name
    if not isinstance(path, Path) or is_pipe(path):  # its size is known when it is read
        if isinstance(path, Path):
            data = path.read_bytes()
        else:
            data = read_stdin() if path is None else read_remote(path)
        return image.load(BytesIO(data), name=name, strict=settings.is_strict), len(data)
    try:
        return image.load(path, name=name, strict=settings.is_strict), path.stat().st_size
    except ImageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            hint = batch.hint_output(settings.inputs, job.source, (DVQ_SUFFIX,))
            raise DiveqError(f"{name}: no such file{hint}") from error
        raise


def _verify(codec: Codec | None, picture: Picture, data: bytes) -> None:
    """Decode a file and compare it with what was coded (see `diveqcodec.verify`).

    Raises:
        DiveqError: it cannot be decoded, or is not the same.
    """
    from diveqcodec.container import pixelfile
    from diveqcodec.verify import differences

    try:
        decoded = pixelfile.decompress(data) if codec is None else codec.decompress(data)
    except DiveqError as error:
        raise DiveqError(f"not verified ({error}); please report it") from error
    scale = None if codec is None else codec.model.config.scale
    if wrong := differences(data, decoded, picture, scale):
        raise DiveqError(f"not verified: decoded with another {', '.join(wrong)}; please report it")


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
