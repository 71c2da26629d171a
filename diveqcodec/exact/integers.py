"""From a trained model to integers: the fixed-point prior, codebooks and frequency tables.

Done once, by `diveq export`. Weights go on a power-of-two grid of their output channel, 16 bits
each; what the fixed-point prior then computes is compared with the float prior by the caller.

Knows nothing of files (see `weights`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from diveqcodec.container.entropy import normalise
from diveqcodec.exact.prior import ACTIVATION_BITS, UNIT_BITS
from diveqcodec.model.candidates import GRID, integer_basis
from diveqcodec.model.codebook import Codebook
from diveqcodec.model.dvq import DvqModel
from diveqcodec.model.prior import SliceNet
from diveqcodec.model.priorlayers import PriorLayer, layers_of

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
    return numbers


def _frequencies(layer: Codebook) -> Tensor:
    """Frequencies `[T * A, K + 1]`, int32, each row summing to 2^24."""
    probabilities = torch.exp2(-layer.bit_table().double())
    return torch.from_numpy(normalise(probabilities.cpu().numpy()).astype("int32"))


def _prior(model: DvqModel) -> dict[str, Tensor]:
    prior, config = model.prior, model.config
    numbers: dict[str, Tensor] = {}
    bins = torch.arange(config.quality_bins, dtype=torch.float32)
    centres = config.scale.centre(bins)
    scale = torch.exp(centres.double())[:, None] * model.sigma.double().cpu()  # [bins, C]
    numbers["unit"] = (scale * 2**UNIT_BITS).round().long()
    numbers["normalise"] = (2**UNIT_BITS / scale).round().long()
    position = config.scale.position(centres)
    offsets = []
    for s, net in enumerate(prior.nets):
        assert isinstance(net, SliceNet)
        layers = [layer for layer in layers_of(config) if layer.s == s]
        numbers |= _slice_net(layers, net, position)
        offsets.append(prior.class_offset(scale[:, config.part(s)].float()))
    one = 2**ACTIVATION_BITS
    numbers["offset"] = (torch.cat(offsets, dim=1) * one).round().long()
    numbers["coarse_offset"] = torch.tensor([round(config.coarse_offset * one)])
    return numbers


def _slice_net(layers: list[PriorLayer], net: SliceNet, position: Tensor) -> dict[str, Tensor]:
    """The first layer's parts share a grid, since their sums are rounded only together."""
    numbers: dict[str, Tensor] = {}
    floats = {
        name: (weight.cpu().double(), None if bias is None else bias.cpu().double())
        for name, (weight, bias) in net.matrices().items()
    }
    s = layers[0].s
    summed = [layer for layer in layers if layer.role != "head"]
    shared = _fraction_bits(torch.cat([floats[layer.name][0] for layer in summed], dim=1))
    for layer in layers:
        weight, bias = floats[layer.name]
        bits = shared if layer in summed else _fraction_bits(weight)
        numbers[f"{layer.key}.weight"] = _on_grid(weight, bits).to(torch.int16)
        if layer.role == "head":
            assert bias is not None
            numbers[f"{layer.key}.bias"] = torch.ldexp(bias, bits + ACTIVATION_BITS).round().long()
            numbers[f"{layer.key}.shift"] = bits.to(torch.int8)
    fraction = shared + ACTIVATION_BITS
    quality = net.quality(position.to(net.quality.weight.device)).cpu().double()
    numbers[f"{s}.quality"] = torch.ldexp(quality, fraction).round().long()
    biases = [floats[layer.name][1] for layer in layers if layer.role == "context"]
    passes = torch.stack([bias for bias in biases if bias is not None])
    numbers[f"{s}.passes"] = torch.ldexp(passes, fraction).round().long()  # [passes - 1, width]
    numbers[f"{s}.pre.shift"] = shared.to(torch.int8)
    return numbers


def _fraction_bits(weight: Tensor) -> Tensor:
    """For every row the most fraction bits with which its largest weight fits 16 bits."""
    largest = weight.abs().amax(1).clamp_min(2.0**-30)
    bits = torch.floor(torch.log2(_WEIGHT_LIMIT / largest))
    return bits.clamp(0, _MOST_BITS).to(torch.int32)


def _on_grid(weight: Tensor, bits: Tensor) -> Tensor:
    grid = torch.ldexp(weight, bits[:, None]).round()
    return grid.clamp(-_WEIGHT_LIMIT, _WEIGHT_LIMIT)
