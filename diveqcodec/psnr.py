"""PSNR of 8-bit pixels: one for targets, training, evaluation. Knows no torch and no pictures."""

import math

import numpy as np
from numpy.typing import NDArray

_ROWS = 256  # at once: a huge picture in 32 bits would take gigabytes


def psnr(
    original: NDArray[np.uint8], decoded: NDArray[np.uint8], seen: NDArray[np.bool_] | None = None
) -> float:
    """PSNR in dB over all channels together, `10 log10(255² / MSE)`; infinite if they are equal.

    Args:
        original: uint8 `[H, W, C]`.
        decoded: the same, or of a shape that is broadcast with it: grey against colour.
        seen: bool `[H, W]`, the pixels that count; all if None.

    >>> black = np.zeros((1, 2, 3), np.uint8)
    >>> grey = np.full((1, 2, 1), 51, np.uint8)
    >>> round(psnr(black, grey), 2)  # an error of a fifth: -20 log10(0.2)
    13.98
    """
    # Exact: a difference squared is below 2^16, so the sum fits int64 for any picture.
    if len(original) != len(decoded):
        raise ValueError(f"{len(original)} rows of pixels against {len(decoded)}")
    squared = count = 0
    for top in range(0, len(original), _ROWS):
        rows = slice(top, top + _ROWS)
        difference = original[rows].astype(np.int32) - decoded[rows]
        if seen is not None:
            difference = difference[seen[rows]]
        squared += int(np.sum(difference * difference, dtype=np.int64))
        count += difference.size
    if squared == 0:
        return math.inf
    return 10 * math.log10(255**2 * count / squared)
