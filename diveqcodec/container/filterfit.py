"""The filters that pay for a tile: what an encoder sends. A decoder needs nothing of it.

For every component and class the correlations of the taps with each other and with what is missing
are summed up over blocks; from these alone follow the error that any coefficients leave, and so the
division into runs of classes and integer coefficients whose saving of error, at the price of the
quality, exceeds their bits most. Knows nothing of networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from diveqcodec.container.filters import (
    CLASSES,
    LARGEST,
    TAPS,
    Filter,
    Filters,
    best_parameter,
    rice_bits,
)
from diveqcodec.container.wiener import BLOCK, HALO, SCALE, TURNS, BlockWindow, threshold_of

Floats = NDArray[np.float64]

# What a step of each component is worth: sums of squares over red, green and blue, of a correction
# by one, which adds to all three, to red and from blue, to red, twice from green, and to blue.
_WEIGHTS: Final = (3, 2, 6)
# Of the mean energy of taps: clipped and plain ones are alike where it is flat.
_RIDGE: Final = 1e-3
_COEFFICIENT_BITS: Final = 4.0  # about
_RUN_BITS: Final = 5.0
# Errors of neighbours are alike, so samples say less than so many independent pixels would: on
# Kodak, 8 to 32 times less makes no difference, twice less costs a percent.
_DOUBT: Final = 16.0
# Where less than this share is seen, a class of few pixels is left alone: others' coefficients,
# which its run would lend it for nothing, can double the error.
_SAMPLED: Final = 0.5
_LEAST: Final = 256
_NEVER: Final = 1e12  # bits
_ROUNDS: Final = 3  # of the search for integers


@dataclass(frozen=True, slots=True)
class Sums:
    """Correlations of one component under one threshold.

    Attributes:
        threshold: Its number.
        moments: float64 `[CLASSES, TAPS + 1, TAPS + 1]` in levels²: of the taps, and of what is
            missing, which stands last.
        counts: float64 `[CLASSES]`: pixels.
    """

    threshold: int
    moments: Floats
    counts: Floats


def sums(
    window: BlockWindow,
    target: NDArray[np.uint8],
    component: int,
    threshold: int,
    seen: NDArray[np.bool_],
) -> Sums:
    """Sum up correlations over the pixels of a window.

    Args:
        window: Pixels as the networks left them.
        target: The picture's own, uint8 `[h, w, 1 or 3]` without the halo.
        component: Number of the component.
        threshold: Number of the threshold.
        seen: Bool `[h, w]`: the pixels that count.
    """
    inner = window.pixels[HALO:-HALO, HALO:-HALO]
    missing = target.astype(np.int16) - inner
    planes = np.stack([*window.taps(component, threshold_of(threshold)), _of(missing, component)])
    height, width = window.classes.shape
    blocks = planes.reshape(TAPS + 1, height, BLOCK, width, BLOCK).transpose(0, 1, 3, 2, 4)
    values = blocks.reshape(TAPS + 1, height * width, BLOCK**2).astype(np.float32)
    mask = seen.reshape(height, BLOCK, width, BLOCK).transpose(0, 2, 1, 3)
    mask = mask.reshape(height * width, BLOCK**2)
    if not mask.all():
        values *= mask
    counts = np.zeros(CLASSES)
    np.add.at(counts, window.classes.ravel(), mask.sum(1))
    index = window.classes.ravel() * 4 + window.turns.ravel()
    values = values[:, np.argsort(index, kind="stable")].reshape(TAPS + 1, -1)
    ends = np.bincount(index, minlength=CLASSES * 4).cumsum() * BLOCK**2
    moments = np.zeros((CLASSES, TAPS + 1, TAPS + 1))
    for number, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        if start == end:
            continue
        part = values[:, start:end]
        # In a turned block coefficient k stands at another tap.
        turned = np.append(np.argsort(TURNS[number % 4]), TAPS)
        moments[number // 4] += (part @ part.T)[np.ix_(turned, turned)]
    return Sums(threshold, moments, counts)


def added(one: Sums, other: Sums) -> Sums:
    """Both together; of the same threshold."""
    return Sums(one.threshold, one.moments + other.moments, one.counts + other.counts)


def best(candidates: list[list[Sums]], price: float, share: float = 1.0) -> Filters:
    """The filters that are worth most.

    Args:
        candidates: For every component, sums under one or more thresholds.
        price: Bits that a squared error of one level in one of red, green and blue is worth; that
            of a grey picture's only channel is worth three.
        share: Of the pixels that the filters are for, how much the sums have seen.
    """
    filters: list[Filter | None] = []
    for weight, several in zip(_WEIGHTS, candidates, strict=False):
        found = [_fitted(one, weight, price, share) for one in several]
        value, chosen = max(found, key=lambda pair: pair[0])
        filters.append(chosen if value > 0 else None)
    return tuple(filters)


def _of(missing: NDArray[np.int16], component: int) -> NDArray[np.int16]:
    """A component of colours' differences; of a grey picture, three times its only channel."""
    if missing.shape[2] == 1:
        return np.multiply(missing[..., 0], 3)
    signs = np.array(((1, 1, 1), (1, 0, -1), (1, -2, 1))[component], np.int16)
    result: NDArray[np.int16] = missing @ signs
    return result


def _fitted(one: Sums, weight: int, price: float, share: float) -> tuple[float, Filter]:
    """A filter, and what it saves more than it costs, in bits."""
    # In units of a coefficient: the error falls by 2 v·w - w·M w.
    unit = 2.0**-SCALE
    worth = price / share
    matrices = worth * weight * unit**2 * one.moments[:, :-1, :-1]
    vectors = worth * unit * one.moments[:, :-1, -1]
    # Coefficients fitted to some pixels save less on others: by the energy of the rest over the
    # number of pixels, for each.
    doubts = _DOUBT * (1 - share) * worth / weight * one.moments[:, -1, -1]
    if share < _SAMPLED:
        doubts[one.counts < _LEAST] = _NEVER
    rows = np.zeros((CLASSES, TAPS), np.int16)
    known = np.zeros(TAPS, np.int64)
    total = -5.0 - CLASSES
    for start, end in _runs(matrices, vectors, doubts, one.counts):
        matrix, vector = matrices[start:end].sum(0), vectors[start:end].sum(0)
        row = _integers(matrix, vector, known)
        differences = row - known
        doubt = doubts[start:end].sum() / max(one.counts[start:end].sum(), 1) * TAPS
        bits = doubt + _RUN_BITS + rice_bits(differences, best_parameter(differences))
        saved = float(2 * vector @ row - row @ matrix @ row)
        if saved > bits:
            rows[start:end] = row
            known = row
            total += saved - bits
    return total, Filter(one.threshold, rows)


def _runs(
    matrices: Floats, vectors: Floats, doubts: Floats, counts: Floats
) -> list[tuple[int, int]]:
    """The division of classes into runs that is worth most, without those that are worth nothing.

    By dynamic programming: `value[j]` is that of the best division of the first j classes.
    """
    zeros = np.zeros((1, TAPS, TAPS))
    summed = np.concatenate([zeros, matrices.cumsum(0)])
    summed_vectors = np.concatenate([zeros[:, 0], vectors.cumsum(0)])
    doubts_summed, counts_summed = (np.append(0, x.cumsum()) for x in (doubts, counts))
    value = np.zeros(CLASSES + 1)
    origin = np.zeros(CLASSES + 1, np.intp)
    is_on = np.zeros(CLASSES + 1, np.bool_)
    cost = _RUN_BITS + TAPS * _COEFFICIENT_BITS
    for end in range(1, CLASSES + 1):
        matrix = summed[end] - summed[:end]
        vector = summed_vectors[end] - summed_vectors[:end]
        doubt = doubts_summed[end] - doubts_summed[:end]
        doubt = TAPS * doubt / np.maximum(counts_summed[end] - counts_summed[:end], 1)
        saved = (_solved(matrix, vector) * vector).sum(1) - cost - doubt
        values = value[:end] + np.maximum(saved, 0)
        origin[end] = start = int(values.argmax())
        value[end], is_on[end] = values[start], saved[start] > 0
    runs = []
    end = CLASSES
    while end:
        if is_on[end]:
            runs.append((int(origin[end]), end))
        end = int(origin[end])
    return runs[::-1]


def _solved(matrices: Floats, vectors: Floats) -> Floats:
    """Coefficients with the least error, `[n, TAPS]`, as far as taps can be told apart."""
    energy = np.trace(matrices, axis1=1, axis2=2)[:, None, None] / TAPS
    ridge = (_RIDGE * energy + 1e-12) * np.eye(TAPS)
    solved: Floats = np.linalg.solve(matrices + ridge, vectors[..., None])[..., 0]
    return solved


def _integers(matrix: Floats, vector: Floats, known: NDArray[np.int64]) -> NDArray[np.int64]:
    """Coefficients as integers, near `known` where that costs less than it saves."""
    exact = _solved(matrix[None], vector[None])[0]
    row: NDArray[np.int64] = exact.round().clip(-LARGEST, LARGEST).astype(np.int64)
    slope = matrix @ row - vector  # half the gradient of the error
    for _ in range(_ROUNDS):
        before = row.copy()
        parameter = best_parameter(row - known)
        for k in range(TAPS):
            options = np.array([row[k], row[k] - 1, row[k] + 1, known[k], (row[k] + known[k]) // 2])
            options = options.clip(-LARGEST, LARGEST)
            step = options - row[k]
            differences = options - known[k]
            folded = np.where(differences < 0, -2 * differences - 1, 2 * differences)
            costs = matrix[k, k] * step**2 + 2 * slope[k] * step + (folded >> parameter)
            chosen = int(costs.argmin())
            slope += matrix[:, k] * step[chosen]
            row[k] = options[chosen]
        if (row == before).all():
            break
    return row
