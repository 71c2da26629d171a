"""The evaluation loop: pictures and qualities through real files, to one row of numbers each.

Rates are sizes of files on disk, and distortion is that of what was decoded from the bytes read
back. Works with anything that has the interface `ImageCodec`; knows nothing of neural networks,
tables or plots.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from diveqcodec.errors import DiveqError
from diveqcodec.evaluate.curves import Curve
from diveqcodec.evaluate.metrics import ms_ssim, psnr
from diveqcodec.image import Picture, load, save


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


@dataclass(frozen=True, slots=True)
class Row:
    """One picture at one quality.

    Attributes:
        image: The picture's path relative to the folder that holds all pictures.
        width: In pixels.
        height: In pixels.
        quality: As given to the codec.
        size: Of the file on disk, in bytes.
        psnr: PSNR-RGB in dB between 8-bit pictures; infinite if lossless.
        ms_ssim: In [0, 1]; None if a side is below 161 pixels.
        encoding_seconds: Picture in memory to bytes.
        decoding_seconds: Bytes to picture in memory.
        parts: Bits by part, empty if the codec does not offer them.
    """

    image: str
    width: int
    height: int
    quality: float
    size: int
    psnr: float
    ms_ssim: float | None
    encoding_seconds: float
    decoding_seconds: float
    parts: Mapping[str, int] = field(default_factory=dict)

    @property
    def bpp(self) -> float:
        """Bits of the whole file per pixel."""
        return 8 * self.size / (self.width * self.height)


@dataclass(frozen=True, slots=True)
class Point:
    """One quality: means of the pictures' own values (not totals over the set).

    Attributes are those of `Row`; `ms_ssim` is None as soon as one picture has none, and `parts`
    are bits per pixel.
    """

    quality: float
    bpp: float
    psnr: float
    ms_ssim: float | None
    encoding_seconds: float
    decoding_seconds: float
    parts: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Results:
    """All rows of one codec on one set of pictures.

    Attributes:
        name: Of the codec.
        description: Its settings, as far as it says them.
        rows: Picture by picture, and quality by quality within a picture.
        environment: Versions and machine, see `environment`.
    """

    name: str
    description: str
    rows: tuple[Row, ...]
    environment: Mapping[str, str | int]

    @property
    def images(self) -> tuple[str, ...]:
        """The pictures' names in the order of the rows."""
        return tuple(dict.fromkeys(row.image for row in self.rows))

    def points(self) -> list[Point]:
        """One point a quality, in the order in which the qualities were given."""
        qualities = dict.fromkeys(row.quality for row in self.rows)
        return [_point([row for row in self.rows if row.quality == one]) for one in qualities]

    def of(self, images: Collection[str]) -> "Results":
        """The same with the rows of these pictures only."""
        return replace(self, rows=tuple(row for row in self.rows if row.image in images))

    def curve(self) -> Curve:
        """The points as a rate-distortion curve."""
        points = self.points()
        return Curve.from_points(
            self.name,
            [point.bpp for point in points],
            [point.psnr for point in points],
            [point.ms_ssim for point in points],
            self.description,
        )


def evaluate(
    codec: ImageCodec,
    files: Sequence[Path],
    qualities: Sequence[float],
    workdir: Path,
    progress: Callable[[Row], None] | None = None,
    *,
    save_images: Path | None = None,
    refuse: Callable[[Path, Exception], None] | None = None,
) -> Results:
    """Measure a codec on picture files.

    Only colours are coded and judged: transparency and metadata are taken off first, so they cost
    no codec any bits. Before the first picture is timed, it is coded and decoded once.

    Args:
        codec: What to measure. It may have `suffix` (of its files), `description` and `parts`.
        files: Picture files of any format that the package reads.
        qualities: Each is tried on every picture.
        workdir: Where the coded files are written, and stay.
        progress: Called with each row as soon as it is there.
        save_images: Folder for the decoded pictures, as PNG.
        refuse: Called with a picture that cannot be read, coded or decoded to its size, and why;
            the results then have no row of it. Without it the first such picture ends the loop.

    Raises:
        DiveqError: No pictures or qualities, a picture given twice, or, without `refuse`, a picture
            that cannot be read or coded, a decoded picture of another size, or a file that cannot
            be written.
    """
    if not files or not qualities:
        raise DiveqError("nothing to evaluate: give one picture and one quality at least")
    names = _names(files)
    suffix = str(getattr(codec, "suffix", ".bin"))
    rows: list[Row] = []

    def measure(path: Path, name: str) -> Iterator[Row]:
        picture = _colours_only(load(path))
        if not rows:
            codec.decompress(codec.compress(picture, qualities[0]))
        for quality in qualities:
            stem = f"{name}.q{quality:g}"
            row, decoded = _measure(codec, picture, name, quality, workdir / (stem + suffix))
            if save_images is not None:
                _save(decoded, save_images / f"{stem}.png")
            if progress is not None:
                progress(row)
            yield row

    for path, name in zip(files, names, strict=True):
        try:
            rows += list(measure(path, name))
        except Exception as error:  # whatever it is, the other pictures are not to blame
            if refuse is None:
                raise
            refuse(path, error)
    description = str(getattr(codec, "description", ""))
    return Results(codec.name, description, tuple(rows), environment())


def in_common(results: Sequence[Results]) -> list[Results]:
    """The same results without the pictures that one of them lacks, so that means compare."""
    images = set.intersection(*(set(one.images) for one in results))
    return [one.of(images) for one in results]


def environment() -> dict[str, str | int]:
    """What timings and float results depend on: versions, machine type and threads."""
    packages = ("diveqcodec", "torch", "numpy", "pillow", "constriction")
    found: dict[str, str | int] = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed as a package"
    found["system"] = platform.system()
    found["machine"] = platform.machine()
    found["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
    found["torch_threads"] = torch.get_num_threads()
    return found


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


def _point(rows: Sequence[Row]) -> Point:
    """The means over the pictures of one quality."""
    similarities = [row.ms_ssim for row in rows if row.ms_ssim is not None]
    parts = dict.fromkeys(part for row in rows for part in row.parts)
    return Point(
        quality=rows[0].quality,
        bpp=statistics.fmean(row.bpp for row in rows),
        psnr=statistics.fmean(row.psnr for row in rows),
        ms_ssim=statistics.fmean(similarities) if len(similarities) == len(rows) else None,
        encoding_seconds=statistics.fmean(row.encoding_seconds for row in rows),
        decoding_seconds=statistics.fmean(row.decoding_seconds for row in rows),
        parts={
            part: statistics.fmean(
                row.parts.get(part, 0) / (row.width * row.height) for row in rows
            )
            for part in parts
        },
    )


def _colours_only(picture: Picture) -> Picture:
    return replace(picture, alpha=None, icc=None, exif=None, xmp=None)


def _names(files: Sequence[Path]) -> list[str]:
    """Names that tell the files apart without saying where on this machine they are."""
    paths = [Path(os.path.abspath(path)) for path in files]
    root = Path(os.path.commonpath([path.parent for path in paths]))
    names = [path.relative_to(root).as_posix() for path in paths]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DiveqError(f"{twice}: given twice; give every picture once")
    return names


def _save(decoded: Picture, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiveqError(f"{target.parent}: cannot make this folder: {error.strerror}") from error
    save(decoded, target, "png")
