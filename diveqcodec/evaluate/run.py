"""The evaluation loop: pictures and qualities through real files, to one row of numbers each.

Rates are sizes of files on disk, and distortion is that of what was decoded from the bytes read
back. Works with anything that has the interface `ImageCodec`; knows nothing of neural networks,
tables or plots.
"""

import hashlib
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from diveqcodec.errors import DiveqError
from diveqcodec.evaluate.journal import Journal, Notes
from diveqcodec.evaluate.libraries import version_of
from diveqcodec.evaluate.metrics import ms_ssim, psnr
from diveqcodec.evaluate.results import Measurement, Results, Row
from diveqcodec.evaluate.saving import decoded_path, save_decoded
from diveqcodec.image import Picture, load
from diveqcodec.image.files import read_file
from diveqcodec.store import Place, Remote


class ImageCodec(Protocol):
    """A picture and a quality to the bytes of a file, and back.

    Both calls return when the work is done (a device is synchronised), since they are timed.
    """

    @property
    def name(self) -> str:
        """What tables, plots and result files call the codec."""

    def compress(self, picture: Picture, quality: float) -> bytes:
        """The whole file, header included."""

    def decompress(self, data: bytes) -> Picture:
        """The inverse, from the bytes alone."""


@runtime_checkable
class OffersParts(Protocol):
    """A codec that can say what the bits of its files are spent on."""

    def parts(self, data: bytes) -> dict[str, int]:
        """Bits of each part (header, slices, ...); their sum is the file's."""


@runtime_checkable
class OffersBasis(Protocol):
    """A codec whose files depend on more than its name, its settings and the usual versions."""

    def basis(self, quality: float) -> str:
        """What else those of a quality depend on: weights by their content, libraries."""


@dataclass(frozen=True, slots=True)
class Folders:
    """Where files go.

    Attributes:
        coded: The coded files are written here, and stay.
        decoded: The decoded pictures, as PNG; None if nobody wants them.
    """

    coded: Path
    decoded: Path | None = None


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who hears what happens.

    Attributes:
        progress: Called with each row as soon as it is there.
        refuse: Called with a picture that cannot be read, coded or decoded to its size, and why;
            the results then have no row of it. Without it the first such picture ends the loop.
    """

    progress: Callable[[Row], None] | None = None
    refuse: Callable[[Place, Exception], None] | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """A picture and the qualities to measure it at."""

    path: Place
    name: str
    qualities: tuple[float, ...]


class Pool(Protocol):
    """Other processes that measure, see `diveqcodec.evaluate.workers`."""

    def measure(
        self, tasks: Sequence[Task], folders: Folders
    ) -> Iterator[tuple[Task, list[Measurement] | Exception]]:
        """What was measured of every task, or why nothing was, in the order of their ends."""


def evaluate(
    codec: ImageCodec,
    files: Sequence[Place],
    qualities: Sequence[float],
    folders: Folders,
    listeners: Listeners | None = None,
    *,
    journal: Journal | None = None,
    pool: Pool | None = None,
    contents: dict[Place, str] | None = None,
) -> Results:
    """Measure a codec on picture files.

    Only colours are coded and judged: transparency and metadata are taken off first, so they cost
    no codec any bits. Before the first picture is timed, it is coded and decoded once.

    Args:
        codec: What to measure. It may have `suffix` (of its files), `description`, `parts` and
            `basis`.
        files: Picture files of any format that the package reads.
        qualities: Each is tried on every picture.
        folders: Where the coded files go, and the decoded pictures.
        listeners: Who hears of rows and of refused pictures.
        journal: Rows that are in it are not measured again; those that are measured go there.
        pool: Measures in other processes; without it everything happens in this one.
        contents: What pictures are, by their SHA-256, as other codecs have met them; those that are
            met here are added. A picture that has changed since is refused.

    Raises:
        DiveqError: No pictures or qualities, a picture given twice, or, without `refuse`, a picture
            that cannot be read or coded or has changed meanwhile, a decoded picture of another
            size, or a file that cannot be written.
    """
    if not files or not qualities:
        raise DiveqError("nothing to evaluate: give one picture and one quality at least")
    listeners = listeners or Listeners()
    progress = listeners.progress or (lambda row: None)
    contents = {} if contents is None else contents
    notes = _notes(codec, journal)
    tasks, known, changed = _divided(files, qualities, folders, notes, contents)
    for row in known.values():
        progress(row)
    done = pool or _Here(codec, progress)
    for task, outcome in chain(changed, done.measure(tasks, folders)):
        if not isinstance(outcome, Exception) and any(
            contents.setdefault(task.path, one.content) != one.content for one in outcome
        ):
            outcome = _changed(task.path)
        if isinstance(outcome, Exception):
            if listeners.refuse is None:
                raise outcome
            for quality in qualities:
                known.pop((task.name, quality), None)
            listeners.refuse(task.path, outcome)
            continue
        for one in outcome:
            known[task.name, one.row.quality] = one.row
            if pool is not None:
                progress(one.row)
        notes.add(outcome)
    names = picture_names(files)
    ordered = [known[key] for name in names for q in qualities if (key := (name, q)) in known]
    return Results(codec.name, notes.description, tuple(ordered), notes.environment)


def in_the_way(
    codec: ImageCodec,
    files: Sequence[Place],
    qualities: Sequence[float],
    decoded: Path,
    journal: Journal | None,
) -> Iterator[Path]:
    """Files that are where decoded pictures are to be saved, and are not a journal's own."""
    notes = _notes(codec, journal)
    for path, name in zip(files, picture_names(files), strict=True):
        content = None
        for quality in qualities:
            target = decoded_path(decoded, name, quality)
            if os.path.lexists(target):
                content = content or notes.content(path)
                if not notes.is_ours(content, quality, target):
                    yield target


def _notes(codec: ImageCodec, journal: Journal | None) -> Notes:
    description = str(getattr(codec, "description", ""))
    basis = codec.basis if isinstance(codec, OffersBasis) else lambda quality: ""
    by_part = isinstance(codec, OffersParts)
    return Notes(journal, codec.name, description, environment(), basis, by_part)


def _divided(
    files: Sequence[Place],
    qualities: Sequence[float],
    folders: Folders,
    notes: Notes,
    contents: dict[Place, str],
) -> tuple[list[Task], dict[tuple[str, float], Row], list[tuple[Task, Exception]]]:
    """What is to be measured, the rows of a journal, and pictures that have changed meanwhile.

    Where decoded pictures are wanted, a row counts only if its own is there.
    """
    tasks, known = list[Task](), dict[tuple[str, float], Row]()
    changed, claims = list[tuple[Task, Exception]](), dict[Path, tuple[str, float]]()
    for path, name in zip(files, picture_names(files), strict=True):
        content = notes.content(path)
        if content is not None and contents.setdefault(path, content) != content:
            changed.append((Task(path, name, tuple(qualities)), _changed(path)))
            continue
        rows = notes.rows(content, name, qualities)
        missing = [quality for quality in qualities if quality not in rows]
        if folders.decoded is not None:
            targets = {q: decoded_path(folders.decoded, name, q) for q in qualities}
            missing = [
                q for q in qualities if q not in rows or not notes.is_saved(content, q, targets[q])
            ]
            if content is not None:
                claims |= {targets[quality]: (content, quality) for quality in missing}
        known |= {(name, q): row for q, row in rows.items() if q not in missing}
        if missing:
            tasks.append(Task(path, name, tuple(missing)))
    notes.claim(claims)
    return tasks, known, changed


def _changed(path: Place) -> DiveqError:
    return DiveqError(f"{path}: changed while it was measured; measure it again")


@dataclass(slots=True)
class _Here:
    """Measures in this process, and tells of every row at once."""

    codec: ImageCodec
    progress: Callable[[Row], None]

    def measure(
        self, tasks: Sequence[Task], folders: Folders
    ) -> Iterator[tuple[Task, list[Measurement] | Exception]]:
        is_warm = False
        for task in tasks:
            found: list[Measurement] = []
            try:
                for one in measure_picture(self.codec, task, folders, is_warm):
                    is_warm = True
                    found.append(one)
                    self.progress(one.row)
            except Exception as error:  # whatever it is, the other pictures are not to blame
                yield task, error
            else:
                yield task, found


def measure_picture(
    codec: ImageCodec, task: Task, folders: Folders, is_warm: bool
) -> Iterator[Measurement]:
    """What is measured of one picture; a codec that is not warm codes it once before it is timed.

    Raises:
        DiveqError: As `evaluate`.
    """
    suffix = str(getattr(codec, "suffix", ".bin"))
    data = read_file(task.path)  # once, so that the pixels are those of the content that is noted
    content = hashlib.sha256(data).hexdigest()
    picture = colours_only(load(BytesIO(data), name=str(task.path)))
    del data
    if not is_warm:
        codec.decompress(codec.compress(picture, task.qualities[0]))
    for quality in task.qualities:
        stem = f"{task.name}.q{quality:g}"
        target = folders.coded / (stem + suffix)
        row, decoded = _measure(codec, picture, task.name, quality, target)
        saved = None
        if folders.decoded is not None:
            saved = save_decoded(decoded, decoded_path(folders.decoded, task.name, quality))
        yield Measurement(row, content, saved)


def environment() -> dict[str, str | int]:
    """What timings and float results depend on: versions, machine type and threads."""
    packages = ("diveqcodec", "torch", "numpy", "pillow", "constriction")
    found: dict[str, str | int] = {"python": platform.python_version()}
    found |= {package: version_of(package) for package in packages}
    found["system"] = platform.system()
    found["machine"] = platform.machine()
    found["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
    found["torch_threads"] = torch.get_num_threads()
    return found


def colours_only(picture: Picture) -> Picture:
    """The picture without transparency and metadata."""
    return replace(picture, alpha=None, icc=None, exif=None, xmp=None)


def _measure(
    codec: ImageCodec, picture: Picture, name: str, quality: float, target: Path
) -> tuple[Row, Picture]:
    """One row, and the decoded picture."""
    start = time.perf_counter()
    data = codec.compress(picture, quality)
    encoding_seconds = time.perf_counter() - start
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        size = os.stat(target).st_size
        data = target.read_bytes()  # decoded from the disk, not from what the encoder holds
    except OSError as error:
        raise DiveqError(f"{target}: cannot write and read back: {error.strerror}") from error
    start = time.perf_counter()
    decoded = codec.decompress(data)
    decoding_seconds = time.perf_counter() - start
    height, width = picture.pixels.shape[:2]
    if decoded.pixels.shape[:2] != (height, width):
        raise DiveqError(
            f"{name}: {codec.name} decoded {decoded.pixels.shape[1]}x{decoded.pixels.shape[0]} "
            f"pixels from a file of {width}x{height}"
        )
    row = Row(
        image=name,
        width=width,
        height=height,
        quality=quality,
        size=size,
        psnr=psnr(picture.pixels, decoded.pixels),
        ms_ssim=ms_ssim(picture.pixels, decoded.pixels),
        encoding_seconds=encoding_seconds,
        decoding_seconds=decoding_seconds,
        parts=codec.parts(data) if isinstance(codec, OffersParts) else {},
    )
    return row, decoded


def picture_names(files: Sequence[Place]) -> list[str]:
    """Names that tell the files apart without saying where on this machine they are."""
    paths = [Path(os.path.abspath(f.path if isinstance(f, Remote) else f)) for f in files]
    root = Path(os.path.commonpath([path.parent for path in paths]))
    names = [path.relative_to(root).as_posix() for path in paths]
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise DiveqError(f"{twice}: given twice; give every picture once")
    return names
