"""Drawn pictures and a tiny configuration for the tests of training."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diveqcodec.model import ModelConfig
from diveqcodec.train.config import (
    DataConfig,
    LogConfig,
    OptimConfig,
    QuantizerConfig,
    TrainConfig,
)

TINY = ModelConfig(
    channels=32,
    slices=(4, 12),
    width4=8,
    width8=16,
    width16=16,
    filter_width=8,
    filter_blocks=1,
    prior_width=32,
    prior_width2=32,
    prior_linear=8,
    features=16,
    hyper_channels=8,
    hyper_width=16,
    coarse_slices=1,
    sizes=8,
    codebook=64,
    coarse_codebook=64,
    hyper_codebook=32,
    quality_bins=8,
)


def tiny_config(
    steps: int = 6,
    optim: dict[str, Any] | None = None,
    quantizer: dict[str, Any] | None = None,
    log: dict[str, Any] | None = None,
    **other: Any,
) -> TrainConfig:
    return TrainConfig(
        model=TINY,
        data=DataConfig(crop=64, batch=2, validation=2),
        optim=OptimConfig(steps=steps, **{"warmup": 2} | (optim or {})),
        quantizer=QuantizerConfig(**{"refresh": 2} | (quantizer or {})),
        log=LogConfig(**{"every": 2, "validate_every": 1000, "samples": 2} | (log or {})),
        **other,
    )


def draw_pictures(folder: Path, count: int = 12, size: tuple[int, int] = (96, 80)) -> Path:
    """`count` PNG files of waves, edges and a little noise, width x height pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    width, height = size
    for number in range(count):
        random = np.random.default_rng(number)
        rows, columns = np.mgrid[0:height, 0:width] / 32.0
        angle, pace = random.uniform(0, 3.1), random.uniform(0.5, 4.0)
        wave = np.sin(pace * (rows * np.sin(angle) + columns * np.cos(angle)))
        colour = random.uniform(30, 90, 3)
        pixels = 128 + wave[..., None] * colour + random.normal(0, 4, (height, width, 3))
        top, left = random.integers(0, height - 20), random.integers(0, width - 20)
        pixels[top : top + 20, left : left + 20] = random.uniform(0, 255, 3)
        clipped = pixels.clip(0, 255).astype(np.uint8)
        Image.fromarray(clipped).save(folder / f"picture-{number:02d}.png")
    return folder
