"""DiVeQ with a codebook of its own, the quantizer of arXiv 2509.26469, section 3.1.

Owns the codebook and picks the nearest codeword; the mathematics is in `step`. It knows nothing of
rates, of images, or of how dead codewords are revived (`replacement`).
"""

import torch
from torch import Tensor
from torch.nn import functional

from diveqcodec.errors import TrainingError
from diveqcodec.quantize.base import CodebookQuantizer
from diveqcodec.quantize.step import Noise, diveq_step, nearest, step_toward, with_value

__all__ = ["DiVeQ", "Noise", "diveq_step", "nearest", "step_toward", "with_value"]


class DiVeQ(CodebookQuantizer):
    """Nearest codeword, DiVeQ's gradient; evaluation is a plain look-up.

    Args:
        size: K, number of codewords.
        dim: D.
        rho: noise relative to the error, see `diveq_step`.
        noise: "forward", "gradient" or "none", see `diveq_step`.
        sigma: a fixed standard deviation instead of `rho`.

    Raises:
        ConfigError: a size below 1, unknown `noise`, negative `rho` or `sigma`.
    """

    def __init__(
        self,
        size: int,
        dim: int,
        *,
        rho: float = 1.0,
        noise: Noise = "gradient",
        sigma: float | None = None,
    ) -> None:
        super().__init__(size, dim, rho=rho, noise=noise, sigma=sigma)

    def initialise(self, latents: Tensor, generator: torch.Generator | None = None) -> None:
        """Sets the codewords to K different rows of `latents`, chosen at random.

        Args:
            latents: `[N, D]`, N >= K.
            generator: source of the choice; on any device.

        Raises:
            TrainingError: fewer latents than codewords.
        """
        if len(latents) < self.size:
            raise TrainingError(
                f"{len(latents)} latents for {self.size} codewords: give more latents"
            )
        device = latents.device if generator is None else generator.device
        chosen = torch.randperm(len(latents), generator=generator, device=device)[: self.size]
        latents = latents.detach().float()
        self.set_codebook(latents[chosen.to(latents.device)], latents.square().mean().sqrt())

    def select(self, z: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """The nearest codeword, with gradient to the codebook; nothing is drawn."""
        codebook = self.codebook
        indices = nearest(z.reshape(-1, self.dim), codebook).reshape(z.shape[:-1])
        return functional.embedding(indices, codebook), indices
