"""Finite scalar quantization: every dimension is bounded and rounded; there is no codebook.

It knows nothing of rates or images.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from diveqcodec.errors import ConfigError
from diveqcodec.quantize.base import Quantised, Quantizer, positive
from diveqcodec.quantize.processes import from_first_process
from diveqcodec.quantize.step import as_float, with_value

# Widens the bound so that the outermost levels can be reached, as published.
_EPSILON = 1e-3


class FSQ(Quantizer):
    """Rounds each of D bounded dimensions to its own number of levels.

        b(z) = h tanh(z / scale + shift) - offset,    h = (L - 1)(1 + .001) / 2
        z_q = scale round(b(z)) / floor(L / 2)

    with offset 1/2 and shift atanh(offset / h) where L is even, else 0. Rounding passes the
    gradient straight through, so dL/dz = g h (1 - tanh^2) / floor(L / 2). No codewords, so none can
    die, and no loss. The values are a grid; `Projected` serves latents of other dimensions.
    Index: the digits of the levels, first dimension fastest. Source: arXiv 2309.15505.

    >>> FSQ((8, 5, 5)).sizes
    (200,)

    Args:
        levels: L of every dimension: 1 (the dimension is dropped) or at least 3.

    Raises:
        ConfigError: no levels, levels of 2 (the bound leaves one of them out of reach: take LFQ),
            or more than 2^62 of their combinations.
    """

    levels: Tensor
    scale: Tensor

    def __init__(self, levels: Sequence[int]) -> None:
        size = math.prod(levels)
        if not levels or min(levels) < 1 or 2 in levels or size > 1 << 62:
            raise ConfigError(
                f"FSQ of levels {tuple(levels)}: give each dimension 1 or at least 3, and at most "
                "2^62 combinations"
            )
        super().__init__(len(levels), (size,))
        self.register_buffer("levels", torch.tensor(levels))
        self.register_buffer("scale", torch.ones(len(levels)))

    @property
    def dtype(self) -> torch.dtype:
        """That of `scale`, and of the points that `lookup` gives."""
        return self.scale.dtype

    def initialise(self, latents: Tensor, generator: torch.Generator | None = None) -> None:
        """Sets the scale of every dimension to its standard deviation in `latents` `[N, D]`.

        Args:
            latents: `[N, D]`, N >= 1.
            generator: not used.

        Raises:
            TrainingError: NaN among the latents.
            ConfigError: the latents do not have `dim` columns, or there are none.
        """
        latents = self._some(latents)
        spread = latents.std(0, correction=0)
        with torch.no_grad():
            self.scale.copy_(torch.where(spread > 0, positive(spread, self.dtype), 1.0))
            from_first_process(self.scale)

    def _encode(self, z: Tensor) -> Tensor:
        digits = self._bounded(z).round().long() + self.levels // 2
        return (digits * self._basis).sum(-1)

    def _lookup(self, indices: Tensor) -> Tensor:
        digits = indices[..., None] // self._basis % self.levels
        return self._points(digits - self.levels // 2)

    def _train_step(
        self, z: Tensor, taught: Tensor, generator: torch.Generator | None
    ) -> Quantised:
        bounded = self._bounded(z)
        rounded = bounded.detach().round()
        value = with_value(self._points(bounded), self._points(rounded))
        digits = rounded.long() + self.levels // 2
        return Quantised(value, (digits * self._basis).sum(-1), z.new_zeros(()))

    def _misfit(self, given: Mapping[str, Tensor]) -> str:
        wrong = super()._misfit(given)
        levels = given.get("levels", self.levels).tolist()
        if wrong or levels == self.levels.tolist():
            return wrong
        return (
            f"levels is {self.levels.tolist()}, the state's {levels}; build the quantizer with the "
            "levels it was saved with"
        )

    @property
    def _basis(self) -> Tensor:
        """What a digit of each dimension is worth in the index."""
        return torch.cat([self.levels.new_ones(1), self.levels.cumprod(0)[:-1]])

    def _bounded(self, z: Tensor) -> Tensor:
        """b(z): rounding it gives integers from -floor(L / 2), L of them."""
        half = (self.levels - 1).to(z) * (1 + _EPSILON) / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0).to(z)
        shift = torch.where(offset > 0, (offset / half.clamp_min(1.0)).atanh(), 0.0)
        return half * (z / self.scale.to(z) + shift).tanh() - offset

    def _points(self, grid: Tensor) -> Tensor:
        """Integers, or numbers between them, to latents."""
        return grid * (as_float(self.scale)[0] / (self.levels // 2).clamp_min(1))
