"""The quantizers under test by name, each built for K codewords of D dimensions.

Nothing here is tuned for one of them: every method has its published settings, and the learning
rate comes from the same small search (`plan.chosen`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypedDict

from diveqcodec.quantize import (
    BSQ,
    EMA,
    FSQ,
    LFQ,
    NSVQ,
    STE,
    DiVeQ,
    GumbelSoftmax,
    Projected,
    Quantizer,
    RotationTrick,
    SFDiVeQ,
    SimVQ,
)


class _Noise(TypedDict):
    noise: Literal["forward"]
    sigma: float


# Levels for about K combinations: those of the FSQ paper, below its smallest the nearest product.
LEVELS = {
    16: (5, 3),
    64: (8, 8),
    128: (5, 5, 5),
    256: (8, 6, 5),
    512: (8, 8, 8),
    1024: (8, 5, 5, 5),
    2048: (8, 8, 6, 5),
}
# The noise of DiVeQ and SF-DiVeQ as published: the authors' code uses its "variance" of 1e-3 as a
# standard deviation, so that the direction is nearly exact.
PUBLISHED: _Noise = {"noise": "forward", "sigma": 1e-3}
# SF-DiVeQ's table of (K' - 1) L + 1 points is to have no more than K: L = 4, K' = K / 4.
STEPS = 4

_MAKERS: dict[str, Callable[[int, int], Quantizer]] = {
    "diveq": lambda size, dim: DiVeQ(size, dim, **PUBLISHED),
    "sf-diveq": lambda size, dim: SFDiVeQ(max(2, size // STEPS), dim, steps=STEPS, **PUBLISHED),
    "ste": STE,
    "ema": EMA,
    "nsvq": NSVQ,
    "rotation": RotationTrick,
    "gumbel": GumbelSoftmax,
    "simvq": SimVQ,
    "fsq": lambda size, dim: Projected(FSQ(LEVELS[size]), dim),
    "lfq": lambda size, dim: Projected(LFQ(_bits(size)), dim),
    "bsq": lambda size, dim: Projected(BSQ(_bits(size)), dim),
}
METHODS = tuple(_MAKERS)
# Whose authors prescribe that codewords nobody chooses are moved beside busy ones.
REPLACING = ("diveq", "nsvq")
TITLES = {
    "diveq": "DiVeQ",
    "sf-diveq": "SF-DiVeQ, 4 steps",
    "ste": "STE + commitment",
    "ema": "EMA",
    "nsvq": "NSVQ",
    "rotation": "rotation trick",
    "gumbel": "Gumbel-softmax",
    "simvq": "SimVQ",
    "fsq": "FSQ",
    "lfq": "LFQ",
    "bsq": "BSQ",
    "k-means": "k-means",
}


def make(method: str, size: int, dim: int) -> Quantizer:
    """The quantizer of at most `size` codewords in `dim` dimensions; all trade at equal bits."""
    return _MAKERS[method](size, dim)


def _bits(size: int) -> int:
    return size.bit_length() - 1
