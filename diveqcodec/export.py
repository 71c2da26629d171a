"""From a trained model to integers: the fixed-point prior, codebooks and frequency tables.

Done once, by `diveq export`. Weights go on a power-of-two grid of their output channel, 16 bits
each; what the fixed-point prior then computes is compared with the float prior by the caller.

Knows nothing of files (see `weights`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diveqcodec.entropy import normalise
from diveqcodec.fixedprior import ACTIVATION_BITS, GRID_BITS, UNIT_BITS
from diveqcodec.layers import bias_of
from diveqcodec.model import DvqModel
from diveqcodec.prior import PriorConfig, SliceNet
from diveqcodec.quantize.search import GRID, integer_basis
from diveqcodec.quantize.tables import Layer

_WEIGHT_LIMIT = 32767.0
_MOST_BITS = 24  # of the fraction of a weight


@torch.no_grad()
def integers(model: DvqModel) -> dict[str, Tensor]:
    """Everything a decoder needs to be exact, as integer tensors by name."""
    numbers = {f"prior.{k}": v for k, v in _prior(model).items()}
    for name, layer in model.layers().items():
        numbers[f"{name}.codewords"] = (layer.codewords() * GRID).round().to(torch.int32)
        numbers[f"{name}.basis"] = integer_basis(layer.dim, layer.cell).to(torch.int32)
        numbers[f"{name}.frequencies"] = _frequencies(layer)
    if model.hyper_quantizer is not None:
        classes = model.hyper_classes(model.position(_bin_centres(model)))
        numbers["hyper.classes"] = classes.round().to(torch.int32)  # [bins, groups]
    return numbers


def _frequencies(layer: Layer) -> Tensor:
    """Frequencies `[T * A, K + 1]`, int32, each row summing to 2^24."""
    probabilities = torch.exp2(-layer.bit_table().double())
    return torch.from_numpy(normalise(probabilities.cpu().numpy()).astype("int32"))


def _bin_centres(model: DvqModel) -> Tensor:
    low, high = model.config.log_gain_range()
    bins = model.config.quality_bins
    return low + (high - low) * (torch.arange(bins, dtype=torch.float32) + 0.5) / bins


def _prior(model: DvqModel) -> dict[str, Tensor]:
    prior, config = model.prior, model.prior.config
    numbers: dict[str, Tensor] = {}
    if prior.synthesis is not None:
        for name in ("first", "second", "third"):
            _linear(numbers, f"synthesis.{name}", getattr(prior.synthesis, name))
    centres = _bin_centres(model)
    scale = torch.exp(centres.double())[:, None] * model.sigma.double().cpu()  # [bins, C]
    numbers["unit"] = (scale * 2**UNIT_BITS).round().long()
    numbers["normalise"] = (2**UNIT_BITS / scale).round().long()
    offsets = []
    for s, module in enumerate(prior.nets):
        assert isinstance(module, SliceNet)
        _slice_net(numbers, config, s, module, model.position(centres))
        start = config.start(s)
        part = scale[:, start : start + config.slices[s] * config.group].float()
        offsets.append(prior.class_offset(part))
    one = 2**ACTIVATION_BITS
    numbers["offset"] = (torch.cat(offsets, dim=1) * one).round().long()
    numbers["coarse_offset"] = torch.tensor([round(config.coarse_offset * one)])
    return numbers


def _slice_net(
    numbers: dict[str, Tensor], config: PriorConfig, s: int, net: SliceNet, u: Tensor
) -> None:
    """The first layer's parts share a grid, since their sums are rounded only together."""
    passes = range(1, len(config.taps(s)))
    contexts = [net.context_layer(number) for number in passes]
    parts = {
        config.context_name(s, number): weight.cpu().double()
        for number, (weight, _) in zip(passes, contexts, strict=True)
    }
    if net.hyper is not None:
        parts[f"{s}.hyper"] = net.hyper.weight.cpu().double().flatten(1)
    if net.earlier is not None:
        # taps before channels: the order in which the exact prior gathers its windows
        earlier = net.earlier.weight.cpu().double().flatten(2)
        parts[f"{s}.earlier"] = earlier.transpose(1, 2).flatten(1)
    bits = _fraction_bits(torch.cat(list(parts.values()), dim=1))
    for name, weight in parts.items():
        numbers[f"{name}.weight"] = _on_grid(weight, bits).to(torch.int16)
    fraction = bits + ACTIVATION_BITS
    quality = net.quality(u.to(net.quality.weight.device)).cpu().double()
    if net.hyper is not None:
        quality = quality + bias_of(net.hyper).cpu().double()
    numbers[f"{s}.quality"] = torch.ldexp(quality, fraction).round().long()
    biases = torch.stack([bias.cpu().double() for _, bias in contexts])
    biases = torch.ldexp(biases, fraction).round().long()  # [passes - 1, width]
    numbers[f"{s}.second_pass"] = biases if config.levels(s) else biases[0]
    numbers[f"{s}.pre.shift"] = bits.to(torch.int8)
    _linear(numbers, f"{s}.hidden", net.hidden)
    _linear(numbers, f"{s}.out", net.out)


def _linear(numbers: dict[str, Tensor], name: str, layer: nn.Linear | nn.Conv2d) -> None:
    weight = layer.weight.detach().cpu().double()
    if weight.ndim == 4:
        weight = weight.flatten(2).transpose(1, 2)
    weight = weight.flatten(1)
    bits = _fraction_bits(weight)
    numbers[f"{name}.weight"] = _on_grid(weight, bits).to(torch.int16)
    bias = layer.bias
    assert bias is not None
    exact = torch.ldexp(bias.detach().cpu().double(), bits + ACTIVATION_BITS)
    numbers[f"{name}.bias"] = exact.round().long()
    numbers[f"{name}.shift"] = bits.to(torch.int8)


def _fraction_bits(weight: Tensor) -> Tensor:
    """For every row the most fraction bits with which its largest weight fits 16 bits."""
    largest = weight.abs().amax(1).clamp_min(2.0**-30)
    bits = torch.floor(torch.log2(_WEIGHT_LIMIT / largest))
    return bits.clamp(0, _MOST_BITS).to(torch.int32)


def _on_grid(weight: Tensor, bits: Tensor) -> Tensor:
    grid = torch.ldexp(weight, bits[:, None]).round()
    return grid.clamp(-_WEIGHT_LIMIT, _WEIGHT_LIMIT)


assert 1 << GRID_BITS == GRID
