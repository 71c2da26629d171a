"""The codec's model, assembled for training: transforms, quantizer, prior.

```
x [B,3,H,W] ─ analysis ─ y [B,C,h,w] ─ × gain ─┬─ r = y - μ ─ product VQ ─ ŷ = μ + e
              lapped, stride 16                │                 │ indices ↕ entropy coder
                                               │               mean μ, class t
                                               │                 │
                                               │    prior: slice by slice, pass by pass ◄─ earlier ŷ
x̂ ◄─ synthesis ◄─ ŷ / gain
```

Knows nothing of files. What a decoder needs bit for bit is made of this by
`diveqcodec.exact.integers`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from diveqcodec.model.codebook import Codebook
from diveqcodec.model.config import ModelConfig
from diveqcodec.model.layers import zeroed
from diveqcodec.model.prior import Prior
from diveqcodec.model.quantizer import RateAwareQuantizer
from diveqcodec.model.recorder import Recorder, SliceStatistics, StraightRecorder, TrainingRules
from diveqcodec.model.transform import SIDE, Analysis, Conditions, Correction, Synthesis
from diveqcodec.quality import log_gain_of

STRIDE = SIDE  # pixels of a position

# What a parameter belongs to; learning rates and precision go by it.
ParameterKind = Literal[
    "analysis", "predistortion", "linear", "networks", "prior", "codebook", "table"
]


@dataclass(slots=True)
class Output:
    """Result of `DvqModel.forward`: `bits` `[B]` are sums over each picture, latents are in cells.

    Where networks before the analysis are trained, `latent` is what was coded, cut off from them:
    its gradient says where it should go (see `train.encoder`). `analysed` is the same latent with a
    gradient to the networks, `plain` what it would be without them.
    """

    x_hat: Tensor
    y_hat: Tensor
    bits: Tensor
    slices: list[SliceStatistics]
    latent: Tensor
    analysed: Tensor
    plain: Tensor


class Transforms(nn.Module):
    """Pixels <-> latent. All that coding needs of the float side."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = c = config
        self.analysis = Analysis(c.channels)
        widths, blocks = (c.width4, c.width8, c.width16), (c.blocks4, c.blocks8, c.blocks16)
        self.synthesis = Synthesis(c.channels, widths, blocks)
        self.predistortion: Correction | None = None
        if c.predistortion:
            self.predistortion = Correction(c.channels, widths, blocks)
        self.register_buffer("sigma", torch.ones(c.channels))
        self.sigma: Tensor

    @property
    def reach(self) -> int:
        """Pixels to one side that analysis or synthesis of a block depends on."""
        before = 0 if self.predistortion is None else self.predistortion.reach
        # the latent that networks before the analysis see has a reach of its own
        analysis = self.analysis.reach + (before and before + self.analysis.reach)
        return max(analysis, self.synthesis.reach)

    def encode_latent(self, x: Tensor, log_gain: Tensor, has_mirror: bool = False) -> Tensor:
        """Pixels `[B, 3, H, W]` in [0, 1] to the latent in cells `[B, C, H/16, W/16]`."""
        return self.analyse(x, log_gain, has_mirror)[1]

    def analyse(
        self, x: Tensor, log_gain: Tensor, has_mirror: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The latent in cells as the linear analysis gives it, and after networks before that.

        Networks, here and in `decode_latent`, are averaged over the picture and its mirror image if
        `has_mirror`.
        """
        x = x * 2 - 1
        natural = self.analysis(x)
        gain = torch.exp(log_gain)[:, None, None, None]
        plain: Tensor = natural * gain
        if self.predistortion is None:
            return plain, plain
        added = self.predistortion.correction(x, self._conditions(natural, log_gain, has_mirror))
        return plain, self.analysis(x + added) * gain

    def decode_latent(self, y_hat: Tensor, log_gain: Tensor, has_mirror: bool = False) -> Tensor:
        """Latent in cells to pixels in about [0, 1], not clamped."""
        natural = y_hat * torch.exp(-log_gain)[:, None, None, None]
        result: Tensor = self.synthesis(natural, self._conditions(natural, log_gain, has_mirror))
        return (result + 1) / 2

    def _conditions(self, natural: Tensor, log_gain: Tensor, has_mirror: bool) -> Conditions:
        """What networks are told of the pixels whose latent in natural units is `natural`."""
        # The latent enters in units between those of its channel and a cell.
        unit = (self.sigma * torch.exp(-log_gain)[:, None]).sqrt()[:, :, None, None]
        scale = self.config.scale
        # Errors of pixels fall about as the gain to the power of 2/3, so what the networks add does
        # too: from -q 5 to 95 the gain rises by 30.9 dB, this falls by 20.6 dB, and the PSNR on
        # Kodak rises by 19.8 dB.
        size = torch.exp((scale.low - log_gain) * (2 / 3))
        mirror = self.synthesis.basis.mirror() if has_mirror else None
        return Conditions(natural / unit, scale.position(log_gain), size, mirror)

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
        layer = functools.partial(Codebook, dim=c.group, sizes=c.sizes, steps=c.sf_steps)
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
        if room == "predistortion":
            return "predistortion"
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

    @torch.no_grad()
    def start_predistortion(self, trained: Correction) -> None:
        """Start networks before the analysis as those behind the latent, but adding nothing."""
        assert self.predistortion is not None
        mine, theirs = self.predistortion.state_dict(), trained.state_dict()
        tail = {name for name in mine if name.startswith("tail.")}
        self.predistortion.load_state_dict(
            {name: value if name in tail else theirs[name] for name, value in mine.items()}
        )
        zeroed(self.predistortion.tail)

    def log_gain(self, lam: Tensor) -> Tensor:
        """Natural log of the gain of trade-offs `lam` `[B]`."""
        return 0.5 * torch.log(lam) + log_gain_of(1.0)

    def refresh(self) -> None:
        """Rebuild the neighbour lists of all codebooks after they have moved."""
        for layer in self.layers().values():
            layer.refresh()

    def layers(self) -> dict[str, Codebook]:
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
        mirror = self.rules.mirror
        plain, analysed = self.analyse(x, log_gain, mirror)
        y, settings = analysed, (self.quantizer, self.config, self.rules, self.training)
        is_straight = self.predistortion is not None and self.training
        if is_straight:
            y = analysed.detach().requires_grad_()
        with torch.autocast(x.device.type, enabled=False):
            recorder = (
                StraightRecorder(*settings) if is_straight else Recorder(*settings, y.requires_grad)
            )
            y_hat, bits = self.prior.walk(y, self.sigma, self.binned_log_gain(log_gain), recorder)
        whole = len(x) if whole is None else whole
        parts = []
        if whole:
            parts.append(self.decode_latent(y_hat[:whole], log_gain[:whole], mirror))
        if whole < len(x):
            parts.append(self.decode_linear(y_hat[whole:], log_gain[whole:]))
        return Output(torch.cat(parts), y_hat, bits, recorder.slices, y, analysed, plain)

    def binned_log_gain(self, log_gain: Tensor) -> Tensor:
        """Log gain at the centre of its quality bin: all that the prior knows of the quality."""
        scale = self.config.scale
        position = scale.position(log_gain)
        number = (position * scale.bins).floor().clamp(0, scale.bins - 1)
        return scale.centre(number)


def pad_to(x: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column of `[B, C, H, W]` until both sides are multiples."""
    height, width = x.shape[-2:]
    below, right = -height % multiple, -width % multiple
    return functional.pad(x, (0, right, 0, below), mode="replicate") if below or right else x
