"""Pixels <-> latent at stride 16: a lapped linear transform, and networks that correct it.

```
x ─┬─ lapping ─ 16x16 convolution, stride 16 (KLT rows) ─────────────────────────────┐
   └─ unshuffle 4 ─ 3x3 ─ block ─ 3x3 down ─ blocks ─ 3x3 down ─ blocks ─ 1x1 · scale ─┴─ y

y ─┬─ transposed KLT ─ lapping ─────┬─────────────────────────────────────────────┬─ x̂
   └─ 1x1 ─ blocks ─ 3x3 up ─ blocks ─ 3x3 up ─ + unshuffle 4 ─ blocks ─ shuffle 4 ─┘
                                        (at stride 4)
```

The linear path alone is a good transform codec from the first step; the last layers of the networks
start at zero. Knows tensors only: nothing of quantizers, priors, files or training.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from diveqcodec.layers import ResidualBlock, Stack, patches, zeroed

SIDE = 16  # pixels of a block: the stride of the transform
_HALF = SIDE // 2
_UNIT = 0.15  # of what the networks add to pixels: keeps an optimizer's first steps small


class Lapping(nn.Module):
    """Mixes the 16 pixels around every boundary between two blocks, along rows and columns.

    Before a block transform it makes the blocks' functions overlap, after one, transposed, it
    smooths their seams. It starts as the orthogonal pre-filter with which a DCT becomes a lapped
    transform, P = Q diag(I, V) Q, Q = [[I, J], [J, -I]] / sqrt(2), V = J C2' C4 J (Tran, Liang and
    Tu, "Lapped Transform via Time-Domain Pre- and Post-Filtering", IEEE TSP 51(6), 2003, section
    III; C2 and C4 are the orthonormal DCTs of types II and IV), and is learned from there. Nothing
    is done at the borders of the picture.
    """

    def __init__(self, *, transposed: bool) -> None:
        super().__init__()
        start = prefilter()
        self.matrix = nn.Parameter((start.T if transposed else start).float().contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` `[B, C, H, W]`, sides multiples of 16, to the same shape."""
        batch, channels, height, width = x.shape
        matrix: Tensor = self.matrix
        if height > SIDE:
            inside = x[:, :, _HALF:-_HALF].reshape(batch, channels, -1, SIDE, width)
            inside = (matrix @ inside).view(batch, channels, height - SIDE, width)
            x = torch.cat([x[:, :, :_HALF], inside, x[:, :, -_HALF:]], dim=2)
        if width > SIDE:
            across = x[..., _HALF:-_HALF].reshape(batch, channels, height, -1, SIDE)
            across = (across @ matrix.T).view(batch, channels, height, width - SIDE)
            x = torch.cat([x[..., :_HALF], across, x[..., -_HALF:]], dim=3)
        return x


def prefilter() -> Tensor:
    """The orthogonal matrix `[16, 16]` that `Lapping` starts as, float64."""
    i = torch.arange(_HALF, dtype=torch.float64)
    second = torch.cos(math.pi / _HALF * i[:, None] * (i + 0.5)) * math.sqrt(2 / _HALF)
    second[0] /= math.sqrt(2)
    fourth = torch.cos(math.pi / _HALF * (i[:, None] + 0.5) * (i + 0.5)) * math.sqrt(2 / _HALF)
    eye = torch.eye(_HALF, dtype=torch.float64)
    mirror = eye.flip(0)
    butterfly = torch.cat([torch.cat([eye, mirror], 1), torch.cat([mirror, -eye], 1)])
    rotation = torch.block_diag(eye, mirror @ second.T @ fourth @ mirror)
    result: Tensor = butterfly @ rotation @ butterfly / 2
    return result


class Analysis(nn.Module):
    """Pixels to latent: lapped KLT plus a convolutional correction."""

    def __init__(self, channels: int, width4: int, width8: int, width16: int, blocks: int) -> None:
        super().__init__()
        self.lapping = Lapping(transposed=False)
        self.klt = nn.Conv2d(3, channels, SIDE, stride=SIDE)
        self.unshuffle = nn.PixelUnshuffle(4)
        self.stem = nn.Conv2d(48, width4, 3, padding=1)
        self.fine = ResidualBlock(width4)
        self.down8 = nn.Conv2d(width4, width8, 3, stride=2, padding=1)
        self.middle = Stack(width8, blocks)
        self.down16 = nn.Conv2d(width8, width16, 3, stride=2, padding=1)
        self.coarse = Stack(width16, blocks)
        self.head = zeroed(nn.Conv2d(width16, channels, 1))

    @staticmethod
    def reach(blocks: int) -> int:
        """Pixels to one side that a block's latent depends on, its own block left out."""
        return 4 * 3 + 4 + 8 * 2 * blocks + 8 + SIDE * 2 * blocks

    def linear(self, x: Tensor) -> Tensor:
        """The linear path alone."""
        with torch.autocast(x.device.type, enabled=False):
            result: Tensor = self.klt(self.lapping(x.float()))
        return result

    def forward(self, x: Tensor, u: Tensor, scale: Tensor) -> Tensor:
        """Map `x` `[B, 3, H, W]` in [-1, 1], sides multiples of 16, to `[B, C, H/16, W/16]`.

        `u` `[B]` is the quality position, `scale` `[B, C, 1, 1]` the size of the correction.
        """
        hidden = self.fine(self.stem(self.unshuffle(x)), u)
        hidden = self.down8(hidden)
        hidden = self.middle(hidden, u)
        hidden = self.down16(hidden)
        hidden = self.coarse(hidden, u)
        result: Tensor = self.linear(x) + self.head(hidden).float() * scale
        return result


class Synthesis(nn.Module):
    """Latent to pixels: transposed KLT and lapping, then a filter at stride 4 that also sees y.

    A filter of decoded pixels learns to smooth seams and ringing in some hundred steps, since a
    pattern is the same wherever it stands in a block; the deep stack tells it what the latent says
    of the place.
    """

    def __init__(
        self, channels: int, width8: int, width16: int, blocks: int, width4: int, blocks4: int
    ) -> None:
        super().__init__()
        self.klt = nn.ConvTranspose2d(channels, 3, SIDE, stride=SIDE)
        self.lapping = Lapping(transposed=True)
        self.head = nn.Conv2d(channels, width16, 1)
        self.coarse = Stack(width16, blocks)
        self.up8 = nn.Conv2d(width16, 4 * width8, 3, padding=1)
        self.middle = Stack(width8, blocks)
        self.up4 = nn.Conv2d(width8, 4 * width4, 3, padding=1)
        self.shuffle2 = nn.PixelShuffle(2)
        self.unshuffle = nn.PixelUnshuffle(4)
        self.stem = nn.Conv2d(48, width4, 3, padding=1)
        self.fine = Stack(width4, blocks4)
        self.tail = zeroed(nn.Conv2d(width4, 48, 3, padding=1))
        self.shuffle4 = nn.PixelShuffle(4)

    @staticmethod
    def reach(blocks: int, blocks4: int) -> int:
        """Pixels to one side whose latent a pixel depends on."""
        return SIDE * (2 * blocks + 1) + 8 * (2 * blocks + 1) + 4 * (2 * blocks4 + 1)

    def linear(self, y: Tensor) -> Tensor:
        """The linear path alone."""
        with torch.autocast(y.device.type, enabled=False):
            result: Tensor = self.lapping(patches(y.float(), self.klt))
        return result

    def forward(self, y: Tensor, u: Tensor, scale: Tensor) -> Tensor:
        """Map `y` `[B, C, h, w]` to `[B, 3, 16h, 16w]` float32, about in [-1, 1], not clamped.

        `scale` `[B, C, 1, 1]` divides the latent before the convolutional path.
        """
        hidden = self.head(y / scale)
        hidden = self.coarse(hidden, u)
        hidden = self.shuffle2(self.up8(hidden))
        hidden = self.middle(hidden, u)
        linear = self.linear(y)
        hidden = self.shuffle2(self.up4(hidden)) + self.stem(self.unshuffle(linear))
        hidden = self.fine(hidden, u)
        correction = self.shuffle4(self.tail(hidden)).float()
        # errors of pixels fall about as fast as this with the quality, by 17 dB over its range
        result: Tensor = linear + _UNIT * torch.exp(-2 * u)[:, None, None, None] * correction
        return result
