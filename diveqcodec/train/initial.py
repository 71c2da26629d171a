"""Where training starts from: data-dependent scales of layers that would else be slow or dead.

With a framework's default weights the hyper latent is a fraction of a cell wide: every group would
be the null codeword and its rate zero before it has carried anything. And the hidden activations
of the filter of decoded pixels are so small that a GELU is a straight line there. Both are scaled
on real pictures: every hidden channel to mean 0 and deviation 1, in the order in which layers run
(LSUV, Mishkin & Matas 2015, arXiv 1511.06422, channel by channel).

Scaling the deep stacks of analysis and synthesis in the same way was tried and left out: after
1,000 steps their corrections were worth 0.01 dB, with small activations 0.15 dB after 2,300.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diveqcodec.layers import ResidualBlock, bias_of
from diveqcodec.model import HYPER_SIGMA, DvqModel

_BRANCH = 0.5  # standard deviation with which a residual branch starts


@torch.no_grad()
def calibrate(model: DvqModel, x: Tensor, lam: Tensor) -> None:
    """Scale filter and hyper analysis on pictures `x` `[B, 3, H, W]` in [0, 1], trade-offs `[B]`.

    The linear transform must be set.
    """
    targets: dict[nn.Conv2d, float] = {
        model.hyper_analysis.third: HYPER_SIGMA,
        model.synthesis.filter.stem: 1.0,
    }
    for module in model.synthesis.filter.modules():
        if isinstance(module, ResidualBlock):
            targets[module.first], targets[module.second] = 1.0, _BRANCH
    handles = [
        layer.register_forward_hook(lambda m, _, out, t=t: _standardise(m, out, t))
        for layer, t in targets.items()
    ]
    try:
        log_gain = model.log_gain(lam)
        y = model.encode_latent(x, log_gain)
        model.hyper_analysis(y, model.position(log_gain))
        model.decode_latent(y.round(), log_gain)
    finally:
        for handle in handles:
            handle.remove()


def _standardise(layer: nn.Conv2d, out: Tensor, target: float) -> Tensor:
    """Give every output channel of `layer` mean 0 and the target deviation; returns the output."""
    deviation, mean = torch.std_mean(out, dim=(0, 2, 3))
    factor = target / deviation.clamp_min(1e-6)
    layer.weight.mul_(factor[:, None, None, None])
    bias_of(layer).sub_(mean).mul_(factor)
    return (out - mean[:, None, None]) * factor[:, None, None]
