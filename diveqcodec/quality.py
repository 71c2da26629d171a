"""One scale of quality in all its units, and what is asked beside it. Needs no torch.

A model is one for all rates. What is asked of it is a *quality*, 1 ... 100; what a file keeps is
the *gain index*, 0 ... 65535; both are spread evenly over the logarithm of the *gain* that
multiplies the latent before it is quantized with a cell of 1, hence over that of the trade-off
*lambda* too (bits a pixel + lambda * 255^2 * MSE). Networks see the *position* in [0, 1], the
context model its *bin*.

>>> scale = Scale(0.0006, 1.5, bins=80)
>>> index = gain_index(50)
>>> index
32437
>>> round(scale.log_gain(index), 4), round(lambda_of(scale.log_gain(index)), 4)
(1.4467, 0.0288)
>>> round(scale.position(scale.log_gain(index)), 3), scale.bin(index)
(0.495, 39)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from diveqcodec.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

Number = TypeVar("Number", float, "Tensor")

GAIN_STEPS = 65535  # the gain index is 0 ... GAIN_STEPS
LOWEST, HIGHEST = 1, 100  # quality
DEFAULT_QUALITY = 50

Lossless = Literal["auto", "always", "never"]
_WISHES: Final[tuple[tuple[object, Lossless], ...]] = (
    ("auto", "auto"),
    ("always", "always"),
    ("never", "never"),
    (None, "auto"),
    (True, "always"),
    (False, "never"),
)

# What a bit is worth in squared cells, so that a unit cell is optimal: at high rate the distortion
# is D = 1/12 a dimension and dD/dR = -2 ln 2 D.
RATE = math.log(2) / 6

# The share of RATE that a bit is worth when codewords are chosen: first and last, and the channel
# of the latent from which on it is the last. What the first channels keep makes all that is
# predicted from them cheaper, which the choice does not see; measured, models/EXPERIMENTS.md.
_FIRST_SHARE, _LAST_SHARE, _FADED = 0.5, 0.8, 64


@dataclass(frozen=True, slots=True)
class Scale:
    """The range of a model: `lambda_min` and `lambda_max` of its ends, and its number of bins."""

    lambda_min: float
    lambda_max: float
    bins: int

    @property
    def low(self) -> float:
        """Log gain of the lowest quality."""
        return log_gain_of(self.lambda_min)

    @property
    def high(self) -> float:
        """Log gain of the highest quality."""
        return log_gain_of(self.lambda_max)

    def log_gain(self, index: int) -> float:
        """Natural log of the gain of a gain index."""
        return self.low + (self.high - self.low) * index / GAIN_STEPS

    def position(self, log_gain: Number) -> Number:
        """Position in [0, 1] of log gains."""
        return (log_gain - self.low) / (self.high - self.low)

    def bin(self, index: int) -> int:
        """The bin of a gain index."""
        return index * self.bins >> 16

    def centre(self, number: Number) -> Number:
        """Log gain at the centre of bins."""
        return self.low + (self.high - self.low) * (number + 0.5) / self.bins


def rate_share(channel: int) -> float:
    """The share of `RATE` that codewords are chosen with in files, for a slice from `channel` on.

    >>> rate_share(0), rate_share(32), rate_share(500)
    (0.5, 0.65, 0.8)
    """
    return _FIRST_SHARE + (_LAST_SHARE - _FIRST_SHARE) * min(1.0, channel / _FADED)


def gain_index(quality: float) -> int:
    """The gain index of a quality from 1 to 100.

    Raises:
        ConfigError: the quality is no number, or not in 1 ... 100.
    """
    given: object = quality
    if isinstance(given, bool) or not isinstance(given, Real):
        raise ConfigError(f"quality {quality!r}: must be a number")
    if not LOWEST <= quality <= HIGHEST:
        raise ConfigError(f"quality {shown(quality)}: must be from {LOWEST} to {HIGHEST}")
    return round((float(quality) - LOWEST) / (HIGHEST - LOWEST) * GAIN_STEPS)


def shown(number: float) -> str:
    """A number for a message, however many digits it has."""
    try:
        return f"{float(number):g}"
    except OverflowError:
        return "of so many digits"


def lossless_of(wish: Lossless | bool | None) -> Lossless:
    """What is asked of lossless coding; as in Pillow True is "always", and False "never".

    Raises:
        ConfigError: it is none of these.
    """
    for value, meant in _WISHES:
        if wish is value or (isinstance(wish, str) and wish == value):
            return meant
    raise ConfigError(f'lossless {wish!r}: must be "auto", "always" (or True) or "never" (False)')


def quality_of(index: int) -> float:
    """The quality of a gain index: the inverse of `gain_index`, not rounded."""
    return LOWEST + (HIGHEST - LOWEST) * index / GAIN_STEPS


def log_gain_of(lam: float) -> float:
    """Natural log of the gain at which a unit cell is optimal for the trade-off `lam`.

    `gain^2 = lambda * 255^2 * RATE / 12` for inputs in [-1, 1] and orthonormal rows: an error of a
    cell costs 1 / 12 / gain^2 in pixels half as large as those in [0, 1], and a bit RATE cells.
    """
    return 0.5 * math.log(lam * 255.0**2 * RATE / 12.0)


def lambda_of(log_gain: float) -> float:
    """The trade-off of a log gain: the inverse of `log_gain_of`."""
    return math.exp(2.0 * log_gain) * 12.0 / (255.0**2 * RATE)
