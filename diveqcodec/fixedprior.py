"""The exact prior: the context model in fixed point, so that every machine computes the same bits.

All numbers are integers carried by float64. Every sum of products stays below 2^53 (checked from
the weights when they are made), so no order of summation, thread count, BLAS or device changes a
bit. Only linear maps, clamp, ReLU, round-half-to-even and reading off exponents occur: nothing
transcendental, no division.

Grids: activations and normalised latents 2^-12, latents, means and codewords 2^-8 cells. The
numbers come out of a weights file as they are: nothing that matters is derived from floats.

Knows nothing of training, of how residuals are searched, or of bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from diveqcodec.errors import ModelError
from diveqcodec.passes import passes_of
from diveqcodec.prior import ACTIVATION_BOUND, INPUT_BOUND, PriorConfig
from diveqcodec.quantize.search import GRID

ACTIVATION_BITS = 12  # activations are multiples of 2^-12
UNIT_BITS = 16  # tables of units are multiples of 2^-16
GRID_BITS = 8
LATENT_BOUND = float(1 << 24)  # of a latent, in units of 2^-8 cells
# Hence a log magnitude of four of them is at most 18.01: below the bound of inputs.

_ACTIVATION_LIMIT = ACTIVATION_BOUND * 2**ACTIVATION_BITS
_INPUT_LIMIT = INPUT_BOUND * 2**ACTIVATION_BITS
_EXACT = float(1 << 53)
_CPU = torch.device("cpu")

assert 1 << GRID_BITS == GRID


@dataclass(frozen=True, slots=True)
class GroupRows:
    """Rows of the frequency tables of M positions of a slice, int64 `[M, G]`; `coarse` may be None.

    `skipped` and `coarse_skipped` are true where the size class is 0.
    """

    fine: Tensor
    skipped: Tensor
    coarse: Tensor | None
    coarse_skipped: Tensor | None


# (slice, pass, positions [M], means [M, c] in 2^-8 cells, rows) -> ŷ [M, c] in 2^-8 cells
Code = Callable[[int, int, Tensor, Tensor, GroupRows], Tensor]


class FixedPrior:
    """The context model from the integers of a weights file.

    Args:
        config: sizes.
        tensors: integers by name, as `diveqcodec.export` makes them.

    Raises:
        ModelError: a number is missing or has another shape, or a sum would not be exact.
    """

    def __init__(self, config: PriorConfig, tensors: dict[str, Tensor]) -> None:
        _check_shapes(config, tensors)
        self.config = config
        self._numbers = {k: v.to(torch.float64) for k, v in tensors.items()}
        # math.ldexp is exact; a vectorised pow need not be.
        self._scales = {
            k: torch.tensor([math.ldexp(1.0, -b) for b in v.tolist()], dtype=torch.float64)
            for k, v in tensors.items()
            if k.endswith(".shift")
        }
        self._check_bounds()
        self._matrices = {
            name.removesuffix(".weight"): value.flatten(1).T.contiguous()
            for name, value in self._numbers.items()
            if name.endswith(".weight")
        }

    def walk(
        self, z_hat: Tensor | None, quality_bin: int, size: tuple[int, int], code: Code
    ) -> Tensor:
        """Predict and code a tile slice by slice, pass by pass.

        Args:
            z_hat: integers `[hz, wz, Cz]` in units of 2^-8 cells, if the model has a hyper latent.
            quality_bin: 0 ... quality_bins - 1.
            size: rows and columns (h, w) of the latent, at most (4 hz, 4 wz).
            code: called for every slice and pass in coding order.

        Returns:
            ŷ `[h, w, C]` in units of 2^-8 cells, float64.
        """
        config = self.config
        height, width = size
        features = None
        if z_hat is not None:
            features = self.hyper_synthesis(z_hat)[:height, :width].reshape(height * width, -1)
        channels = sum(config.slices) * config.group
        y_hat = torch.zeros(height * width, channels, dtype=torch.float64)
        # What is known of every position, with a border of one for the 3x3 windows.
        inputs = config.inputs_before(len(config.slices))
        known = torch.zeros(height + 2, width + 2, inputs, dtype=torch.float64)
        for s in range(len(config.slices)):
            start, before = config.start(s), config.inputs_before(s)
            part = slice(start, start + config.slices[s] * config.group)
            base = self._base(s, features, known[:, :, :before], quality_bin)
            # This slice, with a row of zeros for positions outside.
            seen = torch.zeros(height * width + 1, config.inputs(s), dtype=torch.float64)
            unit = self._numbers["normalise"][quality_bin, part]
            geometry = passes_of(height, width, config.levels(s), config.radius(s), _CPU)
            for number, one in enumerate(geometry):
                if not len(one.places):
                    continue
                pre = base[one.places]
                if number:
                    pre = pre + self._context(s, number, seen[one.neighbours].flatten(1))
                mean, rows = self._head(s, pre, quality_bin)
                coded = code(s, number, one.places, mean, rows)
                coded = coded.clamp(-LATENT_BOUND, LATENT_BOUND)
                y_hat[one.places, part] = coded
                seen[one.places] = self._seen(coded, unit)
            grid = seen[:-1].view(height, width, -1)
            known[1:-1, 1:-1, before : before + config.inputs(s)] = grid
        return y_hat.view(height, width, channels)

    def hyper_synthesis(self, z_hat: Tensor) -> Tensor:
        """Integers `[hz, wz, Cz]` (2^-8 cells) to features `[4 hz, 4 wz, F]` (2^-12)."""
        hidden = z_hat * 2.0 ** (ACTIVATION_BITS - GRID_BITS)
        hidden = hidden.clamp(-_ACTIVATION_LIMIT, _ACTIVATION_LIMIT)
        for name in ("synthesis.first", "synthesis.second", "synthesis.third"):
            height, width, _ = hidden.shape
            padded = functional.pad(hidden, (0, 0, 1, 1, 1, 1))
            out = self._sum(name, _windows(padded))
            hidden = self._finish(name, out).clamp(0, _ACTIVATION_LIMIT).view(height, width, -1)
            if name != "synthesis.first":
                hidden = _shuffle(hidden)
        return hidden

    def _base(self, s: int, features: Tensor | None, earlier: Tensor, quality_bin: int) -> Tensor:
        """What all passes share, `[h * w, width]`, sums not yet rounded."""
        height, width = earlier.shape[0] - 2, earlier.shape[1] - 2
        total = self._numbers[f"{s}.quality"][quality_bin].expand(height * width, -1)
        if features is not None:
            total = total + features @ self._matrices[f"{s}.hyper"]
        if s:
            total = total + self._sum(f"{s}.earlier", _windows(earlier))
        return total

    def _context(self, s: int, number: int, window: Tensor) -> Tensor:
        """What the slice itself tells pass `number`: rows of neighbours `[M, T * inputs]`."""
        name = self.config.context_name(s, number)
        bias = self._numbers[f"{s}.second_pass"]
        total = self._sum(name, window)
        return total + (bias[number - 1] if self.config.levels(s) else bias)

    def _seen(self, coded: Tensor, unit: Tensor) -> Tensor:
        """What the networks see of coded latents `[M, c]`: normalised, and log magnitudes."""
        normal = _shift(coded * unit, GRID_BITS + UNIT_BITS - ACTIVATION_BITS)
        normal = normal.clamp(-_INPUT_LIMIT, _INPUT_LIMIT)
        if not self.config.magnitudes:
            return normal
        return torch.cat([normal, _log_magnitude(coded, self.config.group)], dim=1)

    def _head(self, s: int, pre: Tensor, quality_bin: int) -> tuple[Tensor, GroupRows]:
        """Pre-activation sums `[M, width]` to means `[M, c]` and table rows `[M, G]`."""
        config = self.config
        pre = (pre * self._scales[f"{s}.pre.shift"]).round()
        pre = pre.clamp(-_ACTIVATION_LIMIT, _ACTIVATION_LIMIT)
        hidden = self._finish(f"{s}.hidden", self._sum(f"{s}.hidden", pre.clamp(min=0)))
        hidden = hidden.clamp(0, _ACTIVATION_LIMIT)
        joined = torch.cat([hidden, pre[:, : config.linear]], dim=1)
        out = self._finish(f"{s}.out", self._sum(f"{s}.out", joined))
        out = out.clamp(-_ACTIVATION_LIMIT, _ACTIVATION_LIMIT)
        groups, d = config.slices[s], config.group
        start = config.start(s)
        unit = self._numbers["unit"][quality_bin, start : start + groups * d]
        mean = _shift(out[:, : groups * d] * unit, ACTIVATION_BITS + UNIT_BITS - GRID_BITS)
        mean = mean.clamp(-LATENT_BOUND, LATENT_BOUND)
        rest = out[:, groups * d :].view(len(out), -1, groups)
        offset = self._numbers["offset"][quality_bin, start // d : start // d + groups]
        size = self._size(rest[:, 0] + offset)
        half = config.shapes // 2
        shape = (_shift(rest[:, 1], ACTIVATION_BITS) + half).clamp(0, config.shapes - 1)
        fine = (size * config.shapes + shape).long()
        if s >= config.coarse_slices:
            return mean, GroupRows(fine, size == 0, None, None)
        coarse = self._size(rest[:, 2] + offset - self._numbers["coarse_offset"])
        return mean, GroupRows(fine, size == 0, coarse.long(), coarse == 0)

    def _size(self, number: Tensor) -> Tensor:
        return _shift(number, ACTIVATION_BITS).clamp(0, self.config.sizes - 1)

    def _sum(self, name: str, inputs: Tensor) -> Tensor:
        return inputs @ self._matrices[name]

    def _finish(self, name: str, total: Tensor) -> Tensor:
        """Add the bias and put sums on the grid of activations."""
        total = total + self._numbers[f"{name}.bias"]
        return (total * self._scales[f"{name}.shift"]).round()

    def _check_bounds(self) -> None:
        """Prove from the weights that every sum is exact, whatever the inputs.

        Raises:
            ModelError: a sum could exceed 2^53.
        """
        has_hyper = self.config.hyper_channels > 0
        totals = {
            name: self._magnitude(name, _ACTIVATION_LIMIT) + self._numbers[f"{name}.bias"].abs()
            for name in ("synthesis.first", "synthesis.second", "synthesis.third")
            if has_hyper
        }
        for s in range(len(self.config.slices)):
            for name in (f"{s}.hidden", f"{s}.out"):
                bias = self._numbers[f"{name}.bias"].abs()
                totals[name] = self._magnitude(name, _ACTIVATION_LIMIT) + bias
            total = self._numbers[f"{s}.quality"].abs().amax(0)
            if has_hyper:
                total = total + self._magnitude(f"{s}.hyper", _ACTIVATION_LIMIT)
            bias = self._numbers[f"{s}.second_pass"].abs()
            total = total + bias.view(-1, self.config.width).amax(0)
            contexts = [
                self._magnitude(self.config.context_name(s, number), _INPUT_LIMIT)
                for number in range(1, len(self.config.taps(s)))
            ]
            total = total + torch.stack(contexts).amax(0)
            if s:
                total = total + self._magnitude(f"{s}.earlier", _INPUT_LIMIT)
            totals[f"{s}.pre"] = total
        totals["mean"] = self._numbers["unit"].abs() * _ACTIVATION_LIMIT
        totals["normalise"] = self._numbers["normalise"].abs() * LATENT_BOUND
        offset = self._numbers["offset"].abs().max() + self._numbers["coarse_offset"].abs()
        totals["offset"] = offset + _ACTIVATION_LIMIT
        for name, total in totals.items():
            if float(total.max()) >= _EXACT:
                raise ModelError(f"the prior's {name} can leave 2^53; it would not be exact")

    def _magnitude(self, name: str, limit: float) -> Tensor:
        """Largest possible sum of products of every output channel."""
        return self._numbers[f"{name}.weight"].flatten(1).abs().sum(1) * limit


def _check_shapes(config: PriorConfig, tensors: dict[str, Tensor]) -> None:
    """Refuse numbers that do not fit the configuration.

    Raises:
        ModelError: one is missing or has another shape.
    """
    f, bins, channels = config.features, config.quality_bins, sum(config.slices) * config.group
    shapes: dict[str, tuple[int, ...]] = {
        "unit": (bins, channels),
        "normalise": (bins, channels),
        "offset": (bins, channels // config.group),
        "coarse_offset": (1,),
    }

    def linear(name: str, inputs: int, outputs: int) -> None:
        shapes[f"{name}.weight"] = outputs, inputs
        shapes[f"{name}.bias"] = shapes[f"{name}.shift"] = (outputs,)

    if config.hyper_channels:
        linear("synthesis.first", 9 * config.hyper_channels, f)
        linear("synthesis.second", 9 * f, 4 * f)
        linear("synthesis.third", 9 * f, 4 * f)
    for s in range(len(config.slices)):
        taps = config.taps(s)[1:]
        if config.hyper_channels:
            shapes[f"{s}.hyper.weight"] = config.width, f
        for number, count in enumerate(taps, 1):
            name = config.context_name(s, number)
            shapes[f"{name}.weight"] = config.width, count * config.inputs(s)
        if s:
            shapes[f"{s}.earlier.weight"] = config.width, 9 * config.inputs_before(s)
        shapes[f"{s}.quality"] = bins, config.width
        shapes[f"{s}.pre.shift"] = (config.width,)
        shapes[f"{s}.second_pass"] = (config.width,)
        if config.levels(s):
            shapes[f"{s}.second_pass"] = len(taps), config.width
        linear(f"{s}.hidden", config.width, config.width2)
        linear(f"{s}.out", config.width2 + config.linear, config.outputs(s))
    for name, shape in shapes.items():
        if name not in tensors:
            raise ModelError(f"the prior lacks {name}; export the model again")
        if tensors[name].shape != shape:
            found = list(tensors[name].shape)
            raise ModelError(f"the prior's {name} has shape {found}, not {list(shape)}")


def _shift(value: Tensor, bits: int) -> Tensor:
    """Divide integers by 2^bits, rounding halves to even."""
    return (value * 2.0**-bits).round()


def _log_magnitude(coded: Tensor, group: int) -> Tensor:
    """`prior.log_magnitude` of integers in units of 2^-8 cells, as multiples of 2^-12.

    Exact until it is rounded: the mantissa of an integer below 2^53 is read off its float64.
    """
    total = coded.abs().view(len(coded), -1, group).sum(2) + float(GRID)
    mantissa, exponent = torch.frexp(total)
    return (exponent - GRID_BITS + (2 * mantissa - 2)).mul(2.0**ACTIVATION_BITS).round()


def _shuffle(grid: Tensor) -> Tensor:
    """`[h, w, 4 F]` to `[2 h, 2 w, F]`, as torch's pixel_shuffle orders channels."""
    height, width, channels = grid.shape
    parts = grid.view(height, width, channels // 4, 2, 2).permute(0, 3, 1, 4, 2)
    return parts.reshape(2 * height, 2 * width, channels // 4)


def _windows(padded: Tensor) -> Tensor:
    """Rows of all 3x3 windows `[h * w, 9 * C]`, taps in raster order, of `[h + 2, w + 2, C]`."""
    height, width, channels = padded.shape
    rows = padded.reshape(height * width, channels)[_tap_index(height - 2, width - 2)]
    return rows.flatten(1)


@lru_cache(maxsize=64)
def _tap_index(height: int, width: int) -> Tensor:
    """For every position the rows of its window's taps in the padded grid, `[h * w, 9]`."""
    stride = width + 2
    taps = torch.tensor([i * stride + j for i in range(3) for j in range(3)])
    corner = (torch.arange(height)[:, None] * stride + torch.arange(width)[None]).flatten()
    return corner[:, None] + taps[None]
