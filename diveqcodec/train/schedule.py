"""How a run changes over its steps: learning rates, what rests, what counts how much.

All of it is a function of the step and of the configuration of now, which may change on the way (a
timed run adapts the number of its steps). Knows nothing of pictures or of files.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from diveqcodec.model.dvq import DvqModel
from diveqcodec.train.config import TrainConfig
from diveqcodec.train.optimizer import Muon, Optimizers
from diveqcodec.train.processes import Processes

_OF_PIXELS = ("networks", "predistortion")  # kinds of parameters: those of convolutions


def make_optimizer(
    model: DvqModel, config: TrainConfig, processes: Processes | None = None
) -> Optimizers:
    """A group of parameters for each `kind_of` them, of its own `learning_rate`.

    Kernels of the networks of pixels are Muon's if the configuration says so, the rest AdamW's.
    """
    optim = config.optim
    groups: dict[str, list[Tensor]] = {kind: [] for kind in _factors(config)}
    kernels: dict[str, list[Tensor]] = {kind: [] for kind in _OF_PIXELS}
    for name, parameter in model.named_parameters():
        kind = model.kind_of(name)
        is_kernel = optim.kernels == "muon" and kind in kernels and parameter.ndim == 4
        (kernels if is_kernel else groups)[kind].append(parameter)
    adamw = torch.optim.AdamW(
        _listed(groups), betas=optim.betas, weight_decay=optim.weight_decay, fused=True
    )
    exchange = torch.bfloat16 if optim.exchange == "bfloat16" else torch.float32
    muon = Muon(_listed(kernels), optim.momentum, processes or Processes(), exchange)
    return Optimizers(adamw, muon)


def _listed(groups: dict[str, list[Tensor]]) -> list[dict[str, Any]]:
    return [{"params": parameters, "kind": kind, "lr": 0.0} for kind, parameters in groups.items()]


def learning_rate(kind: str, step: int, config: TrainConfig) -> float:
    """Of a kind of parameters; that of the networks is 0 while they rest."""
    optim = config.optim
    is_resting = kind in _OF_PIXELS
    start = math.ceil(optim.linear * optim.steps) if is_resting else 0
    return optim.lr * _factors(config)[kind] * schedule(step, config, start)


def decoded_by_networks(step: int, crops: int, config: TrainConfig) -> int:
    """How many of `crops` the networks see: none at first, then a share, at the end all."""
    optim = config.optim
    if step < optim.linear * optim.steps:
        return 0
    if step >= optim.flat * optim.steps:
        return crops
    return min(crops, math.ceil(optim.networks_share * crops))


def average_decay(step: int, most: float) -> float:
    """Decay of the averaged weights: short at first, when the weights change fast."""
    return min(most, (1 + step) / (10 + step))


def schedule(step: int, config: TrainConfig, start: int = 0) -> float:
    """Learning rate factor: linear warm-up from `start`, flat, cosine down to `optim.final`."""
    optim = config.optim
    warm = min(1.0, max(0, step - start + 1) / max(1, optim.warmup))
    done = (step / optim.steps - optim.flat) / max(1e-9, 1 - optim.flat)
    cosine = 0.5 + 0.5 * math.cos(math.pi * min(max(done, 0.0), 1.0))
    return warm * (optim.final + (1 - optim.final) * cosine)


def _factors(config: TrainConfig) -> dict[str, float]:
    """Learning rates of the kinds of parameters, relative to `optim.lr`."""
    optim = config.optim
    return {
        "networks": optim.networks_factor,
        "prior": optim.prior_factor,
        "linear": optim.linear_factor,
        "analysis": optim.encoder_factor,
        "predistortion": optim.predistortion_factor,
        "codebook": optim.codebook_factor,
        "table": optim.table_factor,
    }
