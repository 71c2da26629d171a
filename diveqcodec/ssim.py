"""Multi-scale structural similarity of pictures, differentiable: one for training and evaluation.

Works on float tensors; knows nothing of files, of 8-bit pixels, or of how a picture was coded.
Source: Z. Wang, E. Simoncelli, A. Bovik, "Multiscale structural similarity for image quality
assessment", Asilomar 2003.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SMALLEST_SIDE = 161  # pixels: four halvings must leave a window of 11

_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # table 1
_C1, _C2 = 0.01**2, 0.03**2
_WINDOW, _SIGMA = 11, 1.5


def ms_ssim(x: Tensor, y: Tensor, *, floor: float = 1e-6) -> Tensor:
    """MS-SSIM of `[B, 3, H, W]` in [0, 1]: `[B]`, each the mean of its channels, at most 1.

    Gaussian window of 11 pixels, five scales. Computed in float32. Sides must be at least
    `SMALLEST_SIDE` pixels.

    Args:
        x: Pictures.
        y: The pictures that they are compared with; the order does not matter.
        floor: What a scale counts at least. Wang's fractional powers need values that are not
            negative, and training one above zero, for their gradient has no end there. As a
            measure take 0, as others do.
    """
    kernel = _gaussian(x.device)
    product = x.new_ones(x.shape[:2], dtype=torch.float32)
    x, y = x.float().contiguous(), y.float().contiguous()
    with torch.autocast(x.device.type, enabled=False):
        for scale, exponent in enumerate(_SCALES):
            luminance, contrast = _ssim_parts(x, y, kernel)
            last = scale == len(_SCALES) - 1
            term = (luminance * contrast if last else contrast).mean((2, 3))
            product = product * term.clamp_min(floor) ** exponent
            if not last:
                padding = [side % 2 for side in x.shape[2:]]
                x, y = (functional.avg_pool2d(v, 2, padding=padding) for v in (x, y))
    return product.mean(1)


def _ssim_parts(x: Tensor, y: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Maps of the luminance and of the contrast-and-structure term."""
    # One at a time: twice as fast as the five as one batch, which the cache does not hold.
    mean_x, mean_y, xx, yy, xy = (_blur(v, kernel) for v in (x, y, x * x, y * y, x * y))
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
