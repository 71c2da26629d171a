"""What training minimises: bits, and a distortion of each picture weighted by its trade-off.

Knows nothing of how pictures are coded.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Distortion = Literal["mse", "ms-ssim"]

REFERENCE_LAMBDA = 0.0067  # the loss is divided by sqrt(lambda / this), which balances gradients
# Bits are worth lambda * 255^2 * MSE or lambda * this * (1 - MS-SSIM): CompressAI's two lists of
# trade-offs (.0018 and 2.4 ... .18 and 220) differ by this factor.
MS_SSIM_SCALE = 1300.0
MS_SSIM_SMALLEST = 161  # pixels: four halvings must leave a window of 11

_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, table 1
_C1, _C2 = 0.01**2, 0.03**2
_WINDOW, _SIGMA = 11, 1.5


def weighted_distortion(x_hat: Tensor, x: Tensor, lam: Tensor, kind: Distortion) -> Tensor:
    """Distortion of every picture in units of bits a pixel: `[B, 3, H, W]` in [0, 1] to `[B]`."""
    if kind == "mse":
        return lam * 255**2 * (x_hat - x).square().mean((1, 2, 3))
    return lam * MS_SSIM_SCALE * (1 - ms_ssim(x_hat, x))


def balanced(cost: Tensor, lam: Tensor) -> Tensor:
    """Mean of costs `[B]`, bits a pixel plus distortion, each over the root of its trade-off."""
    return (cost / (lam / REFERENCE_LAMBDA).sqrt()).mean()


def ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """Multi-scale structural similarity (Wang et al. 2003) of `[B, 3, H, W]` in [0, 1]: `[B]`.

    Gaussian window of 11 pixels, five scales, negative terms set to zero as others do. Sides must
    be at least `MS_SSIM_SMALLEST` pixels.
    """
    kernel = _gaussian(x.device)
    product = x.new_ones(x.shape[:2], dtype=torch.float32)
    x, y = x.float().contiguous(), y.float().contiguous()
    with torch.autocast(x.device.type, enabled=False):
        for scale, exponent in enumerate(_SCALES):
            luminance, contrast = _ssim_parts(x, y, kernel)
            last = scale == len(_SCALES) - 1
            term = (luminance * contrast if last else contrast).mean((2, 3))
            # the gradient of a fractional power has no end at zero
            product = product * term.clamp_min(1e-6) ** exponent
            if not last:
                padding = [side % 2 for side in x.shape[2:]]
                x, y = (functional.avg_pool2d(v, 2, padding=padding) for v in (x, y))
    return product.mean(1)


def _ssim_parts(x: Tensor, y: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Maps of the luminance and of the contrast-and-structure term."""
    batch = x.shape[0]
    stack = torch.cat([x, y, x * x, y * y, x * y])
    mean_x, mean_y, xx, yy, xy = _blur(stack, kernel).split(batch)
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x.square() + mean_y.square() + _C1)
    variance = (xx - mean_x.square()) + (yy - mean_y.square())
    contrast = (2 * (xy - mean_x * mean_y) + _C2) / (variance + _C2)
    return luminance, contrast


def _blur(x: Tensor, kernel: Tensor) -> Tensor:
    """Separable filter without padding."""
    channels = x.shape[1]
    row = kernel.expand(channels, 1, 1, -1)
    x = functional.conv2d(x, row, groups=channels)
    return functional.conv2d(x, row.transpose(2, 3), groups=channels)


def _gaussian(device: torch.device) -> Tensor:
    axis = torch.arange(_WINDOW, device=device, dtype=torch.float32) - _WINDOW // 2
    weights = torch.exp(-axis.square() / (2 * _SIGMA**2))
    return weights / weights.sum()
