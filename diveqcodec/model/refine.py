"""Refinement of a latent, for high effort: the encoder alone works longer.

Every choice of codewords is already the best for its latent y. What y does not know is what its
group costs the groups that are coded after it, and what the networks behind the latent make of it.
So y is moved. With g the gradient of all bits, and of distortion in bits, by the coded latent ŷ
(means and classes of later groups follow it, its own bits do not), a bit being worth RATE =
ln 2 / 6 squared cells, every round goes some way to a target,

    target = ŷ - RATE / 2 * g,        y <- y + step * (target - y) + MOMENTUM * (last movement).

For an orthonormal synthesis and no context the target is the latent of the picture itself. It is
what straight-through descent with a commitment of weight 1 / RATE does; descent by a gradient that
trains an encoder makes the picture worse (models/EXPERIMENTS.md).

Contexts see magnitudes too, and these have a corner at zero: see `StraightRecorder.seen`.

Codewords are chosen and bits counted as coding does it; only slopes are those of training. The
decoder knows nothing of it, and this nothing of files: it needs the trainable model.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diveqcodec.model.dvq import DvqModel
from diveqcodec.model.quantizer import Classes
from diveqcodec.model.recorder import Recorder, StraightRecorder
from diveqcodec.quality import RATE
from diveqcodec.quantize.diveq import with_value

# Of the way to the target, in the first round and in the last of several. Targets jump with every
# choice that changes; small steps at the end average over them.
_STEPS = (0.4, 0.08)
_SEVERAL = 4  # rounds; fewer are not enough to get as far as the last step
_MOMENTUM = 0.5  # of the last movement

Distortion = Callable[[Tensor], Tensor]  # of ŷ `[1, C, h, w]` in cells, in bits; differentiable


def refine(
    model: DvqModel,
    y: Tensor,
    log_gain: Tensor,
    distortion: Distortion,
    rounds: int,
    progress: Callable[[], None] | None = None,
) -> Tensor:
    """The latent that is cheapest to code of those that a number of rounds find, `y` among them.

    Args:
        model: with its prior, in evaluation mode; left as it was.
        y: a latent in cells, `[1, C, h, w]`.
        log_gain: `[1]`.
        distortion: what ŷ loses, in bits at the quality asked for.
        rounds: each is a forward and a backward pass of all networks; and one more looks forward.
        progress: called after each round.
    """
    best, least = y, float("inf")
    movement = torch.zeros_like(y)
    for number in range(rounds + 1):
        is_last = number == rounds
        cost, target = _look(model, y, log_gain, distortion, is_last)
        if cost < least:
            best, least = y, cost
        if number and progress is not None:
            progress()
        step = _STEPS[0] * (_STEPS[1] / _STEPS[0]) ** (number / (max(rounds, _SEVERAL) - 1))
        movement = step * (target - y) + _MOMENTUM * movement
        y = y + movement
    return best


def _look(
    model: DvqModel, y: Tensor, log_gain: Tensor, distortion: Distortion, is_last: bool
) -> tuple[float, Tensor]:
    """Cost in bits of coding `y`, and the target it gives; `y` itself where `is_last`."""
    with torch.inference_mode(False), torch.set_grad_enabled(not is_last):
        moving = y.detach().clone().requires_grad_(not is_last)
        coder = (Recorder if is_last else _Straight)(
            model.quantizer, model.config, model.rules, training=False
        )
        with torch.autocast(y.device.type, enabled=False):
            binned = model.binned_log_gain(log_gain)
            y_hat, bits = model.prior.walk(moving, model.sigma, binned, coder)
        cost = bits.sum() + distortion(y_hat)
        if is_last:
            return float(cost), y
        (gradient,) = torch.autograd.grad(cost, moving)
        return float(cost.detach()), y_hat.detach() - RATE / 2 * gradient


class _Straight(StraightRecorder):
    """ŷ moves with y, and so does all that is predicted from it; a group's own bits do not.

    Symbols and the value of the bits are those of coding, classes rounded and groups of class 0
    skipped; their slope is that between neighbouring classes of the tables as they were learned.
    """

    def learn(self, s: int, y: Tensor, mean: Tensor, classes: Classes) -> tuple[Tensor, Tensor]:
        """See `Coder`."""
        choice, e, bits = self.chosen(s, classes)
        e = e.detach().view(y.shape)
        sloped = with_value(self.quantizer.bits(choice, classes, self.learned), bits.detach())
        is_null = (e.view(y.shape[0], -1, self.config.group) == 0).all(2, keepdim=True)
        is_null = is_null.expand(-1, -1, self.config.group).reshape(y.shape)
        follows = torch.where(is_null, mean, mean.detach())
        return with_value(y + follows, mean.detach() + e), sloped.view(y.shape[0], -1).sum(1)
