"""One codec beside others: BD-rates of mean curves, and of the pictures one by one.

The two differ: a mean curve is ruled by the pictures that cost most, the median of the pictures'
own BD-rates by the usual one. Knows nothing of how codecs run, nor of how figures are shown.
"""

import logging
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from diveqcodec.errors import DiveqError
from diveqcodec.evaluate.bdrate import Delta, bd_rate
from diveqcodec.evaluate.curves import Curve, Metric, published_curves, read_curve
from diveqcodec.evaluate.resultfiles import read_results
from diveqcodec.evaluate.results import Results

log = logging.getLogger(__name__)

_PUBLISHED = " (published)"  # at the end of such a curve's name

Range = tuple[float, float]
Rival = Results | Curve  # what a codec is compared with: curves have no pictures of their own


@dataclass(frozen=True, slots=True)
class Figure:
    """How a codec compares with an anchor in one metric.

    Attributes:
        delta: BD-rate of the mean curves, None if there is none.
        reason: Why not.
        of_images: BD-rate of every picture that has one, in percent, over what the two curves of
            the picture share within the asked range; empty against a curve without pictures.
        without: The other pictures, and why they have none.
    """

    delta: Delta | None
    reason: str = ""
    of_images: dict[str, float] = field(default_factory=dict)
    without: dict[str, str] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Of the pictures' own BD-rates; there must be one."""
        return statistics.median(self.of_images.values())

    @property
    def won(self) -> int:
        """How many pictures need fewer bits than with the anchor."""
        return sum(value < 0 for value in self.of_images.values())

    @property
    def best(self) -> str:
        """The picture with the lowest BD-rate; there must be one."""
        return min(self.of_images, key=self.of_images.__getitem__)

    @property
    def worst(self) -> str:
        """The picture with the highest BD-rate; there must be one."""
        return max(self.of_images, key=self.of_images.__getitem__)


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a codec compares with one anchor: PSNR, and MS-SSIM in decibels."""

    anchor: str
    psnr: Figure
    ms_ssim: Figure


def compare(
    tested: Results, rivals: Sequence[Rival], over: Range | None = None
) -> list[Comparison]:
    """Compare a codec with each of the others.

    Args:
        tested: The codec in question.
        rivals: What it is measured against.
        over: The range of PSNR in dB, or None for all that two curves share. MS-SSIM is always
            compared over all that they share.
    """
    return [
        Comparison(
            rival.name, _figure(tested, rival, "psnr", over), _figure(tested, rival, "ms-ssim")
        )
        for rival in rivals
    ]


def curve_of(rival: Rival) -> Curve:
    """The mean curve of results; a curve is its own."""
    return rival.curve() if isinstance(rival, Results) else rival


def known_rivals(references: Sequence[str], measured: Sequence[str]) -> list[Rival]:
    """What `--curve` names: published curves and result files, told apart from what is measured.

    A name that two of them would share gets its reference added: `diveq-3 (old.json)`.

    Raises:
        DiveqError: There is no such curve or file, or it cannot be read.
    """
    rivals: list[Rival] = []
    for reference in dict.fromkeys(references):
        rival = _find(reference)
        if rival.name in [*measured, *(other.name for other in rivals)]:
            rival = replace(rival, name=f"{rival.name} ({reference})")
        rivals.append(rival)
    return rivals


def warn_of_other_pictures(tested: Results, rivals: Sequence[Rival]) -> None:
    """Log a warning for results of other pictures: their means do not compare."""
    is_kodak = len(tested.images) == 24 and all("kodim" in image for image in tested.images)
    for rival in rivals:
        if isinstance(rival, Results) and set(rival.images) != set(tested.images):
            log.warning("%s: was not measured on the same pictures", rival.name)
        elif rival.name.endswith(_PUBLISHED) and not is_kodak:
            log.warning("%s: is of Kodak's 24 pictures, which these are not", rival.name)


def _find(reference: str) -> Rival:
    published = published_curves()
    if reference in published:
        return replace(published[reference], name=reference + _PUBLISHED)
    path = Path(reference)
    if not path.exists():
        known = ", ".join(published)
        raise DiveqError(f"{reference}: no such file or curve; there are: {known}")
    return read_results(path) or read_curve(path)


def _figure(tested: Results, rival: Rival, metric: Metric, over: Range | None = None) -> Figure:
    delta, reason = None, ""
    try:
        delta = bd_rate(curve_of(tested), curve_of(rival), over, metric=metric)
    except DiveqError as error:
        reason = str(error)
    of_images, without = dict[str, float](), dict[str, str]()
    if isinstance(rival, Results):
        theirs = rival.picture_curves()
        for image, curve in tested.picture_curves().items():
            if image not in theirs:
                continue
            try:
                of_image = bd_rate(curve, theirs[image], over, metric=metric, is_cut=True)
                of_images[image] = of_image.value
            except DiveqError as error:
                without[image] = str(error)
    return Figure(delta, reason, of_images, without)
