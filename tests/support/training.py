"""Files of drawn pictures and a look at operations, for the tests of training."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from diveqcodec.train.basis import cosine_basis

few_blocks = functools.partial(cosine_basis, blocks=1000)


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


class Operations(TorchDispatchMode):
    """Within this, every operation on tensors is looked at, those of backward passes too.

    `waits` are the names of those for which a host would wait for CUDA, because their result is a
    number or has a shape that depends on values. `made` is how many tensors were made of values of
    the host, which are copied to a device. `largest` is the largest result in bytes.
    """

    WAITING = (
        "_local_scalar_dense",
        "bincount",
        "equal",
        "is_nonzero",
        "masked_select",
        "nonzero",
        "unique",
        "_unique2",
        "repeat_interleave",
    )

    def __init__(self) -> None:
        super().__init__()
        self.count = self.made = self.largest = 0
        self.waits: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        name = func.overloadpacket.__name__
        masks = [
            leaf
            for leaf in tree_leaves(args[1:2])
            if isinstance(leaf, torch.Tensor) and leaf.dtype in (torch.bool, torch.uint8)
        ]
        if name in self.WAITING or (name.startswith(("index", "_index")) and masks):
            self.waits.append(name)
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.largest = max(self.largest, leaf.untyped_storage().nbytes())
        self.count += 1
        self.made += name == "lift_fresh"
        return result
