"""BD-rate: how two rate-distortion curves differ on average.

It is the mean difference in log rate at equal distortion, as a percentage of rate. Curves are
interpolated by PCHIP (shape preserving, as in JVET and CompressAI's tables), not by Bjøntegaard's
cubic of 2001, which overshoots when there are more than four points. The integral of the piecewise
cubic is exact. Knows nothing of codecs or files. Source: G. Bjøntegaard, VCEG-M33, 2001; JVET
common test conditions for the interpolation.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from diveqcodec.errors import DiveqError
from diveqcodec.evaluate import pchip
from diveqcodec.evaluate.curves import Curve, Metric


@dataclass(frozen=True, slots=True)
class Delta:
    """A BD-rate and the range it was taken over.

    Attributes:
        value: In percent; negative: the tested curve needs fewer bits.
        low: Start of the range in dB.
        high: End of the range in dB.
        left_out: How many points of the two curves are infinite (lossless), and so not in it.
    """

    value: float
    low: float
    high: float
    left_out: int = 0


# A BD-rate over less than this says more of the two end points than of the codecs.
NARROWEST = 1.0  # dB


def bd_rate(
    tested: Curve,
    anchor: Curve,
    over: tuple[float, float] | None = None,
    *,
    metric: Metric = "psnr",
    is_cut: bool = False,
) -> Delta:
    """How many percent more bits `tested` needs than `anchor` for the same distortion.

    Args:
        tested: The curve in question.
        anchor: The curve it is measured against.
        over: The range in dB; without it the whole range that both curves cover. Figures over
            different ranges cannot be compared, so tables should give a range.
        metric: PSNR, or MS-SSIM in decibels.
        is_cut: Take of the range what both curves cover, as for single pictures, of which few
            cover the whole; it must be `NARROWEST` at least.

    Raises:
        DiveqError: Fewer than two points, distortion that does not rise with rate, curves that do
            not overlap, or a range that one of them does not cover.
    """
    series = [_rising(curve, metric) for curve in (tested, anchor)]
    spans = [(part.name, part.distortion[0], part.distortion[-1]) for part in series]
    low, high = _common_range(spans, over, is_cut)
    means = [pchip.mean(part.distortion, part.log_rate, low, high) for part in series]
    left_out = sum(value == math.inf for c in (tested, anchor) for value in c.distortion(metric))
    return Delta(100 * math.expm1(means[0] - means[1]), low, high, left_out)


@dataclass(frozen=True, slots=True)
class _Series:
    """What the integrals need of a curve: both axes strictly rising and finite."""

    name: str
    log_rate: list[float]
    distortion: list[float]


def _rising(curve: Curve, metric: Metric) -> _Series:
    """Check that the curve rises; lossless points and those without this metric are left out."""
    points = [
        (rate, value)
        for rate, value in zip(curve.bpp, curve.distortion(metric), strict=True)
        if math.isfinite(value)
    ]
    if len(points) < 2:
        raise DiveqError(_too_few(curve, metric, len(points)))
    for (rate, value), (next_rate, next_value) in pairwise(points):
        if next_value <= value:
            raise DiveqError(
                f"{curve.name}: {metric} does not rise from {rate:.4f} bpp ({value:.3f} dB) to "
                f"{next_rate:.4f} bpp ({next_value:.3f} dB); leave one of these qualities out"
            )
    log_rate = [math.log(rate) for rate, _ in points]
    return _Series(curve.name, log_rate, [value for _, value in points])


def _too_few(curve: Curve, metric: Metric, count: int) -> str:
    """Why a curve with `count` usable points has no delta."""
    values = curve.distortion(metric)
    lossless = sum(value == math.inf for value in values)
    missing = sum(math.isnan(value) for value in values)
    causes = [f"{lossless} {'is' if lossless == 1 else 'are'} lossless"] * bool(lossless)
    causes += [f"{missing} {'has' if missing == 1 else 'have'} none"] * bool(missing)
    why = f" ({', '.join(causes)})" if causes else ""
    return (
        f"{curve.name}: a Bjøntegaard delta needs at least two points with {metric}, "
        f"but there {'is' if count == 1 else 'are'} {count}{why}; evaluate at more qualities"
    )


def _common_range(
    spans: Sequence[tuple[str, float, float]], over: tuple[float, float] | None, is_cut: bool
) -> tuple[float, float]:
    """The range to integrate over, after checking that every curve covers it."""
    low = max(start for _, start, _ in spans)
    high = min(end for _, _, end in spans)
    if is_cut and low < high:
        if over is not None:
            low, high = max(low, over[0]), min(high, over[1])
        if high - low < NARROWEST:
            raise DiveqError(f"the curves share less than {NARROWEST:g} dB of the range")
        return low, high
    if over is not None and not is_cut:
        if not over[0] < over[1]:
            raise DiveqError(f"{over[0]:g}-{over[1]:g} dB: not a range; give it as LOW, HIGH")
        for name, start, end in spans:
            if over[0] < start or over[1] > end:
                raise DiveqError(
                    f"{name}: covers {start:.2f}-{end:.2f} dB, not the whole of "
                    f"{over[0]:g}-{over[1]:g} dB; evaluate at more qualities or "
                    "choose a smaller range"
                )
        return over
    if low >= high:
        covered = ", ".join(f"{name} {start:.2f}-{end:.2f} dB" for name, start, end in spans)
        raise DiveqError(f"the curves do not overlap: {covered}")
    return low, high
