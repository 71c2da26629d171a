"""The transform of the first weights, `transform = "block"`: kept to read their files.

Its linear path cuts a picture into blocks that know nothing of each other, and its stacks at stride
8 learned little (models/EXPERIMENTS.md). New models use `transform`.

Knows tensors only: nothing of quantizers, priors, files or training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diveqcodec.layers import Stack, patches, zeroed

_GELU = nn.GELU(approximate="tanh")


class BlockAnalysis(nn.Module):
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
        self.fine = Stack(width8, blocks, _GELU)
        self.down = nn.Conv2d(width8, width16, 3, stride=2, padding=1)
        self.coarse = Stack(width16, blocks, _GELU)
        self.head = zeroed(nn.Conv2d(width16, channels, 1))

    @staticmethod
    def reach(blocks: int) -> int:
        """Pixels to one side that a block's latent depends on, its own block left out."""
        return 8 * (2 + 2 * blocks) + 16 * (2 * blocks + 1)

    def linear(self, x: Tensor) -> Tensor:
        """The linear path alone."""
        with torch.autocast(x.device.type, enabled=False):
            result: Tensor = self.klt(x.float())
        return result

    def forward(self, x: Tensor, u: Tensor, scale: Tensor) -> Tensor:
        """Map `x` `[B, 3, H, W]` in [-1, 1], sides multiples of 16, to `[B, C, H/16, W/16]`.

        `u` `[B]` is the quality position, `scale` `[C, 1, 1]` that of the correction.
        """
        hidden = self.stem(self.unshuffle(x))
        hidden = self.fine(hidden, u)
        hidden = self.down(hidden)
        hidden = self.coarse(hidden, u)
        correction = self.head(hidden).float()
        result: Tensor = self.linear(x) + correction * scale
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
        self.blocks = Stack(width, blocks, _GELU)
        self.tail = zeroed(nn.Conv2d(width, 12, 3, padding=1))
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, x: Tensor, u: Tensor) -> Tensor:
        """Filter `x` float32 `[B, 3, H, W]`, even sides, at quality positions `u` `[B]`."""
        hidden = self.stem(self.unshuffle(x))
        hidden = self.blocks(hidden, u)
        result: Tensor = x + self._SCALE * self.shuffle(self.tail(hidden)).float()
        return result


class BlockSynthesis(nn.Module):
    """Latent to pixels: the mirror of `BlockAnalysis`, and a filter."""

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
        self.coarse = Stack(width16, blocks, _GELU)
        self.up = nn.Conv2d(width16, 4 * width8, 3, padding=1)
        self.shuffle2 = nn.PixelShuffle(2)
        self.fine = Stack(width8, blocks, _GELU)
        self.tail = zeroed(nn.Conv2d(width8, 192, 3, padding=1))
        self.shuffle8 = nn.PixelShuffle(8)

    @staticmethod
    def reach(blocks: int, filter_blocks: int) -> int:
        """Pixels to one side whose latent a pixel depends on."""
        return BlockAnalysis.reach(blocks) + 2 * (2 + 2 * filter_blocks)

    def linear(self, y: Tensor) -> Tensor:
        """The linear path alone."""
        with torch.autocast(y.device.type, enabled=False):
            result: Tensor = patches(y.float(), self.klt)
        return result

    def forward(self, y: Tensor, u: Tensor, scale: Tensor) -> Tensor:
        """Map `y` `[B, C, h, w]` to `[B, 3, 16h, 16w]` float32, about in [-1, 1], not clamped.

        `scale` `[C, 1, 1]` divides the latent before the convolutional path.
        """
        hidden = self.head(y / scale)
        hidden = self.coarse(hidden, u)
        hidden = self.shuffle2(self.up(hidden))
        hidden = self.fine(hidden, u)
        correction = self.shuffle8(self.tail(hidden)).float()
        result: Tensor = self.filter(self.linear(y) + correction, u)
        return result
