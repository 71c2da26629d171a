"""NSVQ: the error is replaced by noise of the same length.

It knows nothing of rates or images.
"""

import math

import torch
from torch import Tensor

from diveqcodec.quantize.base import Quantised
from diveqcodec.quantize.codebook import CodebookQuantizer
from diveqcodec.quantize.step import step_toward


class NSVQ(CodebookQuantizer):
    """Training adds noise as long as the error of the nearest codeword; evaluation is a look-up.

        z_q = z + |c - z| w / |w|,    w ~ N(0, I)

    With e = w / |w|, d^ the direction of the error, g the upstream gradient: dL/dz = g - d^ (e.g)
    and dL/dc = d^ (e.g): DiVeQ with noise of infinite rho. The value of training is off the
    codebook. No auxiliary loss; a codeword that no latent selects gets no gradient (the authors
    replace it: `replace_unused`). Source: Vali and Bäckström, "NSVQ: Noise Substitution in Vector
    Quantization for Machine Learning", IEEE Access 10 (2022).

    Args:
        size: K, number of codewords.
        dim: D.

    Raises:
        ConfigError: a size below 1.
    """

    def _train_step(
        self, z: Tensor, taught: Tensor, generator: torch.Generator | None
    ) -> Quantised:
        point, indices = self.select(z)
        noise = step_toward(
            z, point, rho=math.inf, noise="forward", sigma=None, generator=generator
        )
        return Quantised(z + noise, indices, z.new_zeros(()))
