"""`diveq eval`: rates and distortions through real files, beside classical codecs."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diveqcodec.cli import batch, completion
from diveqcodec.cli.console import Misuse, describe, reason
from diveqcodec.cli.evaluateoptions import (
    Baselines,
    Options,
    check_plot,
    parse_anchors,
    parse_baselines,
    parse_efforts,
    parse_qualities,
    parse_range,
)
from diveqcodec.cli.evaluateoutputs import check_decoded, check_inputs, check_outputs
from diveqcodec.cli.evaluatewriting import Findings, write_outputs
from diveqcodec.cli.kinds import PICTURES
from diveqcodec.cli.options import (
    Session,
    check_cluster,
    cluster_option,
    find_model,
    force_option,
    model_option,
    session_options,
)
from diveqcodec.errors import ConfigError, DiveqError
from diveqcodec.evaluate.offered import ANCHORS, QUALITIES
from diveqcodec.store import Place, place

if TYPE_CHECKING:
    from diveqcodec.evaluate.journal import Journal
    from diveqcodec.evaluate.results import Row
    from diveqcodec.evaluate.trials import Measured, Trial
    from diveqcodec.processes import Engine
    from diveqcodec.zoo import Entry

_FILE = click.Path(path_type=Path)


@click.command(short_help="Measure rate and distortion on pictures.")
@click.argument("dataset", shell_complete=completion.files)
@click.option(
    "-q",
    "--qualities",
    metavar="LIST",
    default=",".join(f"{quality:g}" for quality in QUALITIES),
    show_default=True,
    callback=parse_qualities,
    help="Qualities, with commas.",
)
@click.option(
    "-e",
    "--efforts",
    metavar="LIST",
    callback=parse_efforts,
    help="Efforts, with commas; each is measured as a codec of its own. Without it the default.",
)
@model_option
@click.option(
    "--anchor",
    "anchors",
    metavar="NAME[:SETTING=N]",
    multiple=True,
    callback=parse_anchors,
    help=f"Measure this codec too, and give BD-rates: {', '.join(ANCHORS)}; with a setting "
    "avif:speed=0, webp:method=4 or jxl:effort=9; may be repeated.",
)
@click.option(
    "--baseline",
    "baselines",
    metavar="ARCH:QUALITY=PATH",
    multiple=True,
    callback=parse_baselines,
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
    callback=parse_range,
    help="Range of PSNR in dB for the BD-rates; without it, all that two curves share.",
)
@click.option("--parts", is_flag=True, help="Also say what the bits are spent on.")
@click.option(
    "-o",
    "--output",
    metavar="FILE.json",
    type=_FILE,
    help="Results in CompressAI's layout; those of other codecs go to FILE.CODEC.json.",
)
@click.option("--csv", metavar="FILE", type=_FILE, help="Every picture.")
@click.option(
    "--plot",
    metavar="FILE",
    type=_FILE,
    callback=check_plot,
    help="Rate-distortion curves as .png, .svg or .pdf.",
)
@click.option(
    "--html",
    metavar="FILE",
    type=_FILE,
    help="A report to look at in a browser: plots, every picture, crops side by side.",
)
@click.option("--save-images", metavar="DIR", type=_FILE, help="Keep the decoded pictures, as PNG.")
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1),
    help="Processes that measure at once; times are then those of a busy machine.",
)
@cluster_option
@click.option(
    "--resume",
    metavar="FILE",
    type=_FILE,
    help="Keep every row in FILE as soon as it is measured, and measure none that is there.",
)
@force_option
@session_options(json=False)
def command(session: Session, **values: Any) -> None:
    """Measure rate and distortion on the pictures of DATASET, a folder or one picture.

    Rates are sizes of files on disk, and distortions those of pictures decoded from them. The table
    has means over the pictures; one that cannot be read or coded is named and left out of all of
    them. BD-rates are those of the mean curves; beside them stand the median of the pictures' own
    and how many of them need fewer bits.
    """
    options = Options(**values)
    check_cluster(options.cluster, options.jobs)
    entry = find_model(options.model)
    check_outputs(options, entry)
    files = _pictures(session, options.dataset)
    if options.plot is not None or options.html is not None:
        from diveqcodec.evaluate.plot import check_library

        check_library()
    trials = _trials(session, entry, options)
    check_inputs(options, entry, trials, files)
    from diveqcodec.evaluate.comparison import known_rivals

    rivals = known_rivals(options.curves, [trial.codec.name for trial in trials])
    with ExitStack() as stack:
        journal = None
        if options.resume is not None:
            from diveqcodec.evaluate.journal import Journal

            journal = stack.enter_context(Journal(options.resume))
        check_decoded(options, trials, files, journal)
        with _engine(options) as engine:
            measured = _measure(session, trials, files, engine, journal)
        is_written = True
        if measured.results:
            is_written = write_outputs(
                session, options, Findings(trials, measured.results, rivals, files)
            )
    if measured.left_out or not is_written:
        session.finish(1)


@contextlib.contextmanager
def _engine(options: Options) -> Iterator[tuple[Engine | None, int]]:
    """What measures instead of this process, if anything, and with how many in it; 0: unknown."""
    if options.cluster is not None:
        from diveqcodec.cluster import connected

        with connected(options.cluster, options.jobs) as engine:
            yield engine, 0
    elif options.jobs is None or options.jobs == 1:
        yield None, 1
    else:
        from diveqcodec.processes import LocalProcesses

        yield LocalProcesses(options.jobs), options.jobs


def _trials(session: Session, entry: Entry, options: Options) -> list[Trial]:
    """Every codec to measure, ours first.

    Raises:
        Misuse: an effort or architecture that does not exist.
        DiveqError: a codec's library or weights are missing.
    """
    from diveqcodec.evaluate import anchors, dvq
    from diveqcodec.evaluate.trials import Trial

    device = str(session.device())
    trials = []
    for effort in options.efforts or (None,):
        ours = dvq.DvqCodecByPart if options.parts else dvq.DvqCodec
        try:
            codec = ours(session.codec(entry), effort)
        except ConfigError as error:
            raise Misuse(f"-e {error}") from error
        make = functools.partial(dvq.load, entry, device, effort, options.parts)
        # the files of several efforts would have the same names
        folder = options.save_images
        if folder is not None and len(options.efforts) > 1:
            folder /= f"e{effort}"
        trials.append(Trial(codec, options.qualities, make, folder))
    for spec in options.anchors:
        anchor = anchors.anchor(spec)
        trials.append(Trial(anchor, anchor.qualities, functools.partial(anchors.anchor, spec)))
    trials += _learned(options.baselines, device)
    return trials


def _learned(baselines: Baselines, device: str) -> list[Trial]:
    """The learned codecs with their weights loaded.

    Raises:
        Misuse: there is no such architecture.
        DiveqError: the weights do not fit it, or compressai is not installed.
    """
    if not baselines:
        return []
    from diveqcodec.evaluate.baselines import LearnedBaseline
    from diveqcodec.evaluate.trials import Trial

    makers = [
        functools.partial(LearnedBaseline, name, paths, device) for name, paths in baselines.items()
    ]
    try:
        codecs = [make() for make in makers]
    except ConfigError as error:
        raise Misuse(f"--baseline {error}") from error
    return [Trial(codec, codec.qualities, make) for codec, make in zip(codecs, makers, strict=True)]


def _measure(
    session: Session,
    trials: Sequence[Trial],
    files: Sequence[Place],
    engine: tuple[Engine | None, int],
    journal: Journal | None,
) -> Measured:
    """The results of all trials, while a bar moves and bad pictures are named."""
    import torch

    from diveqcodec.evaluate.trials import measure

    if journal is not None and len(journal):
        count = f"{len(journal)} rows are known from an earlier run"
        session.console.note(f"{count}; those measured otherwise are not taken")
    steps = len(files) * sum(len(trial.qualities) for trial in trials)
    with session.console.counter(steps, "file") as advance:

        def progress(_row: Row) -> None:
            advance(1)

        def refuse(path: Place, error: Exception) -> None:
            session.console.error(f"{path}: {describe(error).removeprefix(f'{path}: ')}", error)

        runs, processes = engine
        threads = session.threads
        if processes:
            threads = max(1, torch.get_num_threads() // processes)
        try:
            measured = measure(
                trials, files, progress, refuse, journal=journal, engine=runs, threads=threads
            )
        except KeyboardInterrupt:
            if journal is not None:
                session.console.note(f"stopped with {len(journal)} rows; --resume goes on")
            raise
    if measured.results and measured.left_out:
        count = f"{len(measured.left_out)} of {len(files)}"
        session.console.note(f"{count} pictures left out for every codec")
    return measured


def _pictures(session: Session, dataset: str) -> list[Place]:
    """The picture files of a dataset.

    Raises:
        DiveqError: there are none.
    """
    try:
        exists = place(dataset).exists()
    except OSError as error:
        raise DiveqError(f"{dataset}: cannot be read: {reason(error)}") from error
    if not exists:
        raise DiveqError(f"{dataset}: no such file or folder")
    sources = batch.expand([dataset], PICTURES, session.console)
    return [source.path for source in sources if source.path is not None]
