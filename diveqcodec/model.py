"""The codec's model, assembled for training: transforms, quantizer, prior.

```
x [B,3,H,W] ─ analysis ─ y [B,C,h,w] ─ × gain ─┬─ r = y - μ ─ product VQ ─ ŷ = μ + e
              lapped, stride 16                │                 │ indices ↕ entropy coder
                                               │               mean μ, class t
                                               │                 │
                                               │    prior: slice by slice, pass by pass ◄─ earlier ŷ
x̂ ◄─ synthesis ◄─ ŷ / gain
```

Knows nothing of files. What a decoder needs bit for bit lives in `fixedprior`, made from this.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from diveqcodec.modelconfig import ModelConfig
from diveqcodec.prior import Prior
from diveqcodec.quality import RATE, log_gain_of
from diveqcodec.quantize.rate_aware import (
    Classes,
    Gradient,
    RateAwareQuantizer,
    encoder_step,
    needs_moments,
    reconstruct,
)
from diveqcodec.quantize.search import LEAST_RATE, Choice, skipping
from diveqcodec.quantize.tables import Layer
from diveqcodec.transform import SIDE, Analysis, Synthesis

STRIDE = SIDE  # pixels of a position

# What a parameter belongs to; learning rates and precision go by it.
ParameterKind = Literal["analysis", "linear", "networks", "prior", "codebook", "table"]

# An optional slice is left out where what its groups could give, in squared cells a position, is
# below this: leaving it out saves more time than coding it saves bits.
_WORTH = 0.02
_NULL_RADIUS = 1.25  # squared length in cells up to which a group of a sparse slice stays null


@dataclass(frozen=True, slots=True)
class TrainingRules:
    """How the quantizer is trained; not part of the model."""

    gradient: Gradient = "diveq"
    assignment_rate: float = 1.0  # 1: rate-aware, 0: nearest codeword


@dataclass(slots=True)
class SliceStatistics:
    """What one slice did in one forward pass, for the log; empty where no picture coded it."""

    bits: list[Tensor] = field(default_factory=list)
    symbols: list[Tensor] = field(default_factory=list)  # of the fine layer
    coarse: list[Tensor] = field(default_factory=list)  # empty in slices without a coarse layer


@dataclass(slots=True)
class Output:
    """Result of `DvqModel.forward`: `bits` `[B]` are sums over each picture."""

    x_hat: Tensor
    bits: Tensor
    slices: list[SliceStatistics]


class Transforms(nn.Module):
    """Pixels <-> latent. All that coding needs of the float side."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = c = config
        self.analysis = Analysis(c.channels)
        self.synthesis = Synthesis(
            c.channels, (c.width4, c.width8, c.width16), (c.blocks4, c.blocks8, c.blocks16)
        )
        self.register_buffer("sigma", torch.ones(c.channels))
        self.sigma: Tensor

    @property
    def reach(self) -> int:
        """Pixels to one side that analysis or synthesis of a block depends on."""
        return max(self.analysis.reach, self.synthesis.reach)

    def encode_latent(self, x: Tensor, log_gain: Tensor) -> Tensor:
        """Pixels `[B, 3, H, W]` in [0, 1] to the latent in cells `[B, C, H/16, W/16]`."""
        result: Tensor = self.analysis(x * 2 - 1) * torch.exp(log_gain)[:, None, None, None]
        return result

    def decode_latent(self, y_hat: Tensor, log_gain: Tensor) -> Tensor:
        """Latent in cells to pixels in about [0, 1], not clamped."""
        natural = y_hat * torch.exp(-log_gain)[:, None, None, None]
        # The latent enters in units between those of its channel and a cell.
        unit = (self.sigma * torch.exp(-log_gain)[:, None]).sqrt()[:, :, None, None]
        scale = self.config.scale
        u = scale.position(log_gain)
        # Errors of pixels fall about as fast as this with the gain, by 17 dB from the lowest
        # lambda of .0006 to .25, so what the networks add does too.
        size = torch.exp((scale.low - log_gain) * (2 / 3))
        result: Tensor = (self.synthesis(natural, natural / unit, u, size) + 1) / 2
        return result

    def decode_linear(self, y_hat: Tensor, log_gain: Tensor) -> Tensor:
        """The same by the linear transform alone."""
        natural = y_hat * torch.exp(-log_gain)[:, None, None, None]
        result: Tensor = (self.synthesis.linear(natural) + 1) / 2
        return result


class DvqModel(Transforms):
    """The trainable codec."""

    def __init__(self, config: ModelConfig, rules: TrainingRules | None = None) -> None:
        super().__init__(config)
        self.rules = rules or TrainingRules()
        c = config
        self.prior = Prior(c)
        layer = functools.partial(Layer, dim=c.group, sizes=c.sizes, steps=c.sf_steps)
        fine = layer(size=c.codebook, cell=1.0, shapes=c.shapes, kind=c.quantizer)
        coarse = None
        if c.coarse_slices:
            coarse = layer(size=c.coarse_codebook, cell=c.coarse_cell, shapes=1)
        self.quantizer = RateAwareQuantizer(fine, coarse)

    @staticmethod
    def kind_of(name: str) -> ParameterKind:
        """What the parameter of this name belongs to."""
        room, _, rest = name.partition(".")
        if room == "analysis":
            return "analysis"
        if room == "synthesis":
            return "linear" if rest.startswith(("basis", "lapping")) else "networks"
        if room == "quantizer":
            return "codebook" if rest.endswith("unit") else "table"
        return "prior"

    @torch.no_grad()
    def set_transform(self, mean: Tensor, axes: Tensor, order: Tensor, sigma: Tensor) -> None:
        """Start from cosines: see `Basis` for `axes` `[3, 3]` and `order` `[C]`.

        `mean` `[3]` is the mean colour of pictures in [-1, 1] and `sigma` `[C]` the standard
        deviation of each channel.
        """
        for basis in (self.analysis.basis, self.synthesis.basis):
            basis.mean.copy_(mean)
            basis.colour.copy_(axes)
            basis.order.copy_(order)
        self.sigma.copy_(sigma)

    def log_gain(self, lam: Tensor) -> Tensor:
        """Natural log of the gain of trade-offs `lam` `[B]`."""
        return 0.5 * torch.log(lam) + log_gain_of(1.0)

    def refresh(self) -> None:
        """Rebuild the neighbour lists of all codebooks after they have moved."""
        for layer in self.layers().values():
            layer.refresh()

    def layers(self) -> dict[str, Layer]:
        """The codebooks by name: "fine", and "coarse" where the model has it."""
        layers = {"fine": self.quantizer.fine}
        if self.quantizer.coarse is not None:
            layers["coarse"] = self.quantizer.coarse
        return layers

    def forward(self, x: Tensor, lam: Tensor, whole: int | None = None) -> Output:
        """Code `x` `[B, 3, H, W]` in [0, 1], sides multiples of 16, at trade-offs `lam` `[B]`.

        Only the first `whole` pictures, by default all, are decoded by the networks, the others by
        the linear transform alone.
        """
        log_gain = self.log_gain(lam)
        y = self.encode_latent(x, log_gain)
        with torch.autocast(x.device.type, enabled=False):
            recorder = _Recorder(self)
            y_hat, bits = self.prior.walk(y, self.sigma, self.binned_log_gain(log_gain), recorder)
        whole = len(x) if whole is None else whole
        parts = []
        if whole:
            parts.append(self.decode_latent(y_hat[:whole], log_gain[:whole]))
        if whole < len(x):
            parts.append(self.decode_linear(y_hat[whole:], log_gain[whole:]))
        return Output(torch.cat(parts), bits, recorder.slices)

    def binned_log_gain(self, log_gain: Tensor) -> Tensor:
        """Log gain at the centre of its quality bin: all that the prior knows of the quality."""
        scale = self.config.scale
        position = scale.position(log_gain)
        number = (position * scale.bins).floor().clamp(0, scale.bins - 1)
        return scale.centre(number)


class _Recorder:
    """The `Coder` of `Prior.walk` in training and validation; keeps bits and symbols."""

    def __init__(self, model: DvqModel) -> None:
        self.model = model
        quantizer = model.quantizer
        self.tables, self.words = quantizer.tables(), quantizer.words()
        if not model.training:  # as coding sees them
            fine, coarse = self.tables
            coarse = None if coarse is None else skipping(coarse, 1)
            self.tables = skipping(fine, quantizer.fine.shapes), coarse
        rate = RATE * model.rules.assignment_rate
        # groups of class 0 are null, also with nearest assignment
        self.rate = rate if model.training else max(rate, LEAST_RATE)
        self.slices = [SliceStatistics() for _ in model.config.slices]
        self._choices: list[Choice] = []  # of the passes of the slice at hand

    def is_coded(self, s: int, y: Tensor) -> Tensor:
        del s
        return is_worth_coding(y, self.model.config.group)

    def quantise(self, s: int, y: Tensor, mean: Tensor, classes: Classes) -> Tensor:
        model, quantizer = self.model, self.model.quantizer
        del s
        r = (y - mean).reshape(-1, model.config.group)
        used = self._as_used(classes)
        choice = quantizer.choose(r, used, self.tables, rate=self.rate, soft=model.training)
        self._choices.append(choice)
        return mean + quantizer.value(choice, self.words).view(mean.shape)

    def learn(self, s: int, y: Tensor, mean: Tensor, classes: Classes) -> tuple[Tensor, Tensor]:
        model, quantizer = self.model, self.model.quantizer
        choice, self._choices = Choice.joined(self._choices), []
        classes = self._as_used(classes)
        e = quantizer.value(choice, self.words)
        bits = quantizer.bits(choice, classes, self.tables)
        statistics = self.slices[s]
        statistics.bits.append(bits.detach())
        statistics.symbols.append(choice.fine)
        if choice.coarse is not None:
            statistics.coarse.append(choice.coarse)
        d = model.config.group
        shape = (y.shape[0], -1, d)
        jacobian = None
        if choice.rate_slope is not None:  # in training: what bits do when residuals move
            r = (y - mean).reshape(-1, d)
            bits = bits + (choice.rate_slope * (r - r.detach())).sum(1)
        if choice.jacobian is not None and y.requires_grad and needs_moments(model.rules.gradient):
            jacobian = choice.jacobian.view(*shape[:2], d, d)
        y_hat = reconstruct(
            y.view(shape), mean.view(shape), e.view(shape), jacobian, model.rules.gradient
        )
        return y_hat.reshape(y.shape), bits.view(y.shape[0], -1).sum(1)

    def seen(self, s: int, y: Tensor, y_hat: Tensor) -> Tensor:
        del s
        return encoder_step(y, y_hat)

    def _as_used(self, classes: Classes) -> Classes:
        """Classes as coding uses them, real in training."""
        if self.model.training:
            return classes
        coarse = None if classes.coarse is None else classes.coarse.round()
        return Classes(classes.size.round(), classes.shape.round(), coarse)


def is_worth_coding(y: Tensor, group: int) -> Tensor:
    """Whether pictures or tiles code an optional slice of latents `y` `[B, positions, c]` in cells.

    Returns:
        bool `[B]`.
    """
    energy = y.view(*y.shape[:2], -1, group).square().sum(3)
    return (energy - _NULL_RADIUS).clamp_min(0).sum((1, 2)) > _WORTH * y.shape[1]


def pad_to(x: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column of `[B, C, H, W]` until both sides are multiples."""
    height, width = x.shape[-2:]
    below, right = -height % multiple, -width % multiple
    return functional.pad(x, (0, right, 0, below), mode="replicate") if below or right else x
