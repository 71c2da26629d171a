"""Building blocks of the networks: gain-conditioned convolution stacks and bounded activations.

Knows tensors only: nothing of quantizers, priors, files or training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


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

    The second convolution starts small, so that a deep stack starts near the identity.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.film = GainTable(2 * width)
        self.act = nn.GELU(approximate="tanh")
        with torch.no_grad():
            self.second.weight.mul_(0.3)

    def forward(self, x: Tensor, u: Tensor) -> Tensor:
        """Map `[B, width, h, w]` at quality positions `u` `[B]` to the same shape."""
        hidden = modulate(self.first(x), self.film(u))
        result: Tensor = x + self.second(self.act(hidden))
        return result


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


class Analysis(nn.Module):
    """Pixels to latent at stride 16: a linear KLT path plus a convolutional correction.

    ```
    x ─┬─ 16x16 convolution, stride 16 (KLT rows) ────────────────────────────────┐
       └─ unshuffle 8 ─ 3x3 ─ blocks ─ stride-2 3x3 ─ blocks ─ 1x1 (zero) · scale ─┴─ y
    ```
    """

    def __init__(self, channels: int, width8: int, width16: int, blocks: int) -> None:
        super().__init__()
        self.klt = nn.Conv2d(3, channels, 16, stride=16)
        self.unshuffle = nn.PixelUnshuffle(8)
        self.stem = nn.Conv2d(192, width8, 3, padding=1)
        self.fine = nn.ModuleList(ResidualBlock(width8) for _ in range(blocks))
        self.down = nn.Conv2d(width8, width16, 3, stride=2, padding=1)
        self.coarse = nn.ModuleList(ResidualBlock(width16) for _ in range(blocks))
        self.head = nn.Conv2d(width16, channels, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(bias_of(self.head))

    def forward(self, x: Tensor, u: Tensor, scale: Tensor) -> Tensor:
        """Map `x` `[B, 3, H, W]` in [-1, 1], sides multiples of 16, to `[B, C, H/16, W/16]`.

        `u` `[B]` is the quality position, `scale` `[C]` the scale of the correction per channel.
        """
        with torch.autocast(x.device.type, enabled=False):
            linear = self.klt(x.float())
        hidden = self.stem(self.unshuffle(x))
        for block in self.fine:
            hidden = block(hidden, u)
        hidden = self.down(hidden)
        for block in self.coarse:
            hidden = block(hidden, u)
        correction = self.head(hidden).float()
        result: Tensor = linear + correction * scale[:, None, None]
        return result


class PostFilter(nn.Module):
    """Pixels to better pixels: residual blocks at half resolution, the last layer zero.

    A filter that sees pixels learns to smooth the seams of 16x16 blocks in some hundred steps. The
    stack before it works on blocks of 8x8 pixels as channels, and would have to learn the same for
    each of the 64 places in a block on its own.
    """

    _SCALE = 0.25  # of the output: keeps an optimizer's step small against the error to be mended

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.unshuffle = nn.PixelUnshuffle(2)
        self.stem = nn.Conv2d(12, width, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(blocks))
        self.tail = nn.Conv2d(width, 12, 3, padding=1)
        self.shuffle = nn.PixelShuffle(2)
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(bias_of(self.tail))

    def forward(self, x: Tensor, u: Tensor) -> Tensor:
        """Filter `x` float32 `[B, 3, H, W]`, even sides, at quality positions `u` `[B]`."""
        hidden = self.stem(self.unshuffle(x))
        for block in self.blocks:
            hidden = block(hidden, u)
        result: Tensor = x + self._SCALE * self.shuffle(self.tail(hidden)).float()
        return result


class Synthesis(nn.Module):
    """Latent to pixels: the mirror of `Analysis`, transposed KLT plus correction, and a filter."""

    def __init__(
        self,
        channels: int,
        width8: int,
        width16: int,
        blocks: int,
        filter_width: int,
        filter_blocks: int,
    ) -> None:
        super().__init__()
        self.filter = PostFilter(filter_width, filter_blocks)
        self.klt = nn.ConvTranspose2d(channels, 3, 16, stride=16)
        self.head = nn.Conv2d(channels, width16, 1)
        self.coarse = nn.ModuleList(ResidualBlock(width16) for _ in range(blocks))
        self.up = nn.Conv2d(width16, 4 * width8, 3, padding=1)
        self.shuffle2 = nn.PixelShuffle(2)
        self.fine = nn.ModuleList(ResidualBlock(width8) for _ in range(blocks))
        self.tail = nn.Conv2d(width8, 192, 3, padding=1)
        self.shuffle8 = nn.PixelShuffle(8)
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(bias_of(self.tail))

    def forward(self, y: Tensor, u: Tensor, scale: Tensor) -> Tensor:
        """Map `y` `[B, C, h, w]` to `[B, 3, 16h, 16w]` float32, about in [-1, 1], not clamped.

        `scale` `[C]` divides the latent before the convolutional path.
        """
        with torch.autocast(y.device.type, enabled=False):
            linear = _patches(y.float(), self.klt)
        hidden = self.head(y / scale[:, None, None])
        for block in self.coarse:
            hidden = block(hidden, u)
        hidden = self.shuffle2(self.up(hidden))
        for block in self.fine:
            hidden = block(hidden, u)
        correction = self.shuffle8(self.tail(hidden)).float()
        result: Tensor = self.filter(linear + correction, u)
        return result


class HyperAnalysis(nn.Module):
    """Latent (in cells) to hyper latent at a quarter of its resolution. Float, encoder only."""

    def __init__(self, channels: int, width: int, hyper_channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.film = GainTable(2 * width)
        self.second = nn.Conv2d(width, width, 5, stride=2, padding=2)
        self.third = nn.Conv2d(width, hyper_channels, 5, stride=2, padding=2)
        self.act = nn.GELU(approximate="tanh")

    def forward(self, y: Tensor, u: Tensor) -> Tensor:
        """Map `y` `[B, C, h, w]` in cells, h and w multiples of 4, to `[B, Cz, h/4, w/4]`."""
        hidden = modulate(self.first(torch.asinh(y)), self.film(u))
        hidden = self.second(self.act(hidden))
        result: Tensor = self.third(self.act(hidden)).float()
        return result


def bias_of(layer: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    """The bias of a layer that has one."""
    bias = layer.bias
    assert bias is not None
    return bias


def _patches(y: Tensor, layer: nn.ConvTranspose2d) -> Tensor:
    """The transposed convolution `layer` whose kernel is its stride, as one matrix product.

    Its patches do not overlap; library kernels for it are several times slower on a CPU.
    """
    batch, channels, height, width = y.shape
    _, colours, side, _ = layer.weight.shape
    rows = y.permute(0, 2, 3, 1).reshape(-1, channels) @ layer.weight.flatten(1)
    grid = rows.view(batch, height, width, colours, side, side).permute(0, 3, 1, 4, 2, 5)
    x = grid.reshape(batch, colours, side * height, side * width)
    return x + bias_of(layer)[:, None, None]
