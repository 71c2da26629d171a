"""Pictures for training: found, decoded once, kept as uint8 on the device, cropped there.

Which crops a step takes is a function of (seed, step) alone: that makes resuming exact. Knows
nothing of models.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from diveqcodec import image
from diveqcodec.container.alpha import fill_hidden
from diveqcodec.errors import ImageError, TrainingError
from diveqcodec.folders import files_below
from diveqcodec.model.transform import SIDE
from diveqcodec.train.config import DataConfig
from diveqcodec.train.drawings import drawn_crop

log = logging.getLogger(__name__)

_NAMED = 10  # of the files left out; more are counted


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
        return {"pictures": len(self.names), "names_sha256": _hash("\n".join(self.names))[:16]}

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
    """Files below `folder`; their content says which are pictures.

    Raises:
        TrainingError: no folder, or nothing in it.
    """
    if not folder.is_dir():
        raise TrainingError(f"{folder}: no such folder; give a folder of pictures")

    def refused(error: OSError) -> None:
        log.warning("left out %s: %s", error.filename, error.strerror)

    files = files_below(folder, refused)
    if not files:
        raise TrainingError(f"{folder}: contains no pictures (PNG, JPEG, WebP, TIFF, ...)")
    return files


def load(
    folder: Path,
    minimum: int,
    device: torch.device,
    long_side: int = 0,
    limit: int | None = None,
    smallest: int = SIDE,
) -> Pictures:
    """Decode every picture below `folder` that is at least `minimum` pixels on both sides.

    Args:
        folder: searched recursively; files that are no pictures are left out.
        minimum: pixels of the shorter side.
        device: where the pixels are kept.
        long_side: see `read`.
        limit: so many usable pictures are enough; the rest is not looked at.
        smallest: least `minimum` that could be asked for, a multiple of 16.

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
        fitting = largest // SIDE * SIDE
        remedy = ""
        if fitting >= smallest:
            remedy = f"; make crops smaller with --set data.crop={fitting}"
        elif largest:
            remedy = f"; both sides of a picture must have {smallest} pixels at least"
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


def batch(
    pictures: Pictures, config: DataConfig, seed: int, step: int, share: range | None = None
) -> Tensor:
    """The crops of a step: float `[B, 3, crop, crop]` in [0, 1] on the pictures' device.

    `share` says which of the crops are wanted, all of them by default: a crop depends on its number
    only, not on who takes it.
    """
    numbers = range(config.batch) if share is None else share
    crops = []
    for n in numbers:
        crop = _crop(pictures, config, np.random.default_rng((seed, step, 2, n))).clamp_(0, 255)
        random = np.random.default_rng((seed, step, 3, n))  # apart: other crops stay what they are
        if random.random() < config.drawn:
            ground = crop[0].round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
            drawn = torch.from_numpy(drawn_crop(ground, random)).permute(2, 0, 1)[None]
            crop = drawn.to(crop)
        crops.append(crop)
    return torch.cat(crops).div_(255)


def _crop(pictures: Pictures, config: DataConfig, random: np.random.Generator) -> Tensor:
    """A crop `[1, 3, crop, crop]`, values about 0 ... 255, somewhere in some picture."""
    picture = pictures.tensors[int(random.integers(len(pictures.tensors)))]
    height, width = picture.shape[1:]
    low = max(config.min_scale, config.crop / min(height, width))
    scale = random.uniform(low, 1.0) if low < 1 else 1.0
    side = min(round(config.crop / scale), height, width)
    top = int(random.integers(height - side + 1))
    left = int(random.integers(width - side + 1))
    crop = picture[:, top : top + side, left : left + side].float()[None]
    if side != config.crop:
        size = (config.crop, config.crop)
        crop = functional.interpolate(crop, size, mode="bicubic", antialias=True)
    return crop.flip(3) if random.random() < 0.5 else crop


def lambdas(low: float, high: float, config: DataConfig, seed: int, step: int) -> Tensor:
    """Trade-offs of a step `[B]`, one from each of B strata of their distribution.

    Log-uniform in [low, knee] and, with a share of `above`, in [knee, high]. High trade-offs take
    more work, so every half of the batch, and half of it, gets as many of them as the other, as far
    as its size allows: several processes then need not wait for each other.
    """
    random = np.random.default_rng((seed, step, 1))
    bits = (config.batch - 1).bit_length()
    mirrored = [int(f"{i:0{bits}b}"[::-1], 2) if bits else 0 for i in range(1 << bits)]
    ranks = np.argsort(np.array(mirrored)[: config.batch] ^ int(random.integers(1 << bits)))
    strata = (np.argsort(ranks) + random.random(config.batch)) / config.batch
    knee, above = min(max(config.knee, low), high), config.above
    if not low < knee < high:
        above = 0.0
    points = [0.0, 1.0 - above, 1.0] if above else [0.0, 1.0]
    values = [low, knee, high] if above else [low, high]
    return torch.from_numpy(np.exp(np.interp(strata, points, np.log(values)))).float()


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy small host values without making the host wait for the device."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()
