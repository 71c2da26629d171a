"""The context model of the indices, as it is trained (float).

```
 earlier slices ŷ (window) ─┐                       for slice s, for pass p (see `passes`):
 this slice's earlier passes ┴─ u ─ ReLU ─ 1x1 ─ ReLU ─┐
                               └── linear part of u ──┴─ 1x1 ── means, size, shape, coarse of s
```

All latents enter and leave in *normalised* units: cells over `gain * sigma_c`, so that what is
predicted does not depend on the quality asked for; beside them enter the log magnitudes of groups
in cells. The size class gets the log of the gain as an integer-friendly offset. Every operation has
an exact fixed-point counterpart in `diveqcodec.exact.prior`.

Coding is sequential, learning is not: `Prior.walk` finds what is coded pass by pass, without
gradients, and then looks at all positions of a slice once more, together, with what they had seen.

Knows nothing of how residuals are quantized (a `Coder` does that), of images, or of bytes.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from diveqcodec.model.codebook import size_class
from diveqcodec.model.config import ModelConfig
from diveqcodec.model.layers import GainTable, fast_dtype, returning_clamp, zeroed
from diveqcodec.model.passes import Pass, order_of_batch, taps_of
from diveqcodec.model.priorlayers import ACTIVATION_BOUND, INPUT_BOUND
from diveqcodec.model.quantizer import Classes, clamp_classes


class Coder(Protocol):
    """What `Prior.walk` asks of a quantizer. Rows are positions, `c` the channels of slice `s`."""

    def quantise(self, s: int, y: Tensor, mean: Tensor, classes: Classes) -> Tensor:
        """Code rows `y` `[M, c]` in cells: ŷ. Called once a pass, without gradients."""

    def learn(self, s: int, y: Tensor, mean: Tensor, classes: Classes) -> tuple[Tensor, Tensor]:
        """ŷ `[N, c]` and bits `[N]` with gradients: once a slice, rows in the order of coding."""

    def seen(self, s: int, y: Tensor, y_hat: Tensor) -> tuple[Tensor, Tensor]:
        """ŷ as contexts see it, and with the magnitudes they see: perhaps with gradients to `y`."""

    def is_coded(self, s: int, y: Tensor) -> Tensor:
        """Which pictures code an optional slice: `y` `[B, h * w, c]` to bool `[B]`."""


class SliceNet(nn.Module):
    """The network of one slice."""

    def __init__(self, config: ModelConfig, s: int) -> None:
        super().__init__()
        before = config.inputs_before(s)
        self.earlier: nn.Conv2d | None = None
        if before:
            side = config.window(s)
            self.earlier = nn.Conv2d(
                before, config.prior_width, side, padding=side // 2, bias=False
            )
        taps = taps_of(config.levels(s), config.radius(s))[1:]
        self.current = nn.ModuleList(
            nn.Linear(count * config.inputs(s), config.prior_width) for count in taps
        )
        self.quality = GainTable(config.prior_width)
        self.hidden = nn.Linear(config.prior_width, config.prior_width2)
        self.out = zeroed(nn.Linear(config.prior_width2 + config.prior_linear, config.outputs(s)))
        self.linear = config.prior_linear
        self.is_large = s < config.pyramid_slices

    def base(self, earlier: Tensor | None, u: Tensor, positions: int) -> Tensor:
        """What all passes share, rows `[B * positions, width]`.

        `earlier` `[B, C, h, w]` is what is known of earlier slices, `u` `[B]` quality positions.
        """
        rows: Tensor = self.quality(u).repeat_interleave(positions, 0)
        if self.earlier is None or earlier is None:
            return rows
        with self._fast(earlier):
            known: Tensor = self.earlier(earlier)
        return rows + as_rows(known).float()

    def context(self, number: int, seen: Tensor, neighbours: Tensor) -> Tensor:
        """What the slice itself tells pass `number` > 0: rows `[M, width]`.

        `seen` `[N + 1, inputs]` is what is known of every position, the last row zeros for one
        outside, and `neighbours` `[M, T]` numbers its rows.
        """
        window = functional.embedding(neighbours, seen).flatten(1)
        layer = self.current[number - 1]
        with self._fast(seen):
            told: Tensor = layer(window)
        return told.float()

    def head(self, pre: Tensor) -> Tensor:
        """Rows `[M, width]` of pre-activations to rows of outputs."""
        pre = pre.clamp(-ACTIVATION_BOUND, ACTIVATION_BOUND)
        with self._fast(pre):
            hidden = bounded_relu(self.hidden(pre.relu()))
            joined = torch.cat([hidden, pre[:, : self.linear].to(hidden.dtype)], dim=1)
            out: Tensor = self.out(joined).float()
        return out

    def matrices(self) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Weight `[outputs, inputs]` and bias of every layer of `priorlayers`, by name.

        Inputs of several positions are ordered by tap, then by channel, as the exact prior gathers
        them.
        """
        found: dict[str, tuple[Tensor, Tensor | None]] = {}
        if self.earlier is not None:
            found["earlier"] = self.earlier.weight.flatten(2).transpose(1, 2).flatten(1), None
        for number, layer in enumerate(self.current, 1):
            assert isinstance(layer, nn.Linear)
            found[f"current.{number}"] = layer.weight, layer.bias
        for name, head in (("hidden", self.hidden), ("out", self.out)):
            found[name] = head.weight, head.bias
        return found

    def _fast(self, x: Tensor) -> AbstractContextManager[None]:
        """Products of training in bfloat16 where that is faster; validation as exported.

        Not in the slices where latents are large: a mean of 100 cells would be off by a quarter of
        one. A class that is off by a tenth costs nothing.
        """
        is_fast = self.training and not self.is_large
        is_fast = is_fast and fast_dtype(x.device) == torch.bfloat16
        return torch.autocast(x.device.type, torch.bfloat16, enabled=is_fast)


class Prior(nn.Module):
    """Context model of all slices, walked in coding order."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.nets = nn.ModuleList(SliceNet(config, s) for s in range(len(config.slices)))

    def walk(
        self, y: Tensor, sigma: Tensor, log_gain: Tensor, coder: Coder
    ) -> tuple[Tensor, Tensor]:
        """Predict, quantize and feed back slice by slice, pass by pass.

        Args:
            y: latent in cells, `[B, C, h, w]`.
            sigma: natural standard deviation of every channel, `[C]`.
            log_gain: natural log of the gain, `[B]`.
            coder: quantizes, and learns from what it did.

        Returns:
            ŷ in cells, `[B, C, h, w]`, zero in optional slices that a picture leaves out, and bits
            `[B]`.
        """
        batch, _, height, width = y.shape
        positions = height * width
        config = self.config
        u = config.scale.position(log_gain)
        scale = torch.exp(log_gain)[:, None] * sigma  # [B, C]: cells in a normalised unit
        rows = as_rows(y).view(batch, positions, -1)
        done: list[Tensor] = []  # what is known of slices, rows of all pictures
        values: list[Tensor] = []  # the same in cells
        bits = y.new_zeros(batch)
        for s, net in enumerate(self.nets):
            assert isinstance(net, SliceNet)
            part = config.part(s)
            wanted = rows[:, :, part]
            chosen: Tensor | None = None  # the pictures that code this slice, if not all do
            if config.is_optional(s):
                chosen = coder.is_coded(s, wanted.detach()).nonzero()[:, 0]
                chosen = None if len(chosen) == batch else chosen
            known = torch.cat(done, dim=2) if done else None  # [B, positions, inputs]
            unit, position = scale[:, part], u
            if chosen is not None:
                wanted, unit, position = wanted[chosen], unit[chosen], u[chosen]
                known = None if known is None else known[chosen]
            size = (height, width)
            seen, coded, spent = self._slice(s, net, wanted, known, unit, position, size, coder)
            done.append(_all_of(batch, chosen, seen))
            values.append(_all_of(batch, chosen, coded))
            bits = bits + _all_of(batch, chosen, spent)
        return as_grid(torch.cat(values, dim=2).flatten(0, 1), batch, height, width), bits

    def _slice(
        self,
        s: int,
        net: SliceNet,
        y: Tensor,
        known: Tensor | None,
        scale: Tensor,
        u: Tensor,
        size: tuple[int, int],
        coder: Coder,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Code slice `s` of pictures `y` `[B, positions, c]`.

        Returns:
            what is known of it, `[B, positions, inputs]`, ŷ `[B, positions, c]` and bits `[B]`.
        """
        batch, positions, channels = y.shape
        config = self.config
        if not batch:
            return y.new_zeros(0, positions, config.inputs(s)), torch.zeros_like(y), y.new_zeros(0)
        earlier = None if known is None else as_grid(known.flatten(0, 1), batch, *size)
        base = net.base(earlier, u, positions)
        order = order_of_batch(*size, config.levels(s), config.radius(s), batch, y.device)
        y = y.flatten(0, 1)
        unit = scale.repeat_interleave(positions, 0)  # [N, c]
        offset = self.class_offset(scale).repeat_interleave(positions, 0)
        with torch.no_grad():
            seen = y.new_zeros(len(y) + 1, config.inputs(s))
            y_hat = torch.zeros_like(y)
            for number, one in enumerate(order.passes):
                places = one.places
                if not len(places):
                    continue
                pre = base[places]
                if number:
                    pre = pre + net.context(number, seen, one.neighbours)
                units = unit[places]
                mean, classes = self._split(s, net.head(pre), offset[places])
                coded = coder.quantise(s, y[places], mean * units, classes)
                y_hat[places] = coded
                seen[places] = self._seen(coded, coded, units)
        if y.requires_grad:
            seen = self._seen(*coder.seen(s, y, y_hat), unit)
            seen = torch.cat([seen, seen.new_zeros(1, seen.shape[1])])
        pre = base[order.places] + self._contexts(net, seen, order.passes)
        mean, classes = self._split(s, net.head(pre), offset[order.places])
        learned, bits = coder.learn(s, y[order.places], mean * unit[order.places], classes)
        shape = batch, positions, -1
        bits = bits[order.inverse].view(batch, positions).sum(1)
        return seen[:-1].view(shape), learned[order.inverse].view(shape), bits

    def _contexts(self, net: SliceNet, seen: Tensor, passes: tuple[Pass, ...]) -> Tensor:
        """What the slice itself tells all passes, in the order of coding: rows `[N, width]`."""
        contexts = [seen.new_zeros(len(passes[0].places), self.config.prior_width)]
        for number, one in enumerate(passes):
            if number and len(one.places):
                contexts.append(net.context(number, seen, one.neighbours))
        return torch.cat(contexts)

    def _seen(self, rows: Tensor, large: Tensor, unit: Tensor) -> Tensor:
        """What the networks see of latents in cells of a slice, `[N, inputs]`.

        `rows` `[N, c]` says how large they are and of what sign, `large` how large alone.
        """
        normal = (rows / unit).clamp(-INPUT_BOUND, INPUT_BOUND)
        return torch.cat([normal, log_magnitude(large, self.config.group)], dim=1)

    def _split(self, s: int, out: Tensor, offset: Tensor) -> tuple[Tensor, Classes]:
        """Outputs `[M, ...]` of slice `s`: normalised means `[M, c]`, flat classes `[M * G]`."""
        groups, d = self.config.slices[s], self.config.group
        out = returning_clamp(out, -ACTIVATION_BOUND, ACTIVATION_BOUND)
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


def _all_of(batch: int, chosen: Tensor | None, some: Tensor) -> Tensor:
    """Rows of the `chosen` pictures, `[b, ...]`, among those of all, zero for the others."""
    if chosen is None:
        return some
    return some.new_zeros(batch, *some.shape[1:]).index_copy(0, chosen, some)
