"""The codec's model, assembled for training: analysis, quantizer, prior, synthesis.

```
x [B,3,H,W] ─ analysis ─ y [B,C,h,w] ─ × gain ─┬─ r = y - μ ─ product VQ ─ ŷ = μ + e
                         stride 16             │                 │ indices ↕ entropy coder
                                               │               mean μ, class t
                                               │                 │
                                               │    prior: slice by slice, pass by pass ◄─ earlier ŷ
                                               └─ (hyper analysis ─ z ─ VQ ─ ẑ ─ features)
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

from diveqcodec.blocktransform import BlockAnalysis, BlockSynthesis
from diveqcodec.errors import ConfigError
from diveqcodec.layers import GainTable, HyperAnalysis, bias_of
from diveqcodec.prior import Prior, PriorConfig, as_rows, log_gain_of
from diveqcodec.quantize.rate_aware import (
    Classes,
    Gradient,
    RateAwareQuantizer,
    clamp_classes,
    reconstruct,
)
from diveqcodec.quantize.search import LEAST_RATE, RATE, skipping
from diveqcodec.quantize.tables import Kind, Layer, size_class
from diveqcodec.transform import Analysis, Synthesis

STRIDE = 16  # pixels of a position
HYPER_STRIDE = 4  # positions of a hyper position
GAIN_STEPS = 65535  # the gain index is 0 ... GAIN_STEPS
HYPER_SIGMA = 1.5  # standard deviation, in cells, with which the hyper latent starts
HYPER_RATE = 0.1 * RATE  # of the hyper latent's assignment: almost by nearest codeword


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Everything that decides the shape of a model; stored inside its weights."""

    quantizer: Kind = "diveq"  # "diveq" or "sf-diveq"
    channels: int = 320  # of the latent
    group: int = 2  # channels quantized together, 2 or 4
    slices: tuple[int, ...] = (2, 6, 8, 16, 32, 96)  # groups of every slice
    codebook: int = 256  # codewords of the fine layer (SF-DiVeQ: points of its curve)
    sf_steps: int = 4  # SF-DiVeQ: points a segment
    coarse_slices: int = 3  # slices with a coarse layer
    coarse_codebook: int = 1024
    coarse_cell: float = 8.0  # cells of the fine layer
    transform: Literal["lapped", "block"] = "lapped"  # "block" is that of the first weights
    width4: int = 64  # of the analysis at stride 4 (lapped); of the synthesis: filter_width
    width8: int = 128  # of the networks at stride 8
    width16: int = 192  # and at stride 16
    blocks: int = 1  # residual blocks at each
    filter_width: int = 96  # of the filter of decoded pixels, at stride 4 (block: at stride 2)
    filter_blocks: int = 2
    hyper_channels: int = 0  # 0: no hyper latent (with all that is known of neighbours it fades)
    hyper_width: int = 128
    hyper_codebook: int = 256
    features: int = 96  # of the hyper synthesis
    prior_width: int = 256
    prior_width2: int = 192
    prior_linear: int = 96
    magnitudes: bool = True  # the prior sees log magnitudes of coded groups beside their values
    sizes: int = 40  # size classes
    shapes: int = 5  # shape classes
    pyramid_slices: int = 2  # the first slices, coded from coarse to fine
    pyramid_levels: int = 3  # in so many doublings
    quality_bins: int = 64  # resolution of the quality in the prior
    lambda_min: float = 0.0006  # trade-off of the lowest quality: bpp + lambda * 255^2 * MSE
    lambda_max: float = 0.25

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together."""
        if sum(self.slices) * self.group != self.channels:
            raise ConfigError(
                f"model.slices: {list(self.slices)} groups of {self.group} channels make "
                f"{sum(self.slices) * self.group}, not model.channels = {self.channels}"
            )
        if self.hyper_channels % self.group:
            raise ConfigError("model.hyper_channels: must be a multiple of model.group")
        if self.group not in (2, 4):
            raise ConfigError(f"model.group: {self.group} is neither 2 nor 4")
        if not 0 < self.lambda_min < self.lambda_max:
            raise ConfigError("model.lambda_min: must be positive and below model.lambda_max")
        if self.pyramid_slices and self.pyramid_levels < 1:
            raise ConfigError(
                f"model.pyramid_levels: {self.pyramid_levels} is not positive; "
                "for no pyramid set model.pyramid_slices = 0"
            )
        if self.prior_linear > self.prior_width:
            raise ConfigError("model.prior_linear: must be at most model.prior_width")
        if self.shapes % 2 == 0 or self.shapes < 1:
            raise ConfigError(f"model.shapes: {self.shapes} is not an odd number")

    def prior(self) -> PriorConfig:
        """The part of it that the prior is made of."""
        return PriorConfig(
            slices=self.slices,
            group=self.group,
            coarse_slices=self.coarse_slices,
            hyper_channels=self.hyper_channels,
            width=self.prior_width,
            width2=self.prior_width2,
            linear=self.prior_linear,
            magnitudes=self.magnitudes,
            pyramid_slices=self.pyramid_slices,
            pyramid_levels=self.pyramid_levels,
            features=self.features,
            sizes=self.sizes,
            shapes=self.shapes,
            quality_bins=self.quality_bins,
            coarse_cell=self.coarse_cell,
            log_gain_range=self.log_gain_range(),
        )

    def log_gain_range(self) -> tuple[float, float]:
        """Natural log of the gains of the lowest and the highest quality."""
        return log_gain_of(self.lambda_min, RATE), log_gain_of(self.lambda_max, RATE)


@dataclass(frozen=True, slots=True)
class TrainingRules:
    """How the quantizer is trained; not part of the model."""

    gradient: Gradient = "soft"
    assignment_rate: float = 1.0  # 1: rate-aware, 0: nearest codeword


@dataclass(slots=True)
class SliceStatistics:
    """What one slice did in one forward pass, for the log."""

    bits: list[Tensor] = field(default_factory=list)
    symbols: list[Tensor] = field(default_factory=list)  # of the fine layer
    coarse: list[Tensor] = field(default_factory=list)  # empty in slices without a coarse layer


@dataclass(slots=True)
class Output:
    """Result of `DvqModel.forward`: bits are `[B]`, sums over each picture."""

    x_hat: Tensor
    latent_bits: Tensor
    hyper_bits: Tensor
    slices: list[SliceStatistics]
    hyper: SliceStatistics | None


class Transforms(nn.Module):
    """The float networks: pixels <-> latent -> hyper latent. All that coding needs of them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = c = config
        self.is_linear = False  # true: the networks beside the linear transform rest
        self.analysis: Analysis | BlockAnalysis
        self.synthesis: Synthesis | BlockSynthesis
        deep, fine = (c.width8, c.width16, c.blocks), (c.filter_width, c.filter_blocks)
        if c.transform == "block":
            self.analysis = BlockAnalysis(c.channels, *deep)
            self.synthesis = BlockSynthesis(c.channels, *deep, *fine)
        else:
            self.analysis = Analysis(c.channels, c.width4, *deep)
            self.synthesis = Synthesis(c.channels, *deep, *fine)
        self.hyper_analysis: HyperAnalysis | None = None
        if c.hyper_channels:
            self.hyper_analysis = HyperAnalysis(c.channels, c.hyper_width, c.hyper_channels)
        self.register_buffer("sigma", torch.ones(c.channels))
        self.sigma: Tensor

    @property
    def reach(self) -> int:
        """Pixels to one side that analysis or synthesis of a block depends on."""
        c = self.config
        pair = self.analysis.reach(c.blocks), self.synthesis.reach(c.blocks, c.filter_blocks)
        return max(pair)

    def _scale(self, log_gain: Tensor) -> Tensor:
        """How large corrections of the latent are: `[B, C, 1, 1]`, or `[C, 1, 1]` at all qualities.

        The geometric mean of a channel's deviation and of a cell, so that what a network adds while
        it has not learned yet costs no quality more than another.
        """
        if self.config.transform == "block":
            return self.sigma.sqrt()[:, None, None]
        return (self.sigma * torch.exp(-log_gain)[:, None]).sqrt()[:, :, None, None]

    def position(self, log_gain: Tensor) -> Tensor:
        """Quality position in [0, 1] of log gains."""
        low, high = self.config.log_gain_range()
        return (log_gain - low) / (high - low)

    def encode_latent(self, x: Tensor, log_gain: Tensor) -> Tensor:
        """Pixels `[B, 3, H, W]` in [0, 1] to the latent in cells `[B, C, H/16, W/16]`."""
        if self.is_linear:
            y = self.analysis.linear(x * 2 - 1)
        else:
            y = self.analysis(x * 2 - 1, self.position(log_gain), self._scale(log_gain))
        result: Tensor = y * torch.exp(log_gain)[:, None, None, None]
        return result

    def decode_latent(self, y_hat: Tensor, log_gain: Tensor) -> Tensor:
        """Latent in cells to pixels in about [0, 1], not clamped."""
        natural = y_hat * torch.exp(-log_gain)[:, None, None, None]
        if self.is_linear:
            x = self.synthesis.linear(natural)
        else:
            x = self.synthesis(natural, self.position(log_gain), self._scale(log_gain))
        result: Tensor = (x + 1) / 2
        return result


class DvqModel(Transforms):
    """The trainable codec."""

    def __init__(self, config: ModelConfig, rules: TrainingRules | None = None) -> None:
        super().__init__(config)
        self.rules = rules or TrainingRules()
        c = config
        self.prior = Prior(c.prior())
        layer = functools.partial(Layer, dim=c.group, sizes=c.sizes, steps=c.sf_steps)
        fine = layer(size=c.codebook, cell=1.0, shapes=c.shapes, kind=c.quantizer)
        coarse = None
        if c.coarse_slices:
            coarse = layer(size=c.coarse_codebook, cell=c.coarse_cell, shapes=1)
        self.quantizer = RateAwareQuantizer(fine, coarse)
        self.hyper_quantizer: RateAwareQuantizer | None = None
        if c.hyper_channels:
            hyper = layer(size=c.hyper_codebook, cell=1.0, shapes=1, kind=c.quantizer)
            self.hyper_quantizer = RateAwareQuantizer(hyper, None)
            self.hyper_class = GainTable(c.hyper_channels // c.group)
            start = float(size_class(torch.tensor(HYPER_SIGMA), c.sizes))
            nn.init.constant_(self.hyper_class.weight, start)

    def set_transform(self, rows: Tensor, mean: Tensor, sigma: Tensor) -> None:
        """Start from a linear transform: orthonormal `rows` `[C, 3, 16, 16]`, pixel `mean` `[3]`.

        `sigma` `[C]` is the standard deviation of each of its outputs.
        """
        with torch.no_grad():
            self.analysis.klt.weight.copy_(rows)
            shift = (rows * mean[:, None, None]).sum((1, 2, 3))
            bias_of(self.analysis.klt).copy_(-shift)
            self.synthesis.klt.weight.copy_(rows)
            bias_of(self.synthesis.klt).copy_(mean)
            self.sigma.copy_(sigma)

    def log_gain(self, lam: Tensor) -> Tensor:
        """Natural log of the gain of trade-offs `lam` `[B]`."""
        return 0.5 * torch.log(lam) + log_gain_of(1.0, RATE)

    def refresh(self) -> None:
        """Rebuild the neighbour lists of all codebooks after they have moved."""
        for layer in self.layers().values():
            layer.refresh()

    def layers(self) -> dict[str, Layer]:
        """The codebooks by name: "fine", and "coarse" and "hyper" where the model has them."""
        layers = {"fine": self.quantizer.fine}
        if self.quantizer.coarse is not None:
            layers["coarse"] = self.quantizer.coarse
        if self.hyper_quantizer is not None:
            layers["hyper"] = self.hyper_quantizer.fine
        return layers

    def forward(self, x: Tensor, lam: Tensor) -> Output:
        """Code `x` `[B, 3, H, W]` in [0, 1], sides multiples of 64, at trade-offs `lam` `[B]`."""
        log_gain = self.log_gain(lam)
        u = self.position(log_gain)
        y = self.encode_latent(x, log_gain)
        z = None if self.hyper_analysis is None else self.hyper_analysis(y, u)
        with torch.autocast(x.device.type, enabled=False):
            binned = self.binned_log_gain(log_gain)
            z_hat, hyper_bits, hyper = None, y.new_zeros(x.shape[0]), None
            if z is not None:
                z_hat, hyper_bits, hyper = self._quantise_hyper(z, self.position(binned))
            recorder = _Recorder(self, x.shape[0])
            y_hat = self.prior.walk(y, z_hat, self.sigma, binned, recorder.quantise)
        x_hat = self.decode_latent(y_hat, log_gain)
        bits = recorder.bits_of_pictures()
        return Output(x_hat, bits, hyper_bits, recorder.slices, hyper)

    def binned_log_gain(self, log_gain: Tensor) -> Tensor:
        """Log gain at the centre of its quality bin: all that the prior knows of the quality."""
        low, high = self.config.log_gain_range()
        bins = self.config.quality_bins
        number = (self.position(log_gain) * bins).floor().clamp(0, bins - 1)
        return low + (high - low) * (number + 0.5) / bins

    def hyper_classes(self, u: Tensor) -> Tensor:
        """Real size classes `[B, groups]` of the hyper latent at quality positions `[B]`."""
        return clamp_classes(self.hyper_class(u), self.config.sizes)

    def _quantise_hyper(self, z: Tensor, u: Tensor) -> tuple[Tensor, Tensor, SliceStatistics]:
        """Almost nearest-codeword: a rate-aware hyper latent fades."""
        batch, channels, height, width = z.shape
        d = self.config.group
        flat = as_rows(z).reshape(-1, d)  # [B * hz * wz * G, d]
        per_group = self.hyper_classes(u)
        size = per_group[:, None].expand(-1, height * width, -1).reshape(-1)
        quantizer = self.hyper_quantizer
        assert quantizer is not None
        classes = Classes(size, torch.zeros_like(size), None)
        if not self.training:
            classes = _rounded(classes)
        tables = _tables(quantizer, self.training)
        choice = quantizer.choose(flat, classes, tables, rate=HYPER_RATE)
        e = quantizer.value(choice, quantizer.words())
        assert choice.jacobian is not None
        assert choice.rate_slope is not None
        moved = flat - flat.detach()
        z_hat = e + torch.einsum("nij,nj->ni", choice.jacobian, moved)
        bits = quantizer.bits(choice, classes, tables)
        bits = bits + (choice.rate_slope * moved).sum(1)
        statistics = SliceStatistics([bits.detach()], [choice.fine])
        grid = z_hat.view(batch, height, width, channels).permute(0, 3, 1, 2)
        return grid, bits.view(batch, -1).sum(1), statistics


class _Recorder:
    """Quantizes rows of positions for `Prior.walk` and keeps their bits."""

    def __init__(self, model: DvqModel, batch: int) -> None:
        self.model, self.batch = model, batch
        self.tables, self.words = _tables(model.quantizer, model.training), model.quantizer.words()
        self.slices = [SliceStatistics() for _ in model.config.slices]
        self._bits: Tensor | None = None

    def quantise(self, s: int, y: Tensor, mean: Tensor, classes: Classes) -> Tensor:
        model, quantizer = self.model, self.model.quantizer
        d = model.config.group
        rules = model.rules
        r = (y - mean).reshape(-1, d)
        if not model.training:
            classes = _rounded(classes)
        rate = RATE * rules.assignment_rate
        if not model.training:  # groups of class 0 are null, also with nearest assignment
            rate = max(rate, LEAST_RATE)
        choice = quantizer.choose(r, classes, self.tables, rate=rate)
        assert choice.jacobian is not None
        assert choice.rate_slope is not None
        e = quantizer.value(choice, self.words)
        bits = quantizer.bits(choice, classes, self.tables)
        bits = bits + (choice.rate_slope * (r - r.detach())).sum(1)
        self.slices[s].bits.append(bits.detach())
        self.slices[s].symbols.append(choice.fine)
        if choice.coarse is not None:
            self.slices[s].coarse.append(choice.coarse)
        per_picture = bits.view(self.batch, -1).sum(1)  # positions are ordered by picture
        self._bits = per_picture if self._bits is None else self._bits + per_picture
        shape = (y.shape[0], -1, d)
        y_hat = reconstruct(
            y.view(shape),
            mean.view(shape),
            e.view(shape),
            choice.jacobian.view(*shape[:2], d, d),
            rules.gradient,
        )
        return y_hat.reshape(y.shape)

    def bits_of_pictures(self) -> Tensor:
        assert self._bits is not None
        return self._bits


Tables = tuple[Tensor, Tensor | None]


def _tables(quantizer: RateAwareQuantizer, training: bool) -> Tables:
    """Bits of the symbols: differentiable in training, as coding sees them otherwise."""
    fine, coarse = quantizer.tables()
    if training:
        return fine, coarse
    return skipping(fine, quantizer.fine.shapes), None if coarse is None else skipping(coarse, 1)


def _rounded(classes: Classes) -> Classes:
    """Classes as coding uses them."""
    coarse = None if classes.coarse is None else classes.coarse.round()
    return Classes(classes.size.round(), classes.shape.round(), coarse)


def pad_to(x: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column of `[B, C, H, W]` until both sides are multiples."""
    height, width = x.shape[-2:]
    below, right = -height % multiple, -width % multiple
    return functional.pad(x, (0, right, 0, below), mode="replicate") if below or right else x
