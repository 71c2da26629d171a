"""The tiny model of the tests: its configuration, drawn pictures, and how it is trained.

It has a slice of every kind: from coarse to fine with a coarse layer, a checkerboard, an optional
one that sees earlier slices at its own position only. `scripts/make_golden.py` makes tests/golden
with it; the tests train variants of it.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diveqcodec.container.bitstream import Tile
from diveqcodec.image import Picture
from diveqcodec.model.config import ModelConfig
from diveqcodec.model.dvq import DvqModel
from diveqcodec.train.config import (
    DataConfig,
    LogConfig,
    OptimConfig,
    QuantizerConfig,
    TrainConfig,
)
from diveqcodec.train.data import Pictures
from diveqcodec.train.loop import Trainer
from diveqcodec.train.loss import balanced, weighted_distortion
from diveqcodec.train.statistics import Interval

TINY = ModelConfig(
    channels=24,
    slices=(2, 6, 4),
    optional_slices=1,
    coarse_slices=1,
    pyramid_slices=1,
    pyramid_levels=2,
    window_slices=2,
    width4=8,
    width8=8,
    width16=8,
    blocks4=1,
    prior_width=32,
    prior_width2=32,
    prior_linear=8,
    sizes=8,
    shapes=3,
    codebook=64,
    coarse_codebook=64,
    quality_bins=8,
    lambda_min=0.0001,
)
IN_FOURS: dict[str, Any] = {"group": 4, "slices": (1, 3, 2)}  # the same channels in groups of four


def drawn(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """A picture of gradients, sharp shapes and texture, uint8 `[height, width, 3]`."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float64) / 64
    picture = np.empty((height, width, 3))
    for channel in range(3):
        slope = random.normal(0, 25, 2)
        picture[..., channel] = 128 + slope[0] * np.sin(y) + slope[1] * np.cos(x * 1.3)
    for _ in range(2 + height * width // 8000):
        cy, cx = random.uniform(0, y.max() + 0.1), random.uniform(0, x.max() + 0.1)
        size, angle = random.uniform(0.05, 0.4), random.uniform(0, np.pi)
        u = (y - cy) * np.cos(angle) + (x - cx) * np.sin(angle)
        v = (x - cx) * np.cos(angle) - (y - cy) * np.sin(angle)
        inside = (np.hypot(u, v) if random.random() < 0.5 else np.maximum(abs(u), abs(v))) < size
        waves = random.choice([0, 0, 30]) * np.sin(u * random.uniform(10, 60))
        picture = np.where(inside[..., None], random.uniform(0, 255, 3) + waves[..., None], picture)
    picture += random.normal(0, 1, picture.shape)
    return np.asarray(picture.clip(0, 255).round(), dtype=np.uint8)


def few_values(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The upper four bits alone: what lossless coders like."""
    return np.bitwise_and(pixels, np.uint8(0xF0))


def caption(height: int, width: int) -> NDArray[np.uint8]:
    """Lines of something like text on one colour, uint8 `[height, width, 3]`."""
    rows, columns = np.mgrid[:height, :width]
    is_line = (rows % 12 > 3) & (rows % 12 < 10) & (rows > 3) & (rows < height - 4)
    strokes = (columns * 5 // 4 + (rows // 12) * 7) % 9 < 3 + rows % 2
    ink = is_line & strokes & (columns > 5) & (columns < width - 6)
    return np.where(ink[..., None], np.uint8(240), np.array([20, 30, 60], np.uint8))


def captioned(height: int, width: int, place: Tile, seed: int) -> NDArray[np.uint8]:
    """`drawn`, with a `caption` somewhere."""
    pixels = drawn(height, width, seed)
    rows = slice(place.y, place.y + place.height)
    pixels[rows, place.x : place.x + place.width] = caption(place.height, place.width)
    return pixels


def picture_of(pixels: NDArray[np.uint8], alpha: NDArray[np.uint8] | None = None) -> Picture:
    """Pixels `[h, w, 1 or 3]` as a picture without metadata."""
    return Picture(pixels, alpha, None, None, None)


def tiny_config(
    steps: int = 6,
    optim: dict[str, Any] | None = None,
    quantizer: dict[str, Any] | None = None,
    log: dict[str, Any] | None = None,
    **other: Any,
) -> TrainConfig:
    """A run of the tiny model on small crops."""
    sections: dict[str, Any] = {"model": TINY, "data": DataConfig(crop=64, batch=2, validation=2)}
    return TrainConfig(
        **sections | other,
        optim=OptimConfig(steps=steps, **{"warmup": 2} | (optim or {})),
        quantizer=QuantizerConfig(**{"refresh": 2} | (quantizer or {})),
        log=LogConfig(**{"every": 2, "validate_every": 1000, "samples": 2} | (log or {})),
    )


def trained(
    model: ModelConfig, steps: int, lr: float = 2e-3, **quantizer: Any
) -> tuple[DvqModel, list[float]]:
    """A model after some steps on drawn pictures, and the loss of every step.

    All of its networks are at work from the first step on; in few steps AdamW takes them further.
    """
    optim = {"lr": lr, "networks_factor": 1.0, "networks_share": 1.0, "kernels": "adamw"}
    config = tiny_config(
        max(steps, 1),
        optim=optim | {"warmup": 1, "linear": 0.0, "flat": 1.0},
        quantizer={"gradient": "soft", "refresh": 20} | quantizer,
        model=model,
        data=DataConfig(crop=64, batch=4, validation=0, min_scale=1.0),
    )
    trainer = Trainer(config, training_pictures(), Path())
    trainer.start()
    losses = []
    for _ in range(steps):
        interval = Interval(trainer.model, trainer.device)
        trainer.advance(interval)
        losses.append(interval.line()["loss"])
    trainer.model.refresh()
    return trainer.model, losses


def loss_of(model: DvqModel, x: Tensor, lam: Tensor) -> Tensor:
    """Rate plus distortion of pictures `x` at trade-offs `lam`, as training weighs them."""
    output = model(x, lam)
    cost = output.bits / x[0, 0].numel() + weighted_distortion(output.x_hat, x, lam, "mse")
    return balanced(cost, lam)


@lru_cache
def training_pictures() -> Pictures:
    """Eight drawn pictures, uint8 `[3, 128, 128]`."""
    tensors = [torch.from_numpy(drawn(128, 128, i)).permute(2, 0, 1).contiguous() for i in range(8)]
    return Pictures([str(i) for i in range(8)], tensors, [])
