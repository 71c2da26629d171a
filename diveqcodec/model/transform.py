"""Pixels <-> latent at stride 16: a lapped linear transform, networks behind it and before it.

```
x ─┬──────── + ─ lapping ─ 16x16 blocks · basis ── y
   └ networks ┘

y ─┬─ transposed basis ─ lapping ──┬─────────────────────────────────────────────┬─ x̂
   └─ 1x1 ─ blocks ─ 3x3 up ─ blocks ─ 3x3 up ─ + unshuffle 4 ─ blocks ─ shuffle 4 ─┘
                                        (at stride 4)
```

The linear path alone is a good transform codec from the first step; the last layer of the networks
starts at zero. Those before it, which a model may have, are of the same shape, fed with what the
linear analysis makes of the picture. Knows tensors only: nothing of quantizers, priors, files or
training.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diveqcodec.model.config import COMPONENTS
from diveqcodec.model.layers import Stack, zeroed

SIDE = 16  # pixels of a block: the stride of the transform
_HALF = SIDE // 2
_UNIT = 0.15  # of what the networks add to pixels: keeps an optimizer's first steps small


class Mirror(NamedTuple):
    """How a picture and its latent become those of its mirror image, left for right, and back."""

    signs: Tensor  # of the channels, `[C]`: cosines that are odd across change theirs

    def picture(self, x: Tensor) -> Tensor:
        """The mirror image of `x` `[B, 3, H, W]`."""
        return x.flip(3)

    def latent(self, y: Tensor) -> Tensor:
        """Its latent, from that of the picture, `[B, C, h, w]`."""
        return (y * self.signs[:, None, None].to(y.dtype)).flip(3)


class Conditions(NamedTuple):
    """What networks are told besides pixels."""

    latent: Tensor  # of the pixels, as the networks see it, `[B, C, h, w]`
    u: Tensor  # quality positions `[B]`
    size: Tensor  # of what they add, relative to the lowest quality, `[B]`
    mirror: Mirror | None = None  # of it too, and their answer is averaged


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


def cosines() -> Tensor:
    """The orthonormal DCT of type II, `[16, 16]`, a row a frequency, float64."""
    i = torch.arange(SIDE, dtype=torch.float64)
    rows = torch.cos(math.pi / SIDE * i[:, None] * (i + 0.5)) * math.sqrt(2 / SIDE)
    rows[0] /= math.sqrt(2)
    return rows


class Basis(nn.Module):
    """Blocks of pixels <-> latent: products of a colour axis and two cosines, in a given order.

    Component (a, k, m) of a block is its inner product with `colour[a]`, row `k` of `rows` down and
    row `m` of `rows` across. The three matrices start orthonormal (as a DCT) and may be learned;
    `order` says which component every channel is, numbered 256 a + 16 k + m, and is not. Applied
    factor by factor, it takes 105 products a pixel, where a convolution of its size takes 2,304.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.colour = nn.Parameter(torch.eye(3))
        self.rows = nn.Parameter(cosines().float())
        self.mean = nn.Parameter(torch.zeros(3))  # colour that has latent zero
        self.register_buffer("order", torch.arange(channels))
        self.order: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` `[B, 3, H, W]` to `[B, C, H/16, W/16]`."""
        batch, colours, height, width = x.shape
        x = x - self.mean[:, None, None]
        across = x.reshape(-1, SIDE) @ self.rows.T
        grid = across.view(batch, colours, height // SIDE, SIDE, width // SIDE, SIDE)
        down = grid.permute(0, 2, 4, 1, 5, 3).reshape(-1, SIDE) @ self.rows.T
        turned = self.colour @ down.view(-1, colours, SIDE * SIDE)  # [B h w, 3, 16 m + k]
        k, m = self.order // SIDE % SIDE, self.order % SIDE
        place = self.order - k * SIDE - m + m * SIDE + k
        y = turned.flatten(1).index_select(1, place)
        return y.view(batch, height // SIDE, width // SIDE, -1).permute(0, 3, 1, 2)

    def mirror(self) -> Mirror:
        """The way to the mirror image's latent, if `rows` are even and odd as cosines are."""
        return Mirror(1 - 2 * (self.order % 2))

    def inverse(self, y: Tensor) -> Tensor:
        """Map `y` `[B, C, h, w]` to `[B, 3, 16 h, 16 w]`: exactly back while all is orthonormal."""
        batch, channels, height, width = y.shape
        count = batch * height * width
        k, m = self.order // SIDE % SIDE, self.order % SIDE
        place = self.order - k * SIDE - m + m * SIDE + k
        full = y.new_zeros(count, COMPONENTS)
        full = full.index_copy(1, place, y.permute(0, 2, 3, 1).reshape(count, channels))
        mixed = self.colour.T @ full.view(count, 3, SIDE * SIDE)
        down = mixed.reshape(-1, SIDE) @ self.rows  # [B h w 3 m, pixel down]
        grid = down.view(batch, height, width, 3, SIDE, SIDE).permute(0, 3, 1, 5, 2, 4)
        x = grid.reshape(-1, SIDE) @ self.rows
        return x.view(batch, 3, height * SIDE, width * SIDE) + self.mean[:, None, None]


class Analysis(nn.Module):
    """Pixels to latent, linear: lapping, then the basis applied to every block."""

    reach = SIDE // 2  # pixels to one side that a block's latent depends on

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.lapping = Lapping(transposed=False)
        self.basis = Basis(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` `[B, 3, H, W]` in [-1, 1], sides multiples of 16, to `[B, C, H/16, W/16]`."""
        with torch.autocast(x.device.type, enabled=False):
            result: Tensor = self.basis(self.lapping(x.float().contiguous()))
        return result


class Correction(nn.Module):
    """What is added to pixels: a filter at stride 4 that also sees a latent of them.

    A filter of pixels learns to smooth seams and ringing in some hundred steps, since a pattern is
    the same wherever it stands in a block; the deep stack tells it what the latent says of the
    place.

    Args:
        channels: of the latent.
        widths: of the networks at strides 4, 8 and 16.
        blocks: residual blocks at strides 4, 8 and 16.
    """

    def __init__(
        self, channels: int, widths: tuple[int, int, int], blocks: tuple[int, int, int]
    ) -> None:
        super().__init__()
        width4, width8, width16 = widths
        self.reach = 4 * (2 * blocks[0] + 1) + 8 * (2 * blocks[1] + 1) + SIDE * (2 * blocks[2] + 1)
        self.head = nn.Conv2d(channels, width16, 1)
        self.coarse = Stack(width16, blocks[2])
        self.up8 = nn.Conv2d(width16, 4 * width8, 3, padding=1)
        self.middle = Stack(width8, blocks[1])
        self.up4 = nn.Conv2d(width8, 4 * width4, 3, padding=1)
        self.shuffle2 = nn.PixelShuffle(2)
        self.unshuffle = nn.PixelUnshuffle(4)
        self.stem = nn.Conv2d(48, width4, 3, padding=1)
        self.fine = Stack(width4, blocks[0])
        self.tail = zeroed(nn.Conv2d(width4, 48, 3, padding=1))
        self.shuffle4 = nn.PixelShuffle(4)

    def correction(self, x: Tensor, told: Conditions) -> Tensor:
        """What to add to pixels `x` `[B, 3, 16 h, 16 w]`, about in [-1, 1]: float32.

        Averaged, if there is a mirror, over the picture and its mirror image: networks err
        differently in each ("geometric self-ensemble" of Lim et al., arXiv 1707.02921).
        """
        added = self._seen_once(x, told.latent, told.u)
        if told.mirror is not None:
            turned = told.mirror.picture(x), told.mirror.latent(told.latent)
            added = (added + told.mirror.picture(self._seen_once(*turned, told.u))) / 2
        return _UNIT * told.size[:, None, None, None] * added

    def _seen_once(self, x: Tensor, latent: Tensor, u: Tensor) -> Tensor:
        hidden = self.head(latent)
        hidden = self.coarse(hidden, u)
        hidden = self.shuffle2(self.up8(hidden))
        hidden = self.middle(hidden, u)
        hidden = self.shuffle2(self.up4(hidden)) + self.stem(self.unshuffle(x))
        hidden = self.fine(hidden, u)
        result: Tensor = self.shuffle4(self.tail(hidden)).float()
        return result


class Synthesis(Correction):
    """Latent to pixels: transposed basis and lapping, then what networks add to that.

    Args:
        channels: of the latent.
        widths: of the networks at strides 4, 8 and 16.
        blocks: residual blocks at strides 4, 8 and 16.
    """

    def __init__(
        self, channels: int, widths: tuple[int, int, int], blocks: tuple[int, int, int]
    ) -> None:
        super().__init__(channels, widths, blocks)
        self.basis = Basis(channels)
        self.lapping = Lapping(transposed=True)

    def linear(self, y: Tensor) -> Tensor:
        """The linear path alone."""
        with torch.autocast(y.device.type, enabled=False):
            result: Tensor = self.lapping(self.basis.inverse(y.float()))
        return result

    def forward(self, y: Tensor, told: Conditions) -> Tensor:
        """Map `y` `[B, C, h, w]`, in natural units, to `[B, 3, 16h, 16w]` float32.

        About in [-1, 1], not clamped.
        """
        linear = self.linear(y)
        return linear + self.correction(linear, told)
