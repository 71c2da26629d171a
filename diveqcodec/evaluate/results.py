"""What an evaluation found: rows of numbers, their means, and curves of both.

Knows nothing of how pictures were coded, nor of tables and files.
"""

import math
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from diveqcodec.evaluate.curves import Curve

# A lossless picture has no finite PSNR, and one with a single wrong value has more than 100 dB. In
# means every picture counts at most this, as VMAF's PSNR of 8 bits does, so that the order stays.
HIGHEST_PSNR = 60.0


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
class Measurement:
    """A row, and which files it is of.

    Attributes:
        row: The numbers.
        content: SHA-256 of the picture's file as it was read.
        saved: SHA-256 of the decoded picture's file; None if it was not saved.
    """

    row: Row
    content: str
    saved: str | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """One quality: means of the pictures' own values (not totals over the set).

    Attributes are those of `Row`, but for these:

    Attributes:
        psnr: The mean, every picture counting `HIGHEST_PSNR` at most.
        lossless: How many pictures are lossless at this quality.
        ms_ssim: None as soon as one picture has none.
        parts: Bits per pixel.
    """

    quality: float
    bpp: float
    psnr: float
    lossless: int
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
        environment: Versions and machine, see `diveqcodec.evaluate.run.environment`.
    """

    name: str
    description: str
    rows: tuple[Row, ...]
    environment: Mapping[str, str | int]

    @property
    def images(self) -> tuple[str, ...]:
        """The pictures' names in the order of the rows."""
        return tuple(dict.fromkeys(row.image for row in self.rows))

    @property
    def small_images(self) -> tuple[str, ...]:
        """The pictures that are too small for an MS-SSIM."""
        return tuple(dict.fromkeys(row.image for row in self.rows if row.ms_ssim is None))

    def points(self) -> list[Point]:
        """One point a quality, in the order in which the qualities were given."""
        at: dict[float, list[Row]] = {}
        for row in self.rows:
            at.setdefault(row.quality, []).append(row)
        return [_point(rows) for rows in at.values()]

    def of(self, images: Collection[str]) -> "Results":
        """The same with the rows of these pictures only."""
        return replace(self, rows=tuple(row for row in self.rows if row.image in images))

    def curve(self) -> Curve:
        """The points as a rate-distortion curve; one with a lossless picture is infinite there.

        What a file costs from there on says nothing about distortion, so plots and BD-rates leave
        such a point out.
        """
        points = self.points()
        return Curve.from_points(
            self.name,
            [point.bpp for point in points],
            [math.inf if point.lossless else point.psnr for point in points],
            [point.ms_ssim for point in points],
            self.description,
        )

    def picture_curves(self) -> dict[str, Curve]:
        """The curve of every picture by its name."""
        of_image: dict[str, list[Row]] = {}
        for row in self.rows:
            of_image.setdefault(row.image, []).append(row)
        return {
            image: Curve.from_points(
                self.name,
                [row.bpp for row in rows],
                [row.psnr for row in rows],
                [row.ms_ssim for row in rows],
            )
            for image, rows in of_image.items()
        }


def in_common(results: Sequence[Results]) -> list[Results]:
    """The same results without the pictures that one of them lacks, so that means compare."""
    images = set.intersection(*(set(found.images) for found in results))
    return [found.of(images) for found in results]


def _point(rows: Sequence[Row]) -> Point:
    """The means over the pictures of one quality."""

    def mean(value: Callable[[Row], float]) -> float:
        return statistics.fmean(map(value, rows))

    similarities = [row.ms_ssim for row in rows if row.ms_ssim is not None]
    parts = dict.fromkeys(part for row in rows for part in row.parts)
    return Point(
        quality=rows[0].quality,
        bpp=mean(lambda row: row.bpp),
        psnr=mean(lambda row: min(row.psnr, HIGHEST_PSNR)),
        lossless=sum(row.psnr == math.inf for row in rows),
        ms_ssim=statistics.fmean(similarities) if len(similarities) == len(rows) else None,
        encoding_seconds=mean(lambda row: row.encoding_seconds),
        decoding_seconds=mean(lambda row: row.decoding_seconds),
        parts={
            part: statistics.fmean(
                row.parts.get(part, 0) / (row.width * row.height) for row in rows
            )
            for part in parts
        },
    )
