"""The quality at which a file gets a wanted size or PSNR: a search over the fine gain index.

The logarithm of the size and the PSNR both rise nearly in a straight line with quality, so that
interpolation between what was tried is soon there. Every trial is a whole encode: networks before
the analysis are told of the gain, so that nothing which takes long is the same for all of them.
An effort that takes long begins where a quicker one has found the target.
Works with anything that has the interface `Compressor`; knows nothing of files, networks or the
command line.
"""

import math
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol

from diveqcodec.errors import ConfigError
from diveqcodec.image import Picture
from diveqcodec.psnr import psnr
from diveqcodec.quality import DEFAULT_QUALITY, GAIN_STEPS, HIGHEST, LOWEST, shown

MAX_ENCODES: Final = 8  # at an effort; as a rule three to five are enough
MAX_QUICK_ENCODES: Final = 16  # of a small picture, whose curves have steps and bends
SMALL: Final = 1 << 16  # pixels

_QUICK: Final = 5  # the effort with which the search for a higher one begins
_STEP: Final = (HIGHEST - LOWEST) / GAIN_STEPS  # of quality: the gain index is that fine
_SIZE_TOLERANCE: Final = 0.01  # below the target
_PSNR_TOLERANCE: Final = 0.05  # dB above it
# What is asked for beyond these is as far out of reach, and numbers keep their digits.
_MOST_DECIBELS: Final = 200.0  # one sample of all that a picture may have, off by one: 138
_MOST_BYTES: Final = 2.0**60
# How both rise a step of quality, before two points tell it of the picture itself.
_SIZE_SLOPE: Final = 0.035  # of the natural logarithm
_PSNR_SLOPE: Final = 0.16  # dB


class Compressor(Protocol):
    """What the search needs of a codec."""

    def compress(self, picture: Picture, quality: float, effort: int) -> bytes:
        """The bytes of a file."""

    def decompress(self, data: bytes) -> Picture:
        """Its pixels."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is wanted.

    Attributes:
        kind: "size" in bytes or "bpp" in bits a pixel, for which files may be up to 1 % smaller and
            never larger; "psnr" in dB, which may be up to 0.05 dB higher and never lower.
        value: How much of it.
    """

    kind: Literal["size", "bpp", "psnr"]
    value: float

    def __post_init__(self) -> None:
        """Refuse what no picture can have.

        Raises:
            ConfigError: the value is not positive, or not finite.
        """
        if not 0 < self.value < math.inf:
            value = shown(self.value)
            raise ConfigError(f"target {self.kind} {value}: must be above 0, and finite")


@dataclass(frozen=True, slots=True)
class Found:
    """The file that comes nearest to a target.

    Attributes:
        data: Its bytes.
        quality: At which it was made.
        value: What it has of what was wanted, in the target's unit.
        is_reached: Whether it is within the tolerance.
        encodes: How many files were made on the way.
    """

    data: bytes
    quality: float
    value: float
    is_reached: bool
    encodes: int


def search(coder: Compressor, picture: Picture, target: Target, effort: int) -> Found:
    """Compress a picture to a target.

    Where none is within the tolerance, the nearest file that keeps to the right side of the target
    is taken; where there is none of these, the nearest of all.
    """
    quality, encodes = float(DEFAULT_QUALITY), 0
    if effort > _QUICK:
        near = search(coder, picture, target, _QUICK)
        quality, encodes = near.quality, near.encodes
    hunt = _Hunt(coder, picture, target, effort)
    height, width = picture.pixels.shape[:2]
    limit = MAX_QUICK_ENCODES if height * width <= SMALL and effort <= _QUICK else MAX_ENCODES
    while True:
        hunt.attempt(quality)
        following = hunt.following()
        if following is None or len(hunt.points) >= limit:
            found = hunt.best()
            return replace(found, encodes=found.encodes + encodes)
        quality = following


def visible_psnr(original: Picture, decoded: Picture) -> float:
    """PSNR in dB of what can be seen of a picture; infinite where that is the same."""
    seen = None if original.alpha is None else original.alpha > 0
    return psnr(original.pixels, decoded.pixels, seen)


@dataclass(frozen=True, slots=True)
class _Point:
    """A file that was made: quality, and the height of its curve, which rises with quality."""

    quality: float
    height: float
    data: bytes


class _Hunt:
    """The points tried so far, and where to look next."""

    def __init__(self, coder: Compressor, picture: Picture, target: Target, effort: int) -> None:
        self.points: list[_Point] = []
        self._coder, self._picture, self._effort = coder, picture, effort
        self._is_psnr = target.kind == "psnr"
        height, width = picture.pixels.shape[:2]
        self._scale = 8 / (width * height) if target.kind == "bpp" else 1.0
        if self._is_psnr:
            self._low = min(target.value, _MOST_DECIBELS)
            self._high = self._low + _PSNR_TOLERANCE
            self._slope = _PSNR_SLOPE
        else:
            value = min(target.value, _MOST_BYTES)
            size = math.floor(value / self._scale + 1e-6)  # bpp of whole bytes is rounded
            self._high = math.log(max(size, 1))
            self._low = self._high + math.log(1 - _SIZE_TOLERANCE)
            self._slope = _SIZE_SLOPE

    def attempt(self, quality: float) -> None:
        """Make a file."""
        data = self._coder.compress(self._picture, quality, self._effort)
        if self._is_psnr:
            height = visible_psnr(self._picture, self._coder.decompress(data))
        else:
            height = math.log(len(data))
        self.points.append(_Point(quality, height, data))

    def following(self) -> float | None:
        """The quality to try next; None if the last is good, or nothing is left to try."""
        last = self.points[-1]
        if self._low <= last.height <= self._high:
            return None
        below = max((p for p in self.points if p.height < self._low), key=_quality, default=None)
        above = min((p for p in self.points if p.height > self._high), key=_quality, default=None)
        aim = (self._low + self._high) / 2
        if below is not None and above is not None:
            if above.quality - below.quality <= 1.5 * _STEP:
                return None
            return self._between(below, above, aim)
        end = HIGHEST if above is None else LOWEST
        if last.quality == end:
            return None
        step = (aim - last.height) / self._slope_near(last) if math.isfinite(last.height) else -20.0
        return min(HIGHEST, max(LOWEST, last.quality + step))

    def best(self) -> Found:
        """The file to take."""
        good = [p for p in self.points if self._low <= p.height <= self._high]
        if self._is_psnr:
            right = [p for p in self.points if p.height >= self._low]
        else:
            right = [p for p in self.points if p.height <= self._high]
        aim = self._low if self._is_psnr else self._high
        chosen = min(good or right or self.points, key=lambda p: abs(p.height - aim))
        value = chosen.height if self._is_psnr else len(chosen.data) * self._scale
        return Found(chosen.data, chosen.quality, value, bool(good), len(self.points))

    def _between(self, below: _Point, above: _Point, aim: float) -> float:
        """Interpolated linearly by the Illinois rule; in the middle where that is not possible.

        An end that stays, because the last points all lay on the other side, counts half as far
        from the aim for each of them: else a bend of the curve would hold it there.
        """
        share = 0.5
        if math.isfinite(above.height):
            low, high = aim - below.height, above.height - aim
            sides = [point.height > self._high for point in reversed(self.points)]
            again = next((i for i, side in enumerate(sides) if side != sides[0]), len(sides)) - 1
            low, high = (low / 2**again, high) if sides[0] else (low, high / 2**again)
            share = low / (low + high)
        width = above.quality - below.quality
        margin = min(_STEP / width, 0.5)
        return below.quality + width * min(1 - margin, max(margin, share))

    def _slope_near(self, last: _Point) -> float:
        """Of the last two points, kept from running away where the curve is flat."""
        finite = [p for p in self.points if math.isfinite(p.height) and p is not last]
        if not finite:
            return self._slope
        other = finite[-1]
        slope = (last.height - other.height) / (last.quality - other.quality)
        return min(4 * self._slope, max(self._slope / 4, slope))


def _quality(point: _Point) -> float:
    return point.quality
