"""SimVQ: one linear map moves a frozen random codebook, so that no codeword is left behind.

It knows nothing of rates or images.
"""

import torch
from torch import Tensor, nn

from diveqcodec.quantize.ste import STE
from diveqcodec.quantize.step import as_float


class SimVQ(STE):
    """Straight-through VQ whose codebook is `scale * unit @ weight.T`, with `unit` frozen.

        c = W e,    z_q = z + sg[c - z],    loss = |sg[z] - c|^2 + beta |z - sg[c]|^2

    Only W `[D, D]` learns, so every codeword moves with every step, used or not. Source: arXiv
    2411.02038.

    Args:
        size: K, number of codewords.
        dim: D.
        commitment: beta.

    Raises:
        ConfigError: a size below 1, negative `commitment`.
    """

    _is_trained = False

    def __init__(self, size: int, dim: int, *, commitment: float = 0.25) -> None:
        super().__init__(size, dim, commitment=commitment)
        self.weight = nn.Parameter(torch.eye(dim))

    @property
    def codebook(self) -> Tensor:
        """The codewords `[K, D]`, float32 at least, differentiable with respect to `weight`."""
        scale, unit, weight = (as_float(t)[0] for t in (self.scale, self.unit, self.weight))
        with torch.autocast(unit.device.type, enabled=False):
            return scale * (unit @ weight.t())

    def set_codebook(self, codewords: Tensor, scale: Tensor) -> None:
        """Freezes the codewords `[K, D]` as given, with W the identity.

        Raises:
            ConfigError: the codewords do not have the shape of the codebook.
        """
        super().set_codebook(codewords, scale)
        with torch.no_grad():
            self.weight.copy_(torch.eye(self.dim))
