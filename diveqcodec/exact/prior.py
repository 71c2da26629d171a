"""The exact prior: the context model in fixed point, so that every machine computes the same bits.

All numbers are integers carried by float64. Every sum of products stays below 2^53 (checked from
the weights when they are made), so no order of summation, thread count, BLAS or device changes a
bit, nor does the way in which products are found (see `products`). Only linear maps, clamp, ReLU,
round-half-to-even and reading off exponents occur: nothing transcendental, no division.

Grids: activations and normalised latents 2^-12, latents, means and codewords 2^-8 cells. The
numbers come out of a weights file as they are: nothing that matters is derived from floats.

Knows nothing of training, of how residuals are searched, or of bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor

from diveqcodec.errors import ModelError
from diveqcodec.exact import products
from diveqcodec.exact.products import Arithmetic
from diveqcodec.model.candidates import GRID, GRID_BITS
from diveqcodec.model.config import ModelConfig
from diveqcodec.model.passes import passes_of
from diveqcodec.model.priorlayers import ACTIVATION_BOUND, INPUT_BOUND, PriorLayer, layers_of

ACTIVATION_BITS = 12  # activations are multiples of 2^-12
UNIT_BITS = 16  # tables of units are multiples of 2^-16
LATENT_BOUND = float(1 << 24)  # of a latent, in units of 2^-8 cells
# Hence a log magnitude of four of them is at most 18.01: below the bound of inputs.

_ONE = 2.0**ACTIVATION_BITS
_ACTIVATION_LIMIT = ACTIVATION_BOUND * _ONE
_INPUT_LIMIT = INPUT_BOUND * _ONE
_EXACT = float(1 << 53)
_CPU = torch.device("cpu")
_INTEGERS = torch.int8, torch.int16, torch.int32, torch.int64


@dataclass(frozen=True, slots=True)
class GroupRows:
    """Rows of the frequency tables of M positions of a slice, int64 `[M, G]`; `coarse` may be None.

    `skipped` and `coarse_skipped` are true where the size class is 0.
    """

    fine: Tensor
    skipped: Tensor
    coarse: Tensor | None
    coarse_skipped: Tensor | None


class SliceCoder(Protocol):
    """What codes the slices of a tile while `FixedPrior.walk` goes through them."""

    def is_coded(self, s: int) -> bool:
        """Whether slice `s`, an optional one, is coded; called before its passes."""

    def code(self, s: int, places: Tensor, mean: Tensor, rows: GroupRows) -> Tensor:
        """Code one pass.

        Args:
            s: number of the slice.
            places: int64 `[M]`, its positions in raster order.
            mean: `[M, c]` in 2^-8 cells.
            rows: classes of its groups.

        Returns:
            ŷ `[M, c]` in 2^-8 cells.
        """


class FixedPrior:
    """The context model from the integers of a weights file.

    Args:
        config: sizes.
        tensors: integers by name, as `diveqcodec.exact.integers` makes them.

    Raises:
        ModelError: a number is missing or has another shape, or a sum would not be exact.

    Attributes:
        arithmetic: How sums of products are found, which changes no bit.
    """

    def __init__(
        self,
        config: ModelConfig,
        tensors: dict[str, Tensor],
        arithmetic: Arithmetic | None = None,
    ) -> None:
        _check_shapes(config, tensors)
        self.config = config
        self.arithmetic = arithmetic or products.arithmetic()
        self._numbers = {k: v.to(torch.float64) for k, v in tensors.items()}
        # math.ldexp is exact; a vectorised pow need not be.
        self._scales = {
            k: torch.tensor([math.ldexp(1.0, -b) for b in v.tolist()], dtype=torch.float64)
            for k, v in tensors.items()
            if k.endswith(".shift")
        }
        self._check_bounds()
        self._matrices = {
            layer.key: self.arithmetic.matrix(self._numbers.pop(f"{layer.key}.weight"))
            for layer in layers_of(config)
        }

    def walk(self, quality_bin: int, size: tuple[int, int], coder: SliceCoder) -> Tensor:
        """Predict and code a tile slice by slice, pass by pass.

        Args:
            quality_bin: 0 ... quality_bins - 1.
            size: rows and columns (h, w) of the latent.
            coder: called for every slice and pass in coding order.

        Returns:
            ŷ `[h, w, C]` in units of 2^-8 cells, float64.
        """
        config = self.config
        height, width = size
        y_hat = torch.zeros(height * width, config.channels, dtype=torch.float64)
        # What is known of every position, with a border of one for the 3x3 windows.
        inputs = config.inputs_before(len(config.slices))
        known = self.arithmetic.memory((height + 2) * (width + 2), inputs)
        windows = _tap_index(height, width)
        centres = windows[:, 4]
        for s in range(len(config.slices)):
            if config.is_optional(s) and not coder.is_coded(s):
                continue
            part, before = config.part(s), config.inputs_before(s)
            index = windows if config.window(s) == 3 else centres[:, None]
            base = self._base(s, known, index, quality_bin)
            # This slice, with a row of zeros for positions outside.
            seen = self.arithmetic.memory(height * width + 1, config.inputs(s))
            unit = self._numbers["normalise"][quality_bin, part]
            geometry = passes_of(height, width, config.levels(s), config.radius(s), _CPU)
            for number, one in enumerate(geometry):
                if not len(one.places):
                    continue
                pre = base[one.places]
                if number:
                    window = self.arithmetic.take(seen, one.neighbours, config.inputs(s))
                    pre = pre + self._context(s, number, window)
                mean, rows = self._head(s, pre, quality_bin)
                coded = coder.code(s, one.places, mean, rows)
                coded = coded.clamp(-LATENT_BOUND, LATENT_BOUND)
                y_hat[one.places, part] = coded
                told = self._seen(coded, unit)
                self.arithmetic.put(seen, one.places, 0, told)
                self.arithmetic.put(known, centres[one.places], before, told)
        return y_hat.view(height, width, -1)

    def _base(self, s: int, known: Any, index: Tensor, quality_bin: int) -> Tensor:
        """What all passes share, `[h * w, width]`, sums not yet rounded.

        `index` `[h * w, T]` numbers the rows of `known` that a position sees.
        """
        total = self._numbers[f"{s}.quality"][quality_bin].expand(len(index), -1)
        if not s:
            return total
        window = self.arithmetic.take(known, index, self.config.inputs_before(s))
        return total + self._sum(f"{s}.earlier", window)

    def _context(self, s: int, number: int, window: Any) -> Tensor:
        """What the slice itself tells pass `number`: rows of neighbours `[M, T * inputs]`."""
        return self._sum(f"{s}.current.{number}", window) + self._numbers[f"{s}.passes"][number - 1]

    def _seen(self, coded: Tensor, unit: Tensor) -> Tensor:
        """What the networks see of coded latents `[M, c]`: normalised, and log magnitudes."""
        normal = _shift(coded * unit, GRID_BITS + UNIT_BITS - ACTIVATION_BITS)
        normal = normal.clamp(-_INPUT_LIMIT, _INPUT_LIMIT)
        return torch.cat([normal, _log_magnitude(coded, self.config.group)], dim=1)

    def _head(self, s: int, pre: Tensor, quality_bin: int) -> tuple[Tensor, GroupRows]:
        """Pre-activation sums `[M, width]` to means `[M, c]` and table rows `[M, G]`."""
        config = self.config
        pre = (pre * self._scales[f"{s}.pre.shift"]).round()
        pre = pre.clamp(-_ACTIVATION_LIMIT, _ACTIVATION_LIMIT)
        hidden = self._finish(f"{s}.hidden", self._sum(f"{s}.hidden", pre.clamp(min=0)))
        hidden = hidden.clamp(0, _ACTIVATION_LIMIT)
        joined = torch.cat([hidden, pre[:, : config.prior_linear]], dim=1)
        out = self._finish(f"{s}.out", self._sum(f"{s}.out", joined))
        out = out.clamp(-_ACTIVATION_LIMIT, _ACTIVATION_LIMIT)
        groups, d = config.slices[s], config.group
        part = config.part(s)
        unit = self._numbers["unit"][quality_bin, part]
        mean = _shift(out[:, : groups * d] * unit, ACTIVATION_BITS + UNIT_BITS - GRID_BITS)
        mean = mean.clamp(-LATENT_BOUND, LATENT_BOUND)
        rest = out[:, groups * d :].view(len(out), -1, groups)
        offset = self._numbers["offset"][quality_bin, part.start // d : part.stop // d]
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

    def _sum(self, name: str, inputs: Any) -> Tensor:
        return self.arithmetic.sums(inputs, self._matrices[name])

    def _finish(self, name: str, total: Tensor) -> Tensor:
        """Add the bias and put sums on the grid of activations."""
        total = total + self._numbers[f"{name}.bias"]
        return (total * self._scales[f"{name}.shift"]).round()

    def _check_bounds(self) -> None:
        """Prove from the weights that every sum is exact, whatever the inputs.

        Raises:
            ModelError: a sum could exceed 2^53.
        """
        numbers = self._numbers
        totals: dict[str, Tensor] = {}
        for s in range(len(self.config.slices)):
            passes = numbers[f"{s}.passes"].abs().amax(0)
            totals[f"{s}.pre"] = numbers[f"{s}.quality"].abs().amax(0) + passes
        contexts: dict[str, Tensor] = {}  # one at a time: the largest counts
        for layer in layers_of(self.config):
            most = self._magnitude(layer)
            pre = f"{layer.s}.pre"
            if layer.role == "head":
                totals[layer.key] = most + numbers[f"{layer.key}.bias"].abs()
            elif layer.role == "base":
                totals[pre] = totals[pre] + most
            else:
                contexts[pre] = torch.maximum(contexts.get(pre, most), most)
        for pre, most in contexts.items():
            totals[pre] = totals[pre] + most
        totals["mean"] = numbers["unit"].abs() * _ACTIVATION_LIMIT
        totals["normalise"] = numbers["normalise"].abs() * LATENT_BOUND
        offset = numbers["offset"].abs().max() + numbers["coarse_offset"].abs()
        totals["offset"] = offset + _ACTIVATION_LIMIT
        for name, total in totals.items():
            if not float(total.max()) < _EXACT:
                raise ModelError(f"the prior's {name} can leave 2^53; it would not be exact")

    def _magnitude(self, layer: PriorLayer) -> Tensor:
        """Largest possible sum of products of every output channel."""
        return self._numbers[f"{layer.key}.weight"].abs().sum(1) * (layer.bound * _ONE)


def _check_shapes(config: ModelConfig, tensors: dict[str, Tensor]) -> None:
    """Refuse numbers that do not fit the configuration, or are not integers.

    Raises:
        ModelError: one is missing or has another shape or type.
    """
    bins, channels = config.quality_bins, config.channels
    shapes: dict[str, tuple[int, ...]] = {
        "unit": (bins, channels),
        "normalise": (bins, channels),
        "offset": (bins, channels // config.group),
        "coarse_offset": (1,),
    }
    passes = dict.fromkeys(range(len(config.slices)), 0)
    for layer in layers_of(config):
        shapes[f"{layer.key}.weight"] = layer.outputs, layer.inputs
        if layer.role == "head":
            shapes[f"{layer.key}.bias"] = shapes[f"{layer.key}.shift"] = (layer.outputs,)
        passes[layer.s] += layer.role == "context"
    for s, count in passes.items():
        shapes[f"{s}.quality"] = bins, config.prior_width
        shapes[f"{s}.passes"] = count, config.prior_width
        shapes[f"{s}.pre.shift"] = (config.prior_width,)
    for name, shape in shapes.items():
        if name not in tensors:
            raise ModelError(f"the prior lacks {name}; export the model again")
        if tensors[name].shape != shape:
            found = list(tensors[name].shape)
            raise ModelError(f"the prior's {name} has shape {found}, not {list(shape)}")
        # Any shift of eight bits leaves float64 in its range.
        types = (torch.int8,) if name.endswith(".shift") else _INTEGERS
        if tensors[name].dtype not in types:
            raise ModelError(f"the prior's {name} is {tensors[name].dtype}, not integers")


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


@lru_cache(maxsize=64)
def _tap_index(height: int, width: int) -> Tensor:
    """For every position the rows of its window's taps, in raster order, `[h * w, 9]`.

    Of a grid that has a border of one on all sides.
    """
    stride = width + 2
    taps = torch.tensor([i * stride + j for i in range(3) for j in range(3)])
    corner = (torch.arange(height)[:, None] * stride + torch.arange(width)[None]).flatten()
    return corner[:, None] + taps[None]
