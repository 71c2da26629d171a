"""Pictures for training: found, decoded once, kept as uint8 on the device, cropped there.

Which crops a step takes is a function of (seed, step) alone: that makes resuming exact. Knows
nothing of models.
"""

from __future__ import annotations

import hashlib
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from diveqcodec import image
from diveqcodec.alpha import fill_hidden
from diveqcodec.errors import ImageError, TrainingError
from diveqcodec.train.config import DataConfig
from diveqcodec.transform import SIDE, prefilter

log = logging.getLogger(__name__)

_NAMED = 10  # of the files left out; more are counted
_CHUNK = 4096  # patches that are looked at together


@dataclass(frozen=True, slots=True)
class Pictures:
    """Decoded pictures, each uint8 `[3, H, W]` on the device, and the files that were left out."""

    names: list[str]
    tensors: list[Tensor]
    skipped: list[str]  # "name: reason"

    @property
    def megabytes(self) -> float:
        """Memory that the pixels take, in millions of bytes."""
        return sum(picture.numel() for picture in self.tensors) / 1e6

    def summary(self) -> dict[str, Any]:
        """How many there are, and a hash of their names: what provenance says of the data."""
        digest = hashlib.sha256("\n".join(self.names).encode()).hexdigest()
        return {"pictures": len(self.names), "names_sha256": digest[:16]}

    def split(self, held_out: int) -> tuple[Pictures, Pictures]:
        """Training and validation pictures; which is which depends on the names alone."""
        count = min(held_out, len(self.names) // 10)
        order = sorted(range(len(self.names)), key=lambda i: _hash(self.names[i]))
        chosen = set(order[:count])
        parts = []
        for keep in (False, True):
            members = [i for i in range(len(self.names)) if (i in chosen) == keep]
            names = [self.names[i] for i in members]
            parts.append(Pictures(names, [self.tensors[i] for i in members], []))
        return parts[0], parts[1]


def find(folder: Path) -> list[Path]:
    """Files below `folder`, sorted, hidden ones left out; their content says which are pictures.

    Raises:
        TrainingError: no folder, or nothing in it.
    """
    if not folder.is_dir():
        raise TrainingError(f"{folder}: no such folder; give a folder of pictures")
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not files:
        raise TrainingError(f"{folder}: contains no pictures (PNG, JPEG, WebP, TIFF, ...)")
    return files


def load(
    folder: Path,
    minimum: int,
    device: torch.device,
    long_side: int = 0,
    limit: int | None = None,
) -> Pictures:
    """Decode every picture below `folder` that is at least `minimum` pixels on both sides.

    Args:
        folder: searched recursively; files that are no pictures are left out.
        minimum: pixels of the shorter side.
        device: where the pixels are kept.
        long_side: see `read`.
        limit: so many usable pictures are enough; the rest is not looked at.

    Raises:
        TrainingError: nothing can be used; names the first reasons.
    """
    names: list[str] = []
    tensors: list[Tensor] = []
    skipped: list[str] = []
    largest = 0
    for path in find(folder):
        if len(names) == limit:
            break
        name = path.relative_to(folder).as_posix()
        try:
            pixels = read(path, name, minimum, long_side)
        except ImageError as error:
            skipped.append(str(error))
            continue
        height, width = pixels.shape[:2]
        largest = max(largest, min(height, width))
        if min(height, width) < minimum:
            skipped.append(f"{name}: {width}x{height} is smaller than the crop of {minimum}")
            continue
        names.append(name)
        tensors.append(torch.from_numpy(pixels).permute(2, 0, 1).contiguous().to(device))
    if not names:
        first = "; ".join(skipped[:3])
        fitting = largest // 64 * 64
        remedy = f"; make crops smaller with --set data.crop={fitting}" if fitting else ""
        raise TrainingError(f"{folder}: no usable picture of {len(skipped)} ({first}){remedy}")
    for line in skipped[:_NAMED]:
        log.warning("left out %s", line)
    if more := len(skipped[_NAMED:]):
        log.warning("left out %d more", more)
    return Pictures(names, tensors, skipped)


def read(path: Path, name: str, minimum: int, long_side: int) -> image.Pixels:
    """A picture as it is coded: upright, uint8 `[H, W, 3]`, colours nobody sees filled smoothly.

    Args:
        path: of a file of any format that Pillow reads.
        name: what messages call it.
        minimum: shrinking stops where the shorter side has this many pixels.
        long_side: larger pictures are shrunk to it; 0: none are.

    Raises:
        ImageError: no picture, or damaged.
    """
    picture = image.load(path, name=name)
    pixels = picture.pixels
    if picture.alpha is not None:
        pixels = fill_hidden(pixels, picture.alpha)
    if pixels.shape[2] == 1:
        pixels = pixels.repeat(3, axis=2)
    height, width = pixels.shape[:2]
    scale = max(long_side / max(height, width), minimum / min(height, width))
    if not long_side or scale >= 1:
        return pixels
    size = round(width * scale), round(height * scale)
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def batch(pictures: Pictures, config: DataConfig, seed: int, step: int) -> Tensor:
    """The crops of a step: float `[B, 3, crop, crop]` in [0, 1] on the pictures' device."""
    random = np.random.default_rng((seed, step))
    crops = []
    for index in random.integers(len(pictures.tensors), size=config.batch):
        picture = pictures.tensors[int(index)]
        height, width = picture.shape[1:]
        low = max(config.min_scale, config.crop / min(height, width))
        scale = random.uniform(low, 1.0) if low < 1 else 1.0
        side = min(round(config.crop / scale), height, width)
        top = int(random.integers(height - side + 1))
        left = int(random.integers(width - side + 1))
        crop = picture[:, top : top + side, left : left + side].float()[None]
        if side != config.crop:
            crop = functional.interpolate(
                crop, (config.crop, config.crop), mode="bicubic", antialias=True
            )
        if random.random() < 0.5:
            crop = crop.flip(3)
        crops.append(crop)
    return torch.cat(crops).clamp_(0, 255).div_(255)


def lambdas(low: float, high: float, count: int, seed: int, step: int) -> Tensor:
    """Trade-offs of a step `[B]`, log-uniform in [low, high], one from each of `count` strata."""
    random = np.random.default_rng((seed, step, 1))
    strata = (random.permutation(count) + random.random(count)) / count
    values = math.log(low) + strata * (math.log(high) - math.log(low))
    return torch.from_numpy(np.exp(values)).float()


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy small host values without making the host wait for the device."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def principal_components(
    pictures: Pictures, channels: int, seed: int, *, lapped: bool, patches: int = 60000
) -> tuple[Tensor, Tensor, Tensor]:
    """The KLT of 16x16x3 patches in [-1, 1], of pictures as they are or pre-filtered by a lapping.

    Returns:
        orthonormal rows `[channels, 3, 16, 16]`, mean colour `[3]`, deviations `[channels]`.
    """
    random = np.random.default_rng((seed, 2))
    wanted, count = math.ceil(patches / len(pictures.tensors)), 0
    total, square = torch.zeros(768).double(), torch.zeros(768, 768).double()
    side = 2 * SIDE if lapped else SIDE  # half a block more around, which the lapping mixes in
    lapping = torch.block_diag(prefilter(), prefilter())[SIDE // 2 : -SIDE // 2].float()
    for picture in pictures.tensors:
        height, width = picture.shape[1:]
        each = min(wanted, height * width // 16)
        count += each
        i = torch.from_numpy(random.integers(height - side + 1, size=each)).to(picture.device)
        j = torch.from_numpy(random.integers(width - side + 1, size=each)).to(picture.device)
        windows = picture.unfold(1, side, 1).unfold(2, side, 1)  # [3, ..., ..., side, side], a view
        for rows, columns in zip(i.split(_CHUNK), j.split(_CHUNK), strict=True):
            x = windows[:, rows, columns].transpose(0, 1).cpu().float() / 127.5 - 1
            if lapped:
                x = lapping @ x @ lapping.T
            x = x.reshape(len(rows), -1)  # [n, 3, 16, 16] -> [n, 768]
            total += x.sum(0)
            square += x.T @ x
    mean = total.view(3, 256).mean(1) / count
    colour = mean.repeat_interleave(256)  # the same for all pixels of a patch
    cross = torch.outer(total / count, colour)
    covariance = square / count - cross - cross.T + torch.outer(colour, colour)
    values, vectors = torch.linalg.eigh(covariance)
    components = vectors.flip(1)[:, :channels].T.reshape(channels, 3, 16, 16)
    sigma = values.flip(0)[:channels].clamp_min(1e-10).sqrt()
    return components.float(), mean.float(), sigma.float()


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
