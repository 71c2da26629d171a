"""Everything that decides the shape of a model; stored inside its weights. Needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from diveqcodec.errors import ConfigError
from diveqcodec.quality import Scale

Kind = Literal["diveq", "sf-diveq", "scalar"]

COMPONENTS = 768  # of a block of 16x16 pixels of three colours: as many channels as there can be
SIGMA_MIN = 0.08  # standard deviation of size class 0, in cells
SIGMA_RANGE = 150.0  # ratio of the largest size class to the smallest: 0.08 ... 12 cells
# What a size must be at least; sizes that are not here have rules of their own.
_LEAST = {
    "codebook": 2,
    "sf_steps": 1,
    "coarse_slices": 0,
    "coarse_codebook": 2,
    "width4": 1,
    "width8": 1,
    "width16": 1,
    "blocks4": 0,
    "blocks8": 0,
    "blocks16": 0,
    "window_slices": 0,
    "prior_width": 1,
    "prior_width2": 1,
    "prior_linear": 0,
    "sizes": 2,
    "shapes": 1,
    "pyramid_slices": 0,
    "quality_bins": 1,
}
_MOST_LEVELS = 16  # of a pyramid: larger than the largest tile
_WIDE_LIMIT = 32  # slices up to this many channels see a 5x5 window of themselves, others 3x3


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes of transform, quantizer and prior."""

    # Codewords are learned ("diveq"), points of a learned curve ("sf-diveq"), or pairs of whole
    # numbers, for comparison ("scalar").
    quantizer: Kind = "diveq"
    channels: int = 768  # of the latent; 768 is all of a block
    group: int = 2  # channels quantized together, 2 or 4
    slices: tuple[int, ...] = (2, 6, 8, 16, 32, 32, 64, 96, 128)  # groups of every slice
    optional_slices: int = 5  # the last so many slices, which a tile may leave out
    codebook: int = 256  # codewords of the fine layer (SF-DiVeQ: points of its curve)
    sf_steps: int = 4  # SF-DiVeQ: points a segment
    coarse_slices: int = 4  # the first so many slices have a coarse layer
    coarse_codebook: int = 1024
    coarse_cell: float = 8.0  # cells of the fine layer
    width4: int = 96  # of the synthesis networks at stride 4,
    width8: int = 128  # at stride 8,
    width16: int = 192  # and at stride 16
    blocks4: int = 2  # residual blocks at stride 4,
    blocks8: int = 1  # at stride 8,
    blocks16: int = 1  # and at stride 16
    predistortion: bool = False  # networks of the same shape before the analysis
    window_slices: int = 7  # slices that see 3x3 windows of earlier ones; the rest, their position
    prior_width: int = 256  # units of the first layer of a slice's network,
    prior_width2: int = 192  # and of the second
    prior_linear: int = 96  # units of the first layer that also go on without a ReLU
    sizes: int = 40  # size classes
    shapes: int = 5  # shape classes
    pyramid_slices: int = 2  # the first slices, coded from coarse to fine
    pyramid_levels: int = 3  # in so many doublings
    quality_bins: int = 80  # resolution of the quality in the prior
    lambda_min: float = 0.0006  # trade-off of the lowest quality: bpp + lambda * 255^2 * MSE
    lambda_max: float = 1.5

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together.

        Raises:
            ConfigError: see above.
        """
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ConfigError(f"model.{name}: {getattr(self, name)} is below {least}")
        if not self.slices or min(self.slices) < 1:
            raise ConfigError(f"model.slices: {list(self.slices)} must have a group in each")
        for name in ("coarse_slices", "pyramid_slices"):
            if getattr(self, name) > len(self.slices):
                raise ConfigError(f"model.{name}: there are {len(self.slices)} slices")
        if not 0 < self.coarse_cell < math.inf:
            raise ConfigError("model.coarse_cell: must be positive and finite")
        if sum(self.slices) * self.group != self.channels:
            raise ConfigError(
                f"model.slices: {list(self.slices)} groups of {self.group} channels make "
                f"{sum(self.slices) * self.group}, not model.channels = {self.channels}"
            )
        if self.channels > COMPONENTS:
            raise ConfigError(f"model.channels: a block has no more than {COMPONENTS}")
        if self.group not in (2, 4):
            raise ConfigError(f"model.group: {self.group} is neither 2 nor 4")
        if not 0 < self.lambda_min < self.lambda_max < math.inf:
            raise ConfigError("model.lambda_min: must be positive and below model.lambda_max")
        if self.pyramid_slices and not 1 <= self.pyramid_levels <= _MOST_LEVELS:
            raise ConfigError(
                f"model.pyramid_levels: {self.pyramid_levels} is not from 1 to {_MOST_LEVELS}; "
                "for no pyramid set model.pyramid_slices = 0"
            )
        if self.prior_linear > self.prior_width:
            raise ConfigError("model.prior_linear: must be at most model.prior_width")
        if self.shapes % 2 == 0:
            raise ConfigError(f"model.shapes: {self.shapes} is not an odd number")
        if not 0 <= self.optional_slices < len(self.slices):
            raise ConfigError("model.optional_slices: must leave at least one slice")

    @property
    def scale(self) -> Scale:
        """The range of qualities."""
        return Scale(self.lambda_min, self.lambda_max, self.quality_bins)

    @property
    def coarse_offset(self) -> float:
        """By how many size classes the coarse layer sees a smaller deviation."""
        return (self.sizes - 1) * math.log(self.coarse_cell) / math.log(SIGMA_RANGE)

    def outputs(self, s: int) -> int:
        """What the prior says of slice `s`: means, then size, shape (coarse size) of groups."""
        return self.slices[s] * (self.group + 2 + (s < self.coarse_slices))

    def part(self, s: int) -> slice:
        """The channels of slice `s`."""
        start = sum(self.slices[:s]) * self.group
        return slice(start, start + self.slices[s] * self.group)

    def is_optional(self, s: int) -> bool:
        """Whether a tile may leave slice `s` out."""
        return s >= len(self.slices) - self.optional_slices

    def inputs(self, s: int) -> int:
        """What is known of a position once slice `s` is coded: latents, magnitudes of groups."""
        return self.slices[s] * (self.group + 1)

    def inputs_before(self, s: int) -> int:
        """The same of all slices before slice `s`."""
        return sum(self.inputs(i) for i in range(s))

    def window(self, s: int) -> int:
        """Side of the window in which slice `s` sees earlier slices."""
        return 3 if s < self.window_slices else 1

    def radius(self, s: int) -> int:
        """Radius of the window in which slice `s` sees itself."""
        return 2 if self.slices[s] * self.group <= _WIDE_LIMIT else 1

    def levels(self, s: int) -> int:
        """Doublings from coarse to fine in slice `s`; 0 is a checkerboard."""
        return self.pyramid_levels if s < self.pyramid_slices else 0
