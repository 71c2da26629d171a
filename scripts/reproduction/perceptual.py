"""HaarPSI, a perceptual measure without weights: similarity of Haar wavelet coefficients.

Source: Reisenhofer, Bosse, Kutyniok, Wiegand, "A Haar Wavelet-Based Perceptual Similarity Index for
Image Quality Assessment", Signal Processing: Image Communication 61 (2018). LPIPS and FID need
weights that are not part of any package and are not measured.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_C, _ALPHA = 30.0, 4.2  # the paper's
_TO_YIQ = torch.tensor(
    [[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]],
)


def haarpsi(first: Tensor, second: Tensor) -> Tensor:
    """Similarity in [0, 1] of every pair of pictures, 1 for equal ones.

    Args:
        first: `[N, 3, H, W]`, values 0 to 255.
        second: the same shape.

    Returns:
        `[N]`.
    """
    a, b = (_half(torch.einsum("ij,njhw->nihw", _TO_YIQ, x.float())) for x in (first, second))
    levels_a, levels_b = _haar(a[:, :1]), _haar(b[:, :1])  # [N, 2 orientations, 3 scales, h, w]
    fine = _similar(levels_a[:, :, :2], levels_b[:, :, :2]).mean(2)
    weights = torch.maximum(levels_a[:, :, 2], levels_b[:, :, 2])
    chroma_a, chroma_b = (functional.avg_pool2d(_padded(x[:, 1:], 2), 2, 1).abs() for x in (a, b))
    chroma = _similar(chroma_a, chroma_b).mean(1, keepdim=True)
    similar = torch.cat([fine, chroma], dim=1)  # [N, 3, h, w]
    weights = torch.cat([weights, weights.mean(1, keepdim=True)], dim=1)
    total = (_ALPHA * similar).sigmoid().mul(weights).sum((1, 2, 3))
    mean = (total + 1e-12) / (weights.sum((1, 2, 3)) + 1e-12 / torch.tensor(_ALPHA).sigmoid())
    return (mean.logit() / _ALPHA).square()


def _similar(a: Tensor, b: Tensor) -> Tensor:
    return (2 * a * b + _C) / (a.square() + b.square() + _C)


def _half(x: Tensor) -> Tensor:
    """Means of 2x2 pixels."""
    return functional.avg_pool2d(x, 2, ceil_mode=True)


def _padded(x: Tensor, size: int) -> Tensor:
    """Zeros around, so that a window of `size` keeps the shape."""
    before = (size - 1) // 2
    return functional.pad(x, (before, size - 1 - before, before, size - 1 - before))


def _haar(luma: Tensor) -> Tensor:
    """Magnitudes of Haar coefficients at three scales, both orientations."""
    scales = []
    for scale in (1, 2, 3):
        size = 1 << scale
        kernel = luma.new_full((size, size), 2.0**-scale)
        kernel[: size // 2] *= -1
        pair = torch.stack([kernel, kernel.t()])[:, None]
        scales.append(functional.conv2d(_padded(luma, size), pair).abs())
    return torch.stack(scales, dim=2)
