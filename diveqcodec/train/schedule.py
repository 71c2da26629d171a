"""How a run changes over its steps: learning rates, what rests, what counts how much.

All of it is a function of the step and of the configuration of now, which may change on the way (a
timed run adapts the number of its steps). Knows nothing of pictures or of files.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diveqcodec.model import DvqModel
from diveqcodec.train.config import TrainConfig


def make_optimizer(model: DvqModel, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW with a group of parameters for each `kind`, of its own `learning_rate`."""
    optim = config.optim
    groups: dict[str, list[Tensor]] = {key: [] for key in _factors(config)}
    for name, parameter in model.named_parameters():
        kind = "prior"
        if name.endswith(".unit"):
            kind = "codebook"
        elif name.endswith(".logits") or name == "hyper_class.weight":
            kind = "table"
        elif ".klt." in name or ".lapping." in name:
            kind = "linear"
        elif name.startswith(("analysis.", "synthesis.")):
            kind = "transform"
        groups[kind].append(parameter)
    return torch.optim.AdamW(
        [{"params": parameters, "kind": kind, "lr": 0.0} for kind, parameters in groups.items()],
        betas=optim.betas,
        weight_decay=optim.weight_decay,
        fused=True,
    )


def learning_rate(kind: str, step: int, config: TrainConfig) -> float:
    """Of a kind of parameters; that of the transform's networks is 0 while they rest."""
    optim = config.optim
    start = math.ceil(optim.linear * optim.steps) if kind == "transform" else 0
    return optim.lr * _factors(config)[kind] * schedule(step, config, start)


def is_linear(step: int, config: TrainConfig) -> bool:
    """Whether the networks beside the linear transform still rest."""
    return step < config.optim.linear * config.optim.steps


def hyper_weight(step: int, config: TrainConfig) -> float:
    """How much the bits of the hyper latent count: from 0 to 1 over the first part of a run."""
    length = config.loss.hyper_ramp * config.optim.steps
    return min(1.0, step / length) if length > 0 else 1.0


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
        "transform": 1.0,
        "prior": optim.prior_factor,
        "linear": optim.linear_factor,
        "codebook": optim.codebook_factor,
        "table": optim.table_factor,
    }
