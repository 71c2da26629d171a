"""What `diveq eval` writes: refused before anything is measured, where something would be lost."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diveqcodec.cli.console import Misuse, OutputError
from diveqcodec.cli.evaluateoptions import Options
from diveqcodec.cli.files import check_folder, check_target, identity
from diveqcodec.store import Place

if TYPE_CHECKING:
    from diveqcodec.evaluate.journal import Journal
    from diveqcodec.evaluate.trials import Trial
    from diveqcodec.zoo import Entry


def json_files(path: Path, names: Sequence[str]) -> list[Path]:
    """The file of the first codec, ours, and those of the others: r.json, r.webp.json."""
    others = (path.with_name(f"{path.stem}.{name}{path.suffix}") for name in names[1:])
    return [path, *others]


def check_outputs(options: Options, entry: Entry) -> None:
    """Refuse outputs that would destroy something, or each other.

    Raises:
        OutputError: one exists, and there is no `-f`, or cannot be written where it is to be.
        Misuse: two are the same file, or two codecs have one name.
    """
    targets = list(_targets(options, _codec_names(options, entry)))
    for _, target in targets:
        check_target(target, None, options.force)
    if options.save_images is not None:
        check_folder(options.save_images)
    if options.resume is not None:
        check_folder(options.resume.parent, options.resume)
        targets.append(("--resume", options.resume))
    owners: dict[object, str] = {}
    for option, target in targets:
        key = identity(target)
        if key is not None and key in owners:
            raise Misuse(f"{option}: {target} is written by {owners[key]} too; name another file")
        owners[key] = option


def check_inputs(
    options: Options, entry: Entry, trials: Sequence[Trial], files: Sequence[Place]
) -> None:
    """Refuse outputs that are among what is read, which `-f` is not for.

    Raises:
        OutputError: one is.
    """
    read = [path for path in files if isinstance(path, Path)]
    read += [entry.path, *(path for paths in options.baselines.values() for path in paths.values())]
    read += [path for path in map(Path, options.curves) if path.is_file()]
    known = {identity(path) for path in read}
    for option, target in _targets(options, [trial.codec.name for trial in trials]):
        key = identity(target)
        if key is not None and key in known:
            raise OutputError(f"{target}: is an input itself; name another output with {option}")
    if options.save_images is not None:
        real = {os.path.realpath(path) for path in read}
        for path in _decoded(trials, files):
            if os.path.realpath(path) in real:
                raise OutputError(
                    f"{path}: is an input itself; name another folder with --save-images"
                )


def _codec_names(options: Options, entry: Entry) -> list[str]:
    """What results will call the codecs, ours first.

    Raises:
        Misuse: two have one name, so that nobody could tell their rows apart.
    """
    from diveqcodec.evaluate.anchors import parse
    from diveqcodec.evaluate.dvq import codec_name

    names = [codec_name(entry.name, effort) for effort in options.efforts or (None,)]
    names += [*(parse(spec).name for spec in options.anchors), *options.baselines]
    for name, count in Counter(names).items():
        if count > 1:
            raise Misuse(f"{name}: two codecs have this name; rename the weights, or leave one out")
    return names


def check_decoded(
    options: Options, trials: Sequence[Trial], files: Sequence[Place], journal: Journal | None
) -> None:
    """Refuse to save decoded pictures over other files, but for those that the journal knows.

    Raises:
        OutputError: one is there, and there is no `-f`; or it cannot be written.
    """
    from diveqcodec.evaluate.run import in_the_way

    others = set[Path]()
    for trial in () if options.force else trials:
        if trial.decoded is not None:
            others.update(in_the_way(trial.codec, files, trial.qualities, trial.decoded, journal))
    for path in _decoded(trials, files):
        check_target(path, None, path not in others)


def _targets(options: Options, names: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Every file to be made, and the option that asks for it."""
    if options.output is not None:
        yield from (("-o", path) for path in json_files(options.output, names))
    named = {"--csv": options.csv, "--plot": options.plot, "--html": options.html}
    yield from ((option, path) for option, path in named.items() if path is not None)


def _decoded(trials: Sequence[Trial], files: Sequence[Place]) -> Iterator[Path]:
    """Every decoded picture to be made."""
    from diveqcodec.evaluate.run import picture_names
    from diveqcodec.evaluate.saving import decoded_path

    names = picture_names(files)
    for trial in trials:
        if trial.decoded is not None:
            for name in names:
                yield from (decoded_path(trial.decoded, name, one) for one in trial.qualities)
