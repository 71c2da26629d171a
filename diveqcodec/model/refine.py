"""Refinement of one picture's latent, for high effort: the encoder alone works longer.

Every choice of codewords is already the best for its target y; what a target does not know is what
its group costs the groups that are coded after it, and what the networks behind the latent make of
it. So the target is moved. With g the gradient of all bits, and of distortion in bits, by the coded
latent ŷ (means and classes of later groups follow it, its own bits do not), a bit being worth
RATE = ln 2 / 6 squared cells,

    target = ŷ - RATE / 2 * g,        y <- y + step * (target - y).

For an orthonormal synthesis and no context the target is the latent of the picture itself. It is
what straight-through descent with a commitment of weight 1 / RATE does; descent by a gradient that
trains an encoder makes the picture worse (models/EXPERIMENTS.md).

The decoder knows nothing of it, and this nothing of files: it needs the trainable model.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diveqcodec.model.dvq import DvqModel
from diveqcodec.model.prior import Coder
from diveqcodec.model.quantizer import Classes
from diveqcodec.model.recorder import Recorder
from diveqcodec.quality import RATE, lambda_of
from diveqcodec.quantize.diveq import with_value

_STEP = 0.4  # of the way to the target


def refine(
    model: DvqModel,
    x: Tensor,
    log_gain: Tensor,
    iterations: int,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """The latent in cells `[1, C, h, w]` whose coding is the best found for `x`.

    Args:
        model: with its prior; left as it was.
        x: `[1, 3, H, W]` in [0, 1], sides multiples of 16.
        log_gain: `[1]`.
        iterations: each a forward and a backward pass of all networks.
        progress: called after each with its number.
    """
    training, rate = model.training, float(lambda_of(float(log_gain))) * 255.0**2
    model.train()  # real classes, so that bits have a gradient to them
    try:
        with torch.no_grad():
            y = model.encode_latent(x, log_gain)
        best, least = y, float("inf")
        for number in range(iterations + 1):
            cost, y_hat, gradient = _evaluate(model, x, y, log_gain, rate)
            if cost < least:
                best, least = y, cost
            if progress is not None and number:
                progress(number)
            y = y + _STEP * (y_hat - RATE / 2 * gradient - y)
    finally:
        model.train(training)
    return best


def _evaluate(
    model: DvqModel, x: Tensor, y: Tensor, log_gain: Tensor, rate: float
) -> tuple[float, Tensor, Tensor]:
    """Cost in bits of coding `y`, its ŷ, and the gradient of the cost by ŷ."""
    with torch.inference_mode(False), torch.enable_grad():
        y = y.detach().clone().requires_grad_()
        coder: Coder = _Straight(model.quantizer, model.config, model.rules, training=True)
        with torch.autocast(x.device.type, enabled=False):
            binned = model.binned_log_gain(log_gain)
            y_hat, bits = model.prior.walk(y, model.sigma, binned, coder)
        error = (model.decode_latent(y_hat, log_gain) - x).square().sum() / x.shape[1]
        cost = bits.sum() + rate * error
        (gradient,) = torch.autograd.grad(cost, y)
    return float(cost.detach()), y_hat.detach(), gradient


class _Straight(Recorder):
    """ŷ moves with y, and so does all that is predicted from it; a group's own bits do not."""

    def learn(self, s: int, y: Tensor, mean: Tensor, classes: Classes) -> tuple[Tensor, Tensor]:
        """See `Coder`."""
        _, e, bits = self.chosen(s, classes)
        e = e.detach().view(y.shape)
        is_null = (e.view(y.shape[0], -1, self.config.group) == 0).all(2, keepdim=True)
        is_null = is_null.expand(-1, -1, self.config.group).reshape(y.shape)
        follows = torch.where(is_null, mean, mean.detach())
        return with_value(y + follows, mean.detach() + e), bits.view(y.shape[0], -1).sum(1)

    def seen(self, s: int, y: Tensor, y_hat: Tensor) -> Tensor:
        """See `Coder`."""
        del s
        return with_value(y, y_hat)
