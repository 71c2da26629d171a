"""Photographs from a folder, in memory, and random crops and patches of them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diveqcodec.errors import DiveqError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".ppm"}


def look_into(folder: Path) -> None:
    """Refuses a folder without pictures, before hours are spent on the way to it.

    Raises:
        DiveqError: see above.
    """
    if not _paths(folder):
        raise DiveqError(f"{folder}: no pictures there; name another folder")


def _paths(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def _opened(path: Path) -> Image.Image:
    try:
        with Image.open(path) as opened:
            return opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DiveqError(f"{path}: cannot be read ({error}); leave it out of the folder") from None


@lru_cache(maxsize=4)
def load(folder: Path, count: int, side: int) -> tuple[Tensor, ...]:
    """Up to `count` pictures as uint8 `[3, H, W]`, chosen by a fixed permutation of sorted names.

    Each is reduced to half its size where both sides stay at least `side`, which removes most of
    what JPEG left; smaller pictures are left out.

    Raises:
        DiveqError: there are no pictures of that size, or one cannot be read.
    """
    paths = _paths(folder)
    order = np.random.default_rng(0).permutation(len(paths))
    pictures: list[Tensor] = []
    for index in order:
        if len(pictures) == count:
            break
        picture = _opened(paths[index])
        if min(picture.size) >= 2 * side:
            picture = picture.reduce(2)
        if min(picture.size) >= side:
            pictures.append(torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous())
    if not pictures:
        raise DiveqError(f"{folder}: no pictures of {side} pixels and more; name another folder")
    return tuple(pictures)


def crops(pictures: tuple[Tensor, ...], count: int, side: int, g: torch.Generator) -> Tensor:
    """Random crops in [0, 1], `[count, 3, side, side]`, half of them mirrored."""
    chosen = torch.randint(len(pictures), (count,), generator=g).tolist()
    result = torch.empty(count, 3, side, side)
    for row, index in enumerate(chosen):
        _, height, width = pictures[index].shape
        top = int(torch.randint(height - side + 1, (), generator=g))
        left = int(torch.randint(width - side + 1, (), generator=g))
        crop = pictures[index][:, top : top + side, left : left + side]
        result[row] = crop.flip(2) if int(torch.randint(2, (), generator=g)) else crop
    return result / 255


@lru_cache(maxsize=2)
def centres(folder: Path, side: int) -> Tensor:
    """The middle of every picture of the folder in full resolution, uint8 `[N, 3, side, side]`.

    Raises:
        DiveqError: no pictures there, or one is smaller, or cannot be read.
    """
    look_into(folder)
    result = []
    for path in _paths(folder):
        pixels = np.array(_opened(path))
        top, left = ((length - side) // 2 for length in pixels.shape[:2])
        if top < 0 or left < 0:
            raise DiveqError(f"{path}: smaller than {side}x{side}; leave it out of the folder")
        middle = pixels[top : top + side, left : left + side]
        result.append(torch.from_numpy(middle).permute(2, 0, 1))
    return torch.stack(result)


@lru_cache(maxsize=8)
def patches(folder: Path, dim: int, count: int, part: str) -> Tensor:
    """Luma patches `[count, dim]` without their means, at unit variance over all of them.

    `part` "train" and "test" draw from different pictures. Shapes: 1x2, 2x2, 2x4, 4x4, 4x8, 8x8.
    """
    width = 1 << ((dim.bit_length()) // 2)
    height = dim // width
    pictures = load(folder, 240, 64)
    half = len(pictures) * 3 // 4
    pictures = pictures[:half] if part == "train" else pictures[half:] or pictures
    g = torch.Generator().manual_seed(0 if part == "train" else 1)
    weights = torch.tensor([0.299, 0.587, 0.114])
    each = -(-count // len(pictures))
    rows = []
    for picture in pictures:
        luma = (picture.float() * weights[:, None, None]).sum(0)
        tops = torch.randint(luma.shape[0] - height + 1, (each,), generator=g)
        lefts = torch.randint(luma.shape[1] - width + 1, (each,), generator=g)
        down = tops[:, None, None] + torch.arange(height)[:, None]
        along = lefts[:, None, None] + torch.arange(width)
        rows.append(luma[down, along].reshape(each, dim))
    result = torch.cat(rows)
    result = result[torch.randperm(len(result), generator=g)[:count]]
    result = result - result.mean(1, keepdim=True) * (dim > 2) - result.mean() * (dim <= 2)
    return result / result.std()
