"""Where training starts from: a hyper latent, if there is one, wide enough to carry something.

With a framework's default weights it is a fraction of a cell wide: every group would be the null
codeword and its rate zero before it has carried anything. Its last layer is scaled on real
pictures, every channel to mean 0 and the same deviation (LSUV, Mishkin & Matas 2015,
arXiv 1511.06422, channel by channel).
"""

from __future__ import annotations

import torch
from torch import Tensor

from diveqcodec.layers import bias_of
from diveqcodec.model import HYPER_SIGMA, DvqModel


@torch.no_grad()
def calibrate(model: DvqModel, x: Tensor, lam: Tensor) -> None:
    """Scale the hyper analysis on pictures `x` `[B, 3, H, W]` in [0, 1], trade-offs `[B]`.

    The linear transform must be set.
    """
    if model.hyper_analysis is None:
        return
    log_gain = model.log_gain(lam)
    z = model.hyper_analysis(model.encode_latent(x, log_gain), model.position(log_gain))
    deviation, mean = torch.std_mean(z, dim=(0, 2, 3))
    factor = HYPER_SIGMA / deviation.clamp_min(1e-6)
    last = model.hyper_analysis.third
    last.weight.mul_(factor[:, None, None, None])
    bias_of(last).sub_(mean).mul_(factor)
