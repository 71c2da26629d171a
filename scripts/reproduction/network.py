"""The paper's VQ-VAE: four stride-2 convolutions, residual blocks, the mirror; any quantizer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diveqcodec.quantize import Quantised, Quantizer

STRIDE = 16  # pixels a position


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a network and of the pictures that it is trained on.

    The paper's are widths 32, 64, 128, 256, six blocks, D = 512, 256x256 pixels.
    """

    widths: tuple[int, ...]
    blocks: int
    dim: int
    side: int


# What six hours of a fast core for everything leave room for: half the paper's width and side, and
# for sweeps and --quick a quarter of its side.
SHAPES = {
    "small": Shape((16, 32, 64, 128), 3, 32, 64),
    "large": Shape((16, 32, 64, 128), 6, 64, 128),
}


class Block(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(x))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[B, width, h, w]` to the same."""
        result: Tensor = x + self.branch(x)
        return result


class VQVAE(nn.Module):
    """Pictures to latents `[B, h, w, D]`, a quantizer, and back."""

    def __init__(self, shape: Shape, quantizer: Quantizer) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for wider in shape.widths:
            layers += [nn.Conv2d(width, wider, 4, 2, 1), nn.ReLU()]
            width = wider
        blocks = [Block(width) for _ in range(shape.blocks)]
        self.encoder = nn.Sequential(*layers[:-1], *blocks, nn.Conv2d(width, shape.dim, 1))
        layers = [nn.Conv2d(shape.dim, width, 1), *(Block(width) for _ in range(shape.blocks))]
        for narrower in (*shape.widths[-2::-1], 3):
            layers += [nn.ReLU(), nn.ConvTranspose2d(width, narrower, 4, 2, 1)]
            width = narrower
        self.decoder = nn.Sequential(*layers)
        self.quantizer = quantizer
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def encode(self, x: Tensor) -> Tensor:
        """Pictures `[B, 3, H, W]` in [0, 1] to latents `[B, H/16, W/16, D]`."""
        latent: Tensor = self.encoder(x - 0.5)
        return latent.permute(0, 2, 3, 1)

    def decode(self, value: Tensor) -> Tensor:
        """The mirror of `encode`."""
        picture: Tensor = self.decoder(value.permute(0, 3, 1, 2))
        return picture + 0.5

    def forward(self, x: Tensor, g: torch.Generator | None = None) -> tuple[Tensor, Quantised]:
        """The decoded pictures, and what the quantizer said."""
        quantised = self.quantizer(self.encode(x), g)
        return self.decode(quantised.value), quantised
