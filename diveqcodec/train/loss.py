"""What training minimises: bits, and a distortion of each picture weighted by its trade-off.

Knows nothing of how pictures are coded.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from diveqcodec.ssim import ms_ssim

Distortion = Literal["mse", "ms-ssim"]

REFERENCE_LAMBDA = 0.0067  # the loss is divided by sqrt(lambda / this), which balances gradients
# Bits are worth lambda * 255^2 * MSE or lambda * this * (1 - MS-SSIM): CompressAI's two lists of
# trade-offs (.0018 and 2.4 ... .18 and 220) differ by this factor.
MS_SSIM_SCALE = 1300.0


def weighted_distortion(x_hat: Tensor, x: Tensor, lam: Tensor, kind: Distortion) -> Tensor:
    """Distortion of every picture in units of bits a pixel: `[B, 3, H, W]` in [0, 1] to `[B]`."""
    if kind == "mse":
        return lam * 255**2 * (x_hat - x).square().mean((1, 2, 3))
    return lam * MS_SSIM_SCALE * (1 - ms_ssim(x_hat, x))


def balanced(cost: Tensor, lam: Tensor) -> Tensor:
    """Mean of costs `[B]`, bits a pixel plus distortion, each over the root of its trade-off."""
    return (cost / (lam / REFERENCE_LAMBDA).sqrt()).mean()
