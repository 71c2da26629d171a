"""Which positions of a slice are coded together, and which neighbours each of them sees.

A slice is coded in passes. Two are enough where earlier slices say what is around: a checkerboard.
The first slices, which know little else, go from coarse to fine: a grid of every 2^L-th position
without any context, then, for d = 2^(L-1) ... 1, the centres of its squares and the middles of
their sides, so that all but a few positions are predicted from all around:

    L = 1:   0 2 0 2      0: no context
             2 1 2 1      1: sees 0 (diagonally, up to three steps)
             0 2 0 2      2: sees 0 and 1
             2 1 2 1

Knows the shape of a grid only. The order is part of the format (FORMAT.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

_DIAGONAL = (-3, -1, 1, 3)


@dataclass(frozen=True, slots=True)
class Pass:
    """Positions coded together, numbered in raster order.

    `places` int64 `[M]`, ascending; `neighbours` int64 `[M, T]`, the positions that each of them
    sees in its own slice, all coded before; one outside of the grid has the number h * w.
    """

    places: Tensor
    neighbours: Tensor


def taps_of(levels: int, radius: int) -> list[int]:
    """How many neighbours the positions of every pass see; the first pass has none."""
    return [0, *(len(_taps(kind, radius)) for _, kind in _steps(levels))]


@lru_cache(maxsize=256)
@torch.inference_mode(False)  # what is kept may be needed where gradients are
def passes_of(
    height: int, width: int, levels: int, radius: int, device: torch.device
) -> tuple[Pass, ...]:
    """The passes of a slice on a grid, some of which may have no position.

    Args:
        height: rows of the grid.
        width: its columns.
        levels: L above; 0 is a checkerboard.
        radius: of the window of the checkerboard, and of the middles of sides, in steps.
        device: of the tensors.
    """
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
    if levels:
        spacing = 1 << levels
        first = (rows % spacing == 0) & (columns % spacing == 0)
    else:
        first = (rows + columns) % 2 == 0
    places = first.flatten().nonzero()[:, 0]
    passes = [Pass(places.to(device), places.new_zeros(len(places), 0).to(device))]
    for step, kind in _steps(levels):
        if kind == "centres":
            chosen = (rows % (2 * step) == step) & (columns % (2 * step) == step)
        else:
            chosen = (rows % step == 0) & (columns % step == 0)
            chosen = chosen & ((rows + columns) // step % 2 == 1)
        places = chosen.flatten().nonzero()[:, 0]
        taps = torch.tensor(_taps(kind, radius)) * step  # [T, 2]
        row = (places // width)[:, None] + taps[:, 0]
        column = (places % width)[:, None] + taps[:, 1]
        outside = (row < 0) | (row >= height) | (column < 0) | (column >= width)
        neighbours = (row * width + column).masked_fill(outside, height * width)
        passes.append(Pass(places.to(device), neighbours.to(device)))
    return tuple(passes)


@dataclass(frozen=True, slots=True)
class Order:
    """The order in which the positions of a batch are coded.

    `passes` number positions of all pictures, one picture after another; `places` int64 `[N]` are
    all of theirs one pass after another, and `inverse` says where in it every position stands.
    """

    passes: tuple[Pass, ...]
    places: Tensor
    inverse: Tensor


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def order_of_batch(
    height: int, width: int, levels: int, radius: int, batch: int, device: torch.device
) -> Order:
    """`passes_of` a grid for `batch` pictures together; a neighbour outside has the number N."""
    positions = height * width
    start = torch.arange(batch, device=device)[:, None] * positions
    passes = []
    for one in passes_of(height, width, levels, radius, device):
        neighbours = start[:, :, None] + one.neighbours
        neighbours = neighbours.masked_fill(one.neighbours == positions, batch * positions)
        passes.append(Pass((start + one.places).flatten(), neighbours.flatten(0, 1)))
    places = torch.cat([one.places for one in passes])
    return Order(tuple(passes), places, places.argsort())


def _steps(levels: int) -> list[tuple[int, str]]:
    """(distance d, kind) of all passes but the first."""
    if not levels:
        return [(1, "sides")]
    return [(1 << k, kind) for k in reversed(range(levels)) for kind in ("centres", "sides")]


def _taps(kind: str, radius: int) -> list[tuple[int, int]]:
    """Row and column offsets in raster order, in units of the distance d."""
    if kind == "centres":
        return [(i, j) for i in _DIAGONAL for j in _DIAGONAL]
    span = range(-radius, radius + 1)
    return [(i, j) for i in span for j in span if (i + j) % 2]
