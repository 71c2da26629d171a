"""Building blocks of the networks: gain-conditioned convolution stacks and bounded activations.

Knows tensors only: nothing of quantizers, priors, files or training.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

Convolution = TypeVar("Convolution", nn.Conv2d, nn.Linear)


class GainTable(nn.Module):
    """A learned piecewise-linear function of the quality position.

    The quality position `u` in [0, 1] is the log of the gain, 0 at the smallest rate and 1 at the
    largest. A plain table with linear interpolation is enough for a function of one variable, is
    zero at the start, and is read off exactly at any set of positions when a model is exported.
    """

    def __init__(self, features: int, knots: int = 9) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(knots, features))

    def forward(self, u: Tensor) -> Tensor:
        """Return `[B, features]` for positions `u` `[B]`."""
        knots = self.weight.shape[0]
        scaled = u.float().clamp(0, 1) * (knots - 1)
        low = scaled.floor().clamp(max=knots - 2)
        part = (scaled - low)[:, None]
        index = low.long()
        return torch.lerp(self.weight[index], self.weight[index + 1], part)


class ResidualBlock(nn.Module):
    """`x + conv(act(scale(u) * conv(x) + shift(u)))` with 3x3 convolutions, conditioned on quality.

    The second convolution starts small, so that a deep stack starts near the identity. `act` is a
    ReLU: it bends at any scale of its input, where a GELU of the small activations with which a
    correction begins is a straight line (models/EXPERIMENTS.md).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.film = GainTable(2 * width)
        with torch.no_grad():
            self.second.weight.mul_(0.3)

    def forward(self, x: Tensor, u: Tensor) -> Tensor:
        """Map `[B, width, h, w]` at quality positions `u` `[B]` to the same shape."""
        hidden = modulate(self.first(x), self.film(u))
        result: Tensor = x + self.second(hidden.relu())
        return result


class Stack(nn.ModuleList):
    """Residual blocks of one width, one after another."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__(ResidualBlock(width) for _ in range(count))

    def forward(self, x: Tensor, u: Tensor) -> Tensor:
        """Map `[B, width, h, w]` at quality positions `u` `[B]` to the same shape."""
        for block in self:
            x = block(x, u)
        return x


def modulate(x: Tensor, film: Tensor) -> Tensor:
    """Scale and shift the channels of `x` `[B, C, h, w]` by `film` `[B, 2C]`."""
    scale, shift = film.to(x.dtype).chunk(2, dim=1)
    return x * (1 + scale[:, :, None, None]) + shift[:, :, None, None]


class _ReturningClamp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, low: float, high: float) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        ctx.bounds = (low, high)
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
        (x,) = ctx.saved_tensors
        low, high = ctx.bounds
        # A step goes against the gradient: outside, only steps that lead back are let through.
        blocked = ((x < low) & (grad > 0)) | ((x > high) & (grad < 0))
        return grad.masked_fill(blocked, 0), None, None


def returning_clamp(x: Tensor, low: float, high: float) -> Tensor:
    """Clamp to [low, high]; outside it the gradient passes only where it leads back inside."""
    result: Tensor = _ReturningClamp.apply(x, low, high)  # type: ignore[no-untyped-call]
    return result


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it fast, else float32."""
    if device.type == "cuda":
        return torch.bfloat16
    # Not public: a torch without these questions gets float32, which is only slower.
    features = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    is_fast = any(getattr(torch.cpu, feature, bool)() for feature in features)
    return torch.bfloat16 if device.type == "cpu" and is_fast else torch.float32


def zeroed(layer: Convolution) -> Convolution:
    """The same layer with weights and bias zero: what it corrects starts uncorrected."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(bias_of(layer))
    return layer


def bias_of(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> Tensor:
    """The bias of a layer that has one."""
    bias = layer.bias
    assert bias is not None
    return bias
