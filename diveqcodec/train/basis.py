"""The linear transform that training starts from: cosines of lapped blocks times colour axes.

A two-dimensional DCT, not principal components: natural pictures vary about as much along rows as
along columns, so that components of equal variance come out as arbitrary mixtures of both, which is
as good for a Gaussian and much worse for edges (models/EXPERIMENTS.md).

Knows pictures and the lapping; nothing of models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diveqcodec.model.transform import SIDE, cosines, prefilter
from diveqcodec.train.data import Pictures

Component = tuple[int, int, int]  # colour axis, vertical and horizontal frequency

_CHUNK = 4096  # blocks that are looked at together


@dataclass(frozen=True, slots=True)
class Start:
    """What a linear transform starts from.

    `mean` colour `[3]` in [-1, 1]; `axes` `[3, 3]`, rows, of colour; `order` int64 `[C]` of the
    components, numbered 256 a + 16 k + m; `sigma` `[C]`, their deviations.
    """

    mean: Tensor
    axes: Tensor
    order: Tensor
    sigma: Tensor


def cosine_basis(
    pictures: Pictures, channels: int, group: int, seed: int, *, blocks: int = 60000
) -> Start:
    """The transform, its components ordered by how much they vary in `pictures`, in groups.

    Args:
        pictures: whose colours and variances decide axes and order.
        channels: how many components, at most 768.
        group: components that are quantized together, see `groups`.
        seed: of the choice of blocks.
        blocks: about how many are looked at.
    """
    mean, axes, deviation = _statistics(pictures, seed, blocks)
    order = [c for members in groups(deviation, group) for c in members][:channels]
    sigma = torch.stack([deviation[c] for c in order]).clamp_min(1e-5)
    numbers = torch.tensor([(a * SIDE + k) * SIDE + m for a, k, m in order])
    return Start(mean.float(), axes.float(), numbers, sigma.float())


def groups(deviation: Tensor, size: int) -> list[tuple[Component, ...]]:
    """All components in groups of `size`, ordered by their mean log `deviation` `[3, 16, 16]`.

    A group shares one class, the logarithm of a deviation, so its members should be large at the
    same places: neighbours in frequency *along the direction in which they vary most*, (k, m) and
    (k + 1, m) for k > m. Mirrored pairs (k, m), (m, k), though of equal variance over all pictures,
    are the worst choice: at an edge one is large where the other is zero.
    """
    found: list[tuple[Component, ...]] = []
    left: list[Component] = []
    for axis in range(3):
        for low in range(SIDE):
            high = range(low + 1, SIDE)
            _cut([(axis, k, low) for k in high], size, found, left)
            _cut([(axis, low, k) for k in high], size, found, left)
        _cut([(axis, k, k) for k in range(SIDE)], size, found, left)
    left.sort(key=lambda c: (c[0], c[1] < c[2]))  # what varies in one direction together
    _cut(left, size, found, [])
    log = deviation.clamp_min(1e-9).log()
    return sorted(found, key=lambda members: -sum(float(log[c]) for c in members) / size)


def _cut(
    run: list[Component], size: int, found: list[tuple[Component, ...]], left: list[Component]
) -> None:
    """Cut `run` into groups of `size`, added to `found`; what is left of it goes to `left`."""
    whole = len(run) // size * size
    found += [tuple(run[i : i + size]) for i in range(0, whole, size)]
    left += run[whole:]


def _statistics(pictures: Pictures, seed: int, blocks: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean colour `[3]`, principal colour axes `[3, 3]` (rows), deviations `[3, 16, 16]`."""
    random = np.random.default_rng((seed, 2))
    wanted = math.ceil(blocks / len(pictures.tensors))
    side = 2 * SIDE  # half a block more around, which the lapping mixes in
    lapping = torch.block_diag(prefilter(), prefilter())[SIDE // 2 : -SIDE // 2].float()
    cosine = cosines().float()
    total, square = torch.zeros(3).double(), torch.zeros(3, 3).double()
    # Second moments of the components for every pair of colours: turned to the axes at the end.
    moments = torch.zeros(3, 3, SIDE, SIDE).double()
    means = torch.zeros(3, SIDE, SIDE).double()
    count = 0
    for picture in pictures.tensors:
        height, width = picture.shape[1:]
        if min(height, width) < side:
            continue
        each = min(wanted, height * width // 16)
        count += each
        i = torch.from_numpy(random.integers(height - side + 1, size=each)).to(picture.device)
        j = torch.from_numpy(random.integers(width - side + 1, size=each)).to(picture.device)
        windows = picture.unfold(1, side, 1).unfold(2, side, 1)  # [3, ..., ..., side, side], a view
        for rows, columns in zip(i.split(_CHUNK), j.split(_CHUNK), strict=True):
            x = windows[:, rows, columns].transpose(0, 1).cpu().float() / 127.5 - 1
            colours = x.transpose(0, 1).flatten(1).double()
            total += colours.sum(1)
            square += colours @ colours.T
            y = cosine @ (lapping @ x @ lapping.T) @ cosine.T
            moments += torch.einsum("naij,nbij->abij", y, y).double()
            means += y.sum(0).double()
    pixels = count * side * side
    mean = total / pixels
    covariance = square / pixels - torch.outer(mean, mean)
    axes = torch.linalg.eigh(covariance).eigenvectors.flip(1).T
    axes = axes * torch.where(axes.sum(1, keepdim=True) < 0, -1.0, 1.0)
    middle = torch.zeros(3, SIDE, SIDE).double()  # what a picture of the mean colour gives
    middle[:, 0, 0] = mean * SIDE
    centred = (
        moments / count
        - torch.einsum("aij,bij->abij", means / count, middle)
        - torch.einsum("aij,bij->abij", middle, means / count)
        + torch.einsum("aij,bij->abij", middle, middle)
    )
    variance = torch.einsum("ca,cb,abij->cij", axes, axes, centred)
    return mean, axes, variance.clamp_min(0).sqrt()
