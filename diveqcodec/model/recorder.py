"""What quantizes while the prior walks, in training and validation, and keeps bits and symbols.

Knows latents, means and classes: nothing of pixels, files or how a run goes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from diveqcodec.model.config import ModelConfig
from diveqcodec.model.quantizer import (
    Classes,
    Gradient,
    RateAwareQuantizer,
    encoder_step,
    moments_for,
    reconstruct,
)
from diveqcodec.model.search import Choice, Moments, rate_in_files, skipping
from diveqcodec.quality import RATE
from diveqcodec.quantize.diveq import with_value

# An optional slice is left out where what its groups could give, in squared cells a position, is
# below this: leaving it out saves more time than coding it saves bits.
_WORTH = 0.02
_SMALL = 0.5  # cells: the sum of magnitudes of a group that is nearly zero
_NULL_RADIUS = 1.25  # squared length in cells up to which a group of a sparse slice stays null


@dataclass(frozen=True, slots=True)
class TrainingRules:
    """How the quantizer is trained; not part of the model."""

    gradient: Gradient = "diveq"
    assignment_rate: float = 1.0  # 1: rate-aware, 0: nearest codeword
    mirror: bool = False  # networks are averaged over a picture and its mirror image


@dataclass(slots=True)
class SliceStatistics:
    """What one slice did in one forward pass, for the log; empty where no picture coded it."""

    bits: list[Tensor] = field(default_factory=list)
    symbols: list[Tensor] = field(default_factory=list)  # of the fine layer
    coarse: list[Tensor] = field(default_factory=list)  # empty in slices without a coarse layer


class Recorder:
    """The `Coder` of `Prior.walk` in training and validation; keeps bits and symbols.

    Args:
        quantizer: of the model.
        config: its sizes.
        rules: how it is trained.
        training: whether classes are real and gradients wanted; otherwise all is as coding sees it.
        encoder: whether the latent has a gradient.
    """

    def __init__(
        self,
        quantizer: RateAwareQuantizer,
        config: ModelConfig,
        rules: TrainingRules,
        training: bool,
        encoder: bool = False,
    ) -> None:
        self.quantizer, self.config, self.rules, self.training = quantizer, config, rules, training
        self.learned, self.words = quantizer.tables(), quantizer.words()
        self.tables = self.learned
        if not training:  # as coding sees them
            fine, coarse = self.learned
            coarse = None if coarse is None else skipping(coarse, 1)
            self.tables = skipping(fine, quantizer.fine.shapes), coarse
        self.moments: Moments = moments_for(rules.gradient, encoder) if training else "none"
        self.slices = [SliceStatistics() for _ in config.slices]
        self._choices: list[Choice] = []  # of the passes of the slice at hand

    def is_coded(self, s: int, y: Tensor) -> Tensor:
        """See `Coder`."""
        del s
        return is_worth_coding(y, self.config.group)

    def quantise(self, s: int, y: Tensor, mean: Tensor, classes: Classes) -> Tensor:
        """See `Coder`."""
        r = (y - mean).reshape(-1, self.config.group)
        used, rate = self._as_used(classes), self._rate(s)
        choice = self.quantizer.choose(r, used, self.tables, rate=rate, moments=self.moments)
        self._choices.append(choice)
        return mean + self.quantizer.value(choice, self.words).view(mean.shape)

    def learn(self, s: int, y: Tensor, mean: Tensor, classes: Classes) -> tuple[Tensor, Tensor]:
        """See `Coder`."""
        choice, e, bits = self.chosen(s, classes)
        d = self.config.group
        shape = (y.shape[0], -1, d)
        jacobian = None
        if choice.rate_slope is not None:  # in training: what bits do when residuals move
            r = (y - mean).reshape(-1, d)
            bits = bits + (choice.rate_slope * (r - r.detach())).sum(1)
        if choice.jacobian is not None:
            jacobian = choice.jacobian.view(*shape[:2], d, d)
        y_hat = reconstruct(
            y.view(shape), mean.view(shape), e.view(shape), jacobian, self.rules.gradient
        )
        return y_hat.reshape(y.shape), bits.view(y.shape[0], -1).sum(1)

    def chosen(self, s: int, classes: Classes) -> tuple[Choice, Tensor, Tensor]:
        """What the passes of slice `s` chose: symbols, vectors `[N * G, d]`, bits `[N * G]`."""
        choice, self._choices = Choice.joined(self._choices), []
        e = self.quantizer.value(choice, self.words)
        bits = self.quantizer.bits(choice, self._as_used(classes), self.tables)
        statistics = self.slices[s]
        statistics.bits.append(bits.detach())
        statistics.symbols.append(choice.fine)
        if choice.coarse is not None:
            statistics.coarse.append(choice.coarse)
        return choice, e, bits

    def seen(self, s: int, y: Tensor, y_hat: Tensor) -> tuple[Tensor, Tensor]:
        """See `Coder`."""
        del s
        straight = encoder_step(y, y_hat)
        return straight, straight

    def _rate(self, s: int) -> float:
        """The multiplier of the bits in the assignment of slice `s`."""
        rate = RATE * self.rules.assignment_rate
        return rate if self.training else rate_in_files(rate, self.config.part(s).start)

    def _as_used(self, classes: Classes) -> Classes:
        """Classes as coding uses them, real in training."""
        if self.training:
            return classes
        coarse = None if classes.coarse is None else classes.coarse.round()
        return Classes(classes.size.round(), classes.shape.round(), coarse)


class StraightRecorder(Recorder):
    """In training of networks before the analysis: ŷ, and what is predicted from it, moves with y.

    Nothing else does: a group's own bits, means and codewords hear what they hear with a fixed
    encoder. What comes back to y is not a slope to go down (see `train.encoder`).
    """

    def learn(self, s: int, y: Tensor, mean: Tensor, classes: Classes) -> tuple[Tensor, Tensor]:
        """See `Coder`."""
        y_hat, bits = super().learn(s, y.detach(), mean, classes)
        return y_hat + (y - y.detach()), bits

    def seen(self, s: int, y: Tensor, y_hat: Tensor) -> tuple[Tensor, Tensor]:
        """See `Coder`.

        A group that is nearly zero becomes larger whichever way it goes, and the sign that it has
        by its mean says nothing of the way: the latent's does.
        """
        del s
        group = self.config.group
        size = y_hat.abs().view(len(y_hat), -1, group).sum(2, keepdim=True)
        is_small = (size < _SMALL).expand(-1, -1, group).reshape(y_hat.shape)
        sign = torch.where(is_small, y.detach().sign(), y_hat.sign())
        return with_value(y, y_hat), with_value(y * sign, y_hat.abs())


def is_worth_coding(y: Tensor, group: int) -> Tensor:
    """Whether pictures or tiles code an optional slice of latents `y` `[B, positions, c]` in cells.

    Returns:
        bool `[B]`.
    """
    energy = y.view(*y.shape[:2], -1, group).square().sum(3)
    return (energy - _NULL_RADIUS).clamp_min(0).sum((1, 2)) > _WORTH * y.shape[1]
