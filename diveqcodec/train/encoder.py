"""How networks before the analysis learn: towards the latent that would have been better coded.

Every choice of codewords is the best for its latent already; what can be better is the latent (see
`model.refine`, which does for one picture what is learned here for all). With g the gradient of all
bits, and of distortion in bits, by the coded latent ŷ, the latent should be at

    target = ŷ - RATE / 2 * g.

Its mean over all that a quantizer may do to pictures that look alike is what networks can learn, by
regression. Only where a group is coded: a null one does not move with its latent, and its target,
which the networks behind pull towards zero, would make ever more of them null
(models/EXPERIMENTS.md).

Knows nothing of how a latent is coded.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diveqcodec.model.dvq import Output
from diveqcodec.quality import RATE
from diveqcodec.train.loss import REFERENCE_LAMBDA

_CODED = 0.45  # cells: the least sum of magnitudes of a group that moves with its latent


def encoder_loss(output: Output, gradient: Tensor, lam: Tensor, pixels: int, group: int) -> Tensor:
    """How far latents are from their targets: squared cells a pixel, balanced as `loss.balanced`.

    Args:
        output: of the model, in training.
        gradient: of `balanced` bits a pixel and distortion by `output.latent`, `[B, C, h, w]`.
        lam: trade-offs `[B]`.
        pixels: of a picture.
        group: channels quantized together.
    """
    weight = (lam / REFERENCE_LAMBDA).sqrt()[:, None, None, None]
    in_bits = gradient * (len(lam) * pixels * weight)  # of each picture for itself
    y_hat = output.y_hat.detach()
    batch, channels, height, width = y_hat.shape
    groups = y_hat.view(batch, channels // group, group, height, width)
    is_coded = (groups.abs().sum(2, keepdim=True) > _CODED).expand_as(groups).reshape(y_hat.shape)
    target = torch.where(is_coded, y_hat - RATE / 2 * in_bits, output.plain.detach())
    missing = (output.analysed - target).square().sum((1, 2, 3), keepdim=True)
    return (missing / weight).mean() / pixels
