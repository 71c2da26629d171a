"""PCHIP: the monotone piecewise cubic through points, and its exact mean over an interval.

Knows nothing of rates or codecs. Sources: F. Fritsch, J. Butland, "A method for constructing local
monotone piecewise cubic interpolants", SIAM J. Sci. Stat. Comput. 5 (1984), for the slopes inside;
C. Moler, "Numerical Computing with MATLAB" (2004), 3.4, for those at the ends. scipy's
`PchipInterpolator` is the same curve.
"""

from collections.abc import Sequence
from itertools import pairwise


def mean(x: Sequence[float], y: Sequence[float], low: float, high: float) -> float:
    """The mean of the interpolant of y(x) over [low, high], by its exact integral.

    Two points make a straight line, so the mean of (0, 0), (2, 4) over [1, 2] is 3:

    >>> mean([0, 2], [0, 4], 1, 2)
    3.0

    Args:
        x: Two values or more, strictly rising.
        y: As many values.
        low: Not below the first x.
        high: Above low and not above the last x.
    """
    slopes = _slopes(x, y)
    area = 0.0
    for place, (start, end) in enumerate(pairwise(x)):
        a, b = max(low, start), min(high, end)
        if a < b:
            values = (y[place], y[place + 1], slopes[place], slopes[place + 1])
            area += _area(end - start, values, a - start, b - start)
    return area / (high - low)


def _slopes(x: Sequence[float], y: Sequence[float]) -> list[float]:
    """The interpolant's derivative at every point."""
    steps = [b - a for a, b in pairwise(x)]
    chords = [(b - a) / step for (a, b), step in zip(pairwise(y), steps, strict=True)]
    if len(chords) == 1:
        return [chords[0], chords[0]]
    inner = []
    for (before, after), (left, right) in zip(pairwise(steps), pairwise(chords), strict=True):
        if left * right <= 0:  # an extremum stays one
            inner.append(0.0)
            continue
        weights = (2 * after + before, after + 2 * before)
        inner.append(sum(weights) / (weights[0] / left + weights[1] / right))
    first = _end_slope(steps[0], steps[1], chords[0], chords[1])
    last = _end_slope(steps[-1], steps[-2], chords[-1], chords[-2])
    return [first, *inner, last]


def _end_slope(step: float, next_step: float, chord: float, next_chord: float) -> float:
    """Three-point estimate at an end, held back where it would make the curve overshoot."""
    slope = ((2 * step + next_step) * chord - step * next_chord) / (step + next_step)
    if slope * chord <= 0:
        return 0.0
    if chord * next_chord <= 0 and abs(slope) > 3 * abs(chord):
        return 3 * chord
    return slope


def _area(width: float, values: tuple[float, float, float, float], a: float, b: float) -> float:
    """Integral from a to b, within [0, width], of the cubic with these ends and end slopes."""
    left, right, slope, end_slope = values
    chord = (right - left) / width
    square = (3 * chord - 2 * slope - end_slope) / width
    cube = (slope + end_slope - 2 * chord) / width**2

    def antiderivative(t: float) -> float:
        return t * (left + t * (slope / 2 + t * (square / 3 + t * cube / 4)))

    return antiderivative(b) - antiderivative(a)
