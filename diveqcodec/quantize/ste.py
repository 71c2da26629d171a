"""Straight-through estimation with VQ-VAE's two losses, the baseline of all others.

It knows nothing of rates or images.
"""

import torch
from torch import Tensor

from diveqcodec.quantize.base import (
    Quantised,
    check_weights,
    commitment_loss,
)
from diveqcodec.quantize.codebook import CodebookQuantizer
from diveqcodec.quantize.step import with_value


class STE(CodebookQuantizer):
    """Nearest codeword; the encoder gets the gradient as if nothing had been quantized.

        z_q = z + sg[c - z],    loss = |sg[z] - c|^2 + beta |z - sg[c]|^2

    so that dL/dz = g + beta-term and the codebook learns from the loss alone. A codeword that no
    latent selects gets no gradient and stays where it is. Source: arXiv 1711.00937.

    >>> STE(size=256, dim=8)(torch.zeros(5, 8)).indices.shape
    torch.Size([5])

    Args:
        size: K, number of codewords.
        dim: D.
        commitment: beta.

    Raises:
        ConfigError: a size below 1, negative `commitment`.
    """

    _is_trained = True  # whether an optimizer moves the codewords

    def __init__(self, size: int, dim: int, *, commitment: float = 0.25) -> None:
        check_weights(commitment=commitment)
        super().__init__(size, dim, is_trained=self._is_trained)
        self.commitment = commitment

    def _train_step(
        self, z: Tensor, taught: Tensor, generator: torch.Generator | None
    ) -> Quantised:
        point, indices = self.select(z)
        loss = commitment_loss(taught, point, self.commitment)
        return Quantised(self._forward(z, point), indices, loss)

    def _forward(self, z: Tensor, point: Tensor) -> Tensor:
        """The codewords `point`, with the gradient to z that this method estimates."""
        return with_value(z, point)
