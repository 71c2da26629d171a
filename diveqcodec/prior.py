"""The context model of the indices, as it is trained (float).

```
(ẑ ── hyper synthesis) ─────┐                      for slice s, for pass p (see `passes`):
 earlier slices ŷ (3x3) ────┤
 this slice's earlier passes ┴─ u ─ ReLU ─ 1x1 ─ ReLU ─┐
                               └── linear part of u ──┴─ 1x1 ── means, size, shape, coarse of s
```

All latents enter and leave in *normalised* units: cells over `gain * sigma_c`, so that what is
predicted does not depend on the quality asked for; beside them enter the log magnitudes of groups
in cells. The size class gets the log of the gain as an integer-friendly offset. Every operation has
an exact fixed-point counterpart in `fixedprior`.

Knows nothing of how residuals are quantized (a callback does that), of images, or of bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from diveqcodec.layers import GainTable, fast_dtype, zeroed
from diveqcodec.passes import of_batch, passes_of, taps_of
from diveqcodec.quantize.rate_aware import Classes, clamp_classes
from diveqcodec.quantize.tables import SIGMA_RANGE, size_class

ACTIVATION_BOUND = 128.0  # every activation is clamped to this magnitude
INPUT_BOUND = 32.0  # normalised latents are clamped to this magnitude
_WIDE_LIMIT = 32  # slices up to this many channels see a 5x5 window of themselves, others 3x3


@dataclass(frozen=True, slots=True)
class PriorConfig:
    """Sizes of the context model; `slices` are groups of `group` channels each."""

    slices: tuple[int, ...]
    group: int
    coarse_slices: int  # the first so many slices have a coarse layer
    hyper_channels: int
    width: int  # of the first layer
    width2: int  # of the second
    linear: int  # units of the first layer that also go on without a ReLU
    magnitudes: bool  # a log magnitude of every group goes in beside its normalised latents
    pyramid_slices: int  # the first so many slices are coded from coarse to fine
    pyramid_levels: int  # in so many doublings
    features: int  # of the hyper synthesis
    sizes: int
    shapes: int
    quality_bins: int
    coarse_cell: float  # cell of the coarse layer, in cells
    log_gain_range: tuple[float, float]  # of the lowest and the highest quality

    @property
    def coarse_offset(self) -> float:
        """By how many size classes the coarse layer sees a smaller deviation."""
        return (self.sizes - 1) * math.log(self.coarse_cell) / math.log(SIGMA_RANGE)

    def outputs(self, s: int) -> int:
        """Outputs of slice `s`: means, then size, shape and perhaps coarse size of every group."""
        return self.slices[s] * (self.group + 2 + (s < self.coarse_slices))

    def start(self, s: int) -> int:
        """First channel of slice `s`."""
        return sum(self.slices[:s]) * self.group

    def inputs(self, s: int) -> int:
        """What is known of a position once slice `s` is coded: latents, magnitudes of groups."""
        return self.slices[s] * (self.group + self.magnitudes)

    def inputs_before(self, s: int) -> int:
        """The same of all slices before slice `s`."""
        return sum(self.inputs(i) for i in range(s))

    def radius(self, s: int) -> int:
        """Radius of the window in which slice `s` sees itself."""
        return 2 if self.slices[s] * self.group <= _WIDE_LIMIT else 1

    def taps(self, s: int) -> list[int]:
        """How many neighbours of its own slice the positions of every pass of slice `s` see."""
        return taps_of(self.levels(s), self.radius(s))

    def context_name(self, s: int, number: int) -> str:
        """Name of the exact layer that pass `number` > 0 of slice `s` sees its own slice with."""
        return f"{s}.current.{number}" if self.levels(s) else f"{s}.current"

    def levels(self, s: int) -> int:
        """Doublings from coarse to fine in slice `s`; 0 is a checkerboard."""
        return self.pyramid_levels if s < self.pyramid_slices else 0


# (slice, channels of the slice, y rows [M, c], means [M, c] in cells, classes) -> ŷ rows [M, c]
Quantise = Callable[[int, Tensor, Tensor, Classes], Tensor]


class HyperSynthesis(nn.Module):
    """ẑ `[B, Cz, h/4, w/4]` to features `[B, F, h, w]`: two upsamplings by two."""

    def __init__(self, hyper_channels: int, features: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(hyper_channels, features, 3, padding=1)
        self.second = nn.Conv2d(features, 4 * features, 3, padding=1)
        self.third = nn.Conv2d(features, 4 * features, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """Map ẑ to features at four times its resolution."""
        hidden = bounded_relu(self.first(z))
        hidden = functional.pixel_shuffle(bounded_relu(self.second(hidden)), 2)
        result: Tensor = functional.pixel_shuffle(bounded_relu(self.third(hidden)), 2)
        return result


class SliceNet(nn.Module):
    """The network of one slice."""

    def __init__(self, config: PriorConfig, s: int) -> None:
        super().__init__()
        self.hyper = nn.Conv2d(config.features, config.width, 1) if config.hyper_channels else None
        before = config.inputs_before(s)
        self.earlier = nn.Conv2d(before, config.width, 3, padding=1, bias=False) if before else None
        self.current: nn.ModuleList | nn.Conv2d
        if config.levels(s):
            inputs = (taps * config.inputs(s) for taps in config.taps(s)[1:])
            self.current = nn.ModuleList(nn.Linear(n, config.width) for n in inputs)
        else:  # a window of which every other tap is used
            size = 2 * config.radius(s) + 1
            self.current = nn.Conv2d(config.inputs(s), config.width, size, bias=False)
            self.second_pass = nn.Parameter(torch.zeros(config.width))
        self.quality = GainTable(config.width)
        self.hidden = nn.Linear(config.width, config.width2)
        self.out = zeroed(nn.Linear(config.width2 + config.linear, config.outputs(s)))
        self.linear = config.linear
        self.is_large = s < config.coarse_slices

    def base(self, features: Tensor | None, earlier: Tensor, u: Tensor) -> Tensor:
        """What all passes share, `[B, width, h, w]`; h and w are those of `earlier`."""
        result: Tensor = self.quality(u)[:, :, None, None].expand(-1, -1, *earlier.shape[2:])
        with self._fast(earlier):
            if self.hyper is not None:
                result = result + self.hyper(features)
            if self.earlier is not None:
                result = result + self.earlier(earlier).float()
        return result

    def context(self, number: int, seen: Tensor, neighbours: Tensor) -> Tensor:
        """What the slice itself tells pass `number` > 0: rows `[M, width]`.

        `seen` `[N + 1, inputs]` is what is known of every position, the last row zeros for one
        outside, and `neighbours` `[M, T]` numbers its rows.
        """
        weight, bias = self.context_layer(number)
        window = functional.embedding(neighbours, seen).flatten(1)
        with self._fast(seen):
            return functional.linear(window, weight).float() + bias

    def context_layer(self, number: int) -> tuple[Tensor, Tensor]:
        """Weight `[width, T * inputs]`, inputs ordered by tap, and bias of pass `number` > 0."""
        if isinstance(self.current, nn.ModuleList):
            layer = self.current[number - 1]
            assert isinstance(layer, nn.Linear)
            return layer.weight, layer.bias
        odd = self.current.weight.flatten(2)[:, :, 1::2]  # [width, inputs, T]
        return odd.transpose(1, 2).flatten(1), self.second_pass

    def _fast(self, x: Tensor) -> AbstractContextManager[None]:
        """Convolutions of training in bfloat16 where that is faster; validation as exported.

        Not where latents are large: a mean of 100 cells would be off by a quarter of one.
        """
        is_fast = self.training and not self.is_large
        is_fast = is_fast and fast_dtype(x.device) == torch.bfloat16
        return torch.autocast(x.device.type, torch.bfloat16, enabled=is_fast)

    def head(self, pre: Tensor) -> Tensor:
        """Rows `[M, width]` of pre-activations to rows of outputs."""
        pre = pre.clamp(-ACTIVATION_BOUND, ACTIVATION_BOUND)
        hidden = bounded_relu(self.hidden(pre.relu()))
        out: Tensor = self.out(torch.cat([hidden, pre[:, : self.linear]], dim=1))
        return out


class Prior(nn.Module):
    """Context model of all slices, walked in coding order."""

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        self.synthesis: HyperSynthesis | None = None
        if config.hyper_channels:
            self.synthesis = HyperSynthesis(config.hyper_channels, config.features)
        self.nets = nn.ModuleList(SliceNet(config, s) for s in range(len(config.slices)))

    def walk(
        self, y: Tensor, z_hat: Tensor | None, sigma: Tensor, log_gain: Tensor, quantise: Quantise
    ) -> Tensor:
        """Predict, quantize and feed back slice by slice, pass by pass.

        Args:
            y: latent in cells, `[B, C, h, w]`.
            z_hat: quantized hyper latent `[B, Cz, h/4, w/4]`, if the model has one.
            sigma: natural standard deviation of every channel, `[C]`.
            log_gain: natural log of the gain, `[B]`.
            quantise: called once a slice and pass with rows of positions.

        Returns:
            ŷ in cells, `[B, C, h, w]`.
        """
        batch, _, height, width = y.shape
        config = self.config
        features = None if self.synthesis is None else self.synthesis(z_hat)
        low, high = config.log_gain_range
        u = (log_gain - low) / (high - low)
        scale = torch.exp(log_gain)[:, None] * sigma  # [B, C]: cells in a normalised unit
        rows_y = y.permute(0, 2, 3, 1).reshape(-1, y.shape[1])  # [N, C]
        image = torch.arange(batch, device=y.device).repeat_interleave(height * width)
        done: list[Tensor] = []  # what is known of slices, as grids
        values: list[Tensor] = []  # the same in cells, as rows
        for s, net in enumerate(self.nets):
            assert isinstance(net, SliceNet)
            start, channels = config.start(s), config.slices[s] * config.group
            part = slice(start, start + channels)
            unit = scale[:, part][image]  # [N, c]
            earlier = torch.cat(done, dim=1) if done else y[:, :0]
            base = as_rows(net.base(features, earlier, u))
            offset = self.class_offset(scale[:, part])[image]

            known = torch.zeros_like(unit)
            seen = unit.new_zeros(len(unit) + 1, config.inputs(s))
            geometry = passes_of(height, width, config.levels(s), config.radius(s), y.device)
            for number, one in enumerate(of_batch(p, batch, height * width) for p in geometry):
                places = one.places
                if not len(places):
                    continue
                pre = base[places]
                if number:
                    pre = pre + net.context(number, seen, one.neighbours)
                mean, classes = self._split(s, net.head(pre), offset[places])
                units = unit[places]
                coded = quantise(s, rows_y[places, part], mean * units, classes)
                known = known.index_copy(0, places, coded)
                seen = seen.index_copy(0, places, self._seen(coded, units))
            values.append(known)
            done.append(as_grid(seen[:-1], batch, height, width))
        return as_grid(torch.cat(values, dim=1), batch, height, width)

    def _seen(self, rows: Tensor, unit: Tensor) -> Tensor:
        """What the networks see of latents `rows` `[N, c]` in cells of a slice, `[N, inputs]`."""
        normal = (rows / unit).clamp(-INPUT_BOUND, INPUT_BOUND)
        if not self.config.magnitudes:
            return normal
        return torch.cat([normal, log_magnitude(rows, self.config.group)], dim=1)

    def _split(self, s: int, out: Tensor, offset: Tensor) -> tuple[Tensor, Classes]:
        """Outputs `[M, ...]` of slice `s`: normalised means `[M, c]`, flat classes `[M * G]`."""
        groups, d = self.config.slices[s], self.config.group
        out = out.clamp(-ACTIVATION_BOUND, ACTIVATION_BOUND)
        mean = out[:, : groups * d]
        rest = out[:, groups * d :].view(out.shape[0], -1, groups)
        size = clamp_classes(rest[:, 0] + offset, self.config.sizes)
        coarse = None
        if s < self.config.coarse_slices:
            coarse = clamp_classes(
                rest[:, 2] + offset - self.config.coarse_offset, self.config.sizes
            )
            coarse = coarse.flatten()
        return mean, Classes(size.flatten(), rest[:, 1].flatten(), coarse)

    def class_offset(self, scale: Tensor) -> Tensor:
        """Size class of a group whose prediction is worth nothing: `scale` `[B, c]` to `[B, G]`."""
        d = self.config.group
        log = torch.log(scale).view(scale.shape[0], -1, d).mean(2)
        return size_class(torch.exp(log), self.config.sizes).clamp(0, self.config.sizes - 1)


def log_magnitude(rows: Tensor, group: int) -> Tensor:
    """Log magnitude of groups: latents `[N, G * group]` in cells to `[N, G]`.

    The logarithm to base 2 of one plus the sum of magnitudes, linear between powers of two: what
    the exponent and the mantissa of a number are, so that integers give the same everywhere. It is
    what classes are predicted from: a size class is a logarithm too.
    """
    total = 1 + rows.abs().view(rows.shape[0], -1, group).sum(2)
    mantissa, exponent = torch.frexp(total)  # total = mantissa * 2^exponent, mantissa in [1/2, 1)
    return exponent + (2 * mantissa - 2)


def bounded_relu(x: Tensor) -> Tensor:
    """ReLU that also stops at the bound which the fixed-point form needs."""
    return x.clamp(0, ACTIVATION_BOUND)


def as_rows(grid: Tensor) -> Tensor:
    """`[B, C, h, w]` to rows of positions `[B * h * w, C]`."""
    return grid.permute(0, 2, 3, 1).reshape(-1, grid.shape[1])


def as_grid(rows: Tensor, batch: int, height: int, width: int) -> Tensor:
    """The inverse of `as_rows`."""
    return rows.view(batch, height, width, -1).permute(0, 3, 1, 2)


def log_gain_of(lam: float, rate: float) -> float:
    """Natural log of the gain at which a unit cell is optimal for the trade-off `lam`.

    `g^2 = lam * 255^2 * rate / 12` for inputs in [-1, 1] and orthonormal rows.
    """
    return 0.5 * math.log(lam * 255.0**2 * rate / 12.0)


def lambda_of(log_gain: float, rate: float) -> float:
    """The inverse of `log_gain_of`: the trade-off at which a unit cell is optimal for a gain."""
    return math.exp(2.0 * log_gain) * 12.0 / (255.0**2 * rate)
