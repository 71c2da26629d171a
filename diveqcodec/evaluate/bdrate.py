"""Bjøntegaard deltas: how two rate-distortion curves differ on average.

BD-rate is the mean difference in log rate at equal distortion, as a percentage of rate; BD-PSNR
the mean difference in distortion at equal log rate. Curves are interpolated by PCHIP (shape
preserving, as in JVET and CompressAI's tables), not by Bjøntegaard's cubic of 2001, which
overshoots when there are more than four points. The integral of the piecewise cubic is exact.
Knows nothing of codecs or files. Source: G. Bjøntegaard, VCEG-M33, 2001; JVET-common test
conditions for the interpolation.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from diveqcodec.errors import DiveqError
from diveqcodec.evaluate.curves import Curve, Metric
from diveqcodec.evaluate.extra import import_extra


@dataclass(frozen=True, slots=True)
class Delta:
    """A Bjøntegaard delta and the range it was taken over.

    Attributes:
        value: BD-rate in percent (negative: the tested curve needs fewer bits), or BD-PSNR in dB
            (positive: the tested curve is better).
        low: Start of the range, in dB for BD-rate, in bits per pixel for BD-PSNR.
        high: End of the range.
        is_clipped: Whether the range asked for had to be shortened to what both curves cover.
    """

    value: float
    low: float
    high: float
    is_clipped: bool


def bd_rate(
    tested: Curve,
    anchor: Curve,
    over: tuple[float, float] | None = None,
    *,
    metric: Metric = "psnr",
    is_clipping_allowed: bool = False,
) -> Delta:
    """How many percent more bits `tested` needs than `anchor` for the same distortion.

    Args:
        tested: The curve in question.
        anchor: The curve it is measured against.
        over: The range in dB; without it the whole range that both curves cover. Figures over
            different ranges cannot be compared, so tables should give a range.
        metric: PSNR, or MS-SSIM in decibels.
        is_clipping_allowed: Shorten a range that is not covered, and say so in the result.

    Raises:
        DiveqError: Fewer than two points, distortion that does not rise with rate, curves that do
            not overlap, or a range that one of them does not cover.
    """
    series = [_rising(curve, metric) for curve in (tested, anchor)]
    spans = [(one.name, one.distortion[0], one.distortion[-1]) for one in series]
    low, high = _common_range(spans, over, is_clipping_allowed, "dB")
    means = [_mean(one.distortion, one.log_rate, low, high) for one in series]
    percent = 100 * math.expm1(means[0] - means[1])
    return Delta(percent, low, high, over is not None and (low, high) != over)


def bd_psnr(
    tested: Curve,
    anchor: Curve,
    over: tuple[float, float] | None = None,
    *,
    metric: Metric = "psnr",
    is_clipping_allowed: bool = False,
) -> Delta:
    """How many dB `tested` is above `anchor` at the same rate, averaged over log rate.

    Args:
        tested: The curve in question.
        anchor: The curve it is measured against.
        over: The range in bits per pixel; without it the whole range that both curves cover.
        metric: PSNR, or MS-SSIM in decibels.
        is_clipping_allowed: Shorten a range that is not covered, and say so in the result.

    Raises:
        DiveqError: As `bd_rate`.
    """
    series = [_rising(curve, metric) for curve in (tested, anchor)]
    spans = [(one.name, one.rate[0], one.rate[-1]) for one in series]
    low, high = _common_range(spans, over, is_clipping_allowed, "bpp")
    means = [_mean(one.log_rate, one.distortion, math.log(low), math.log(high)) for one in series]
    return Delta(means[0] - means[1], low, high, over is not None and (low, high) != over)


@dataclass(frozen=True, slots=True)
class _Series:
    """What the integrals need of a curve: both axes strictly rising and finite."""

    name: str
    rate: list[float]
    distortion: list[float]

    @property
    def log_rate(self) -> list[float]:
        return [math.log(rate) for rate in self.rate]


def _rising(curve: Curve, metric: Metric) -> _Series:
    """Check that the curve rises; points without this metric are left out."""
    points = [
        (rate, value)
        for rate, value in zip(curve.bpp, curve.distortion(metric), strict=True)
        if math.isfinite(value)
    ]
    if len(points) < 2:
        raise DiveqError(
            f"{curve.name}: a Bjøntegaard delta needs two points with {metric} at least, "
            f"but there are {len(points)}; evaluate at more qualities"
        )
    for (rate, value), (next_rate, next_value) in pairwise(points):
        if next_value <= value:
            raise DiveqError(
                f"{curve.name}: {metric} does not rise from {rate:.4f} bpp ({value:.3f} dB) to "
                f"{next_rate:.4f} bpp ({next_value:.3f} dB); leave one of these qualities out"
            )
    return _Series(curve.name, [rate for rate, _ in points], [value for _, value in points])


def _common_range(
    spans: Sequence[tuple[str, float, float]],
    over: tuple[float, float] | None,
    is_clipping_allowed: bool,
    unit: str,
) -> tuple[float, float]:
    """The range to integrate over, after checking that every curve covers it."""
    low = max(start for _, start, _ in spans)
    high = min(end for _, _, end in spans)
    if over is not None:
        if not over[0] < over[1] or (unit == "bpp" and over[0] <= 0):
            raise DiveqError(f"{over[0]:g}-{over[1]:g} {unit}: not a range; give it as LOW, HIGH")
        if not is_clipping_allowed:
            for name, start, end in spans:
                if over[0] < start or over[1] > end:
                    raise DiveqError(
                        f"{name}: covers {start:.2f}-{end:.2f} {unit}, not the whole of "
                        f"{over[0]:g}-{over[1]:g} {unit}; evaluate at more qualities or "
                        "choose a smaller range"
                    )
        low, high = max(low, over[0]), min(high, over[1])
    if low >= high:
        covered = ", ".join(f"{name} {start:.2f}-{end:.2f} {unit}" for name, start, end in spans)
        raise DiveqError(f"the curves do not overlap in the range asked for: {covered}")
    return low, high


def _mean(x: Sequence[float], y: Sequence[float], low: float, high: float) -> float:
    """Mean of the PCHIP interpolant of y(x) over [low, high], by its exact integral."""
    interpolate: Any = import_extra("scipy.interpolate")
    interpolant = interpolate.PchipInterpolator(x, y)
    return float(interpolant.integrate(low, high)) / (high - low)
