"""The tiny model of the tests: its configuration, drawn pictures, and a training loop of one page.

`scripts/make_golden.py` makes tests/golden/second with it; the tests train other variants of it.
"""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diveqcodec.image import Picture
from diveqcodec.model import DvqModel, ModelConfig, TrainingRules
from diveqcodec.train.initial import calibrate
from diveqcodec.transform import Lapping

TINY = ModelConfig(
    channels=16,
    slices=(2, 6),
    width4=8,
    width8=8,
    width16=8,
    blocks=1,
    filter_width=8,
    filter_blocks=1,
    prior_width=32,
    prior_width2=32,
    prior_linear=8,
    coarse_slices=1,
    pyramid_slices=1,
    pyramid_levels=2,
    sizes=8,
    shapes=3,
    codebook=64,
    coarse_codebook=64,
    quality_bins=8,
    lambda_min=0.0001,
)


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


def picture_of(pixels: NDArray[np.uint8], alpha: NDArray[np.uint8] | None = None) -> Picture:
    """Pixels `[h, w, 1 or 3]` as a picture without metadata."""
    return Picture(pixels, alpha, None, None, None)


def trained(
    config: ModelConfig,
    steps: int,
    rules: TrainingRules | None = None,
    crop: int = 64,
    lr: float = 2e-3,
    lam: float | None = None,
) -> tuple[DvqModel, list[float]]:
    """A model after some steps on drawn pictures, and the loss of every step.

    `lam` fixes the trade-off; otherwise it is drawn log-uniformly.
    """
    torch.manual_seed(0)
    model = DvqModel(config, rules)
    tensors = training_pictures()
    model.set_transform(*principal_components(config.channels))
    ends = torch.linspace(config.lambda_min, config.lambda_max, len(tensors))
    calibrate(model, torch.stack(tensors).float() / 255, ends)
    groups = [
        {"params": [parameter], "lr": lr * _learning_rate(name)}
        for name, parameter in model.named_parameters()
    ]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.95))
    random = np.random.default_rng(0)
    losses = []
    for step in range(steps):
        crops = []
        for _ in range(4):
            top, left = random.integers(0, 128 - crop + 1, 2)
            picture = tensors[random.integers(len(tensors))]
            crops.append(picture[:, top : top + crop, left : left + crop])
        x = torch.stack(crops).float() / 255
        low, high = np.log((config.lambda_min, config.lambda_max) if lam is None else (lam, lam))
        trade = torch.from_numpy(np.exp(random.uniform(low, high, 4))).float()
        loss = loss_of(model, x, trade)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        if step % 20 == 19:
            model.refresh()
        losses.append(float(loss.detach()))
    model.refresh()
    return model, losses


def _learning_rate(name: str) -> float:
    """Relative to the networks': as training does it."""
    if name.endswith((".logits", "class.weight")):
        return 10.0
    return 0.1 if ".klt." in name else 1.0


def loss_of(model: DvqModel, x: Tensor, lam: Tensor) -> Tensor:
    """Rate plus distortion of pictures `x` at trade-offs `lam`, scaled to be alike at all."""
    output = model(x, lam)
    bpp = (output.latent_bits + output.hyper_bits) / x[0, 0].numel()
    mse = (output.x_hat - x).square().mean((1, 2, 3))
    return ((bpp + lam * 255**2 * mse) / (lam / 0.0067).sqrt()).mean()


@lru_cache
def training_pictures() -> tuple[Tensor, ...]:
    """Eight drawn pictures, uint8 `[3, 128, 128]`."""
    return tuple(torch.from_numpy(drawn(128, 128, i)).permute(2, 0, 1) for i in range(8))


@lru_cache
def principal_components(channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """What `DvqModel.set_transform` takes, of the training pictures."""
    x = torch.stack(training_pictures()).float() / 127.5 - 1
    mean = x.mean((0, 2, 3))
    with torch.no_grad():
        centred = (Lapping(transposed=False)(x) - mean[:, None, None]).double()
    patches = torch.nn.functional.unfold(centred, 16, stride=16).transpose(1, 2).reshape(-1, 768)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    rows = vectors.flip(1)[:, :channels].T.reshape(channels, 3, 16, 16)
    sigma = values.flip(0)[:channels].clamp_min(1e-10).sqrt()
    return rows.float(), mean.float(), sigma.float()
