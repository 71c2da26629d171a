"""The densest lattices of 2 and 4 dimensions, as starting points of codebooks.

Gives the first K points of A2 (hexagonal, 2-D) and D4 (checkerboard, 4-D) around the origin, scaled
so that the Voronoi cell has volume 1. The order is fixed by integer arithmetic alone and the
coordinates by correctly rounded operations, so every machine gets the same bits. It knows nothing
of codebooks that are learned, of rates, or of the escape symbol.

Source: Conway & Sloane, Sphere Packings, Lattices and Groups, chapter 4, sections 6.2 and 7.2.
"""

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from diveqcodec.errors import ConfigError


class _Lattice(NamedTuple):
    basis: tuple[tuple[float, ...], ...]  # rows, before the scaling to unit cell
    gram: tuple[tuple[int, ...], ...]  # twice the inner products of the rows: integers
    scale: float  # makes the cell volume 1
    spread: float  # max |coordinate| over the length of an unscaled point; from the inverse basis


# sqrt only (correctly rounded by IEEE 754), never pow, so that no libm decides the last bit.
_LATTICES = {
    2: _Lattice(
        basis=((1.0, 0.0), (0.5, math.sqrt(3.0) / 2.0)),
        gram=((2, 1), (1, 2)),
        scale=math.sqrt(2.0 / math.sqrt(3.0)),
        spread=math.sqrt(4.0 / 3.0),
    ),
    4: _Lattice(  # a central root and three mutually orthogonal ones: the diagram of D4
        basis=(
            (1.0, -1.0, 0.0, 0.0),
            (0.0, 1.0, -1.0, 0.0),
            (0.0, 0.0, 1.0, -1.0),
            (0.0, 0.0, 1.0, 1.0),
        ),
        gram=((4, -2, 0, 0), (-2, 4, -2, -2), (0, -2, 4, 0), (0, -2, 0, 4)),
        scale=math.sqrt(math.sqrt(0.5)),
        spread=math.sqrt(2.0),
    ),
}


def lattice_points(dim: int, count: int) -> Tensor:
    """The first `count` points of the densest lattice of `dim` dimensions; point 0 is the origin.

    Returns:
        float32 `[count, dim]`, Voronoi cell of volume 1 (A2: neighbours at 1.0746; D4: at 1.1892).

    Raises:
        ConfigError: `dim` is neither 2 nor 4, or `count` is below 1.
    """
    lattice = _lattice(dim)
    coordinates = lattice_coordinates(dim, count).double()
    # Column by column and term by term: a matmul may fuse or reorder its sums.
    columns = []
    for axis in range(dim):
        column = torch.zeros(count, dtype=torch.float64)
        for row in range(dim):
            column = column + coordinates[:, row] * lattice.basis[row][axis]
        columns.append(column * lattice.scale)
    return torch.stack(columns, dim=1).float()


def lattice_coordinates(dim: int, count: int) -> Tensor:
    """Integer coordinates of `lattice_points`: `points = coordinates @ lattice_basis(dim)`.

    Ordered by norm; within a shell in pairs of a point and its negative (the one with the greater
    coordinates, lexicographically, first; pairs in descending order), so that a shell cut short
    stays centred on the origin to within one point.

    >>> lattice_coordinates(2, 7).tolist()
    [[0, 0], [1, 0], [-1, 0], [1, -1], [-1, 1], [0, 1], [0, -1]]

    Returns:
        int64 `[count, dim]`.

    Raises:
        ConfigError: `dim` is neither 2 nor 4, or `count` is below 1.
    """
    lattice = _lattice(dim)
    if count < 1:
        raise ConfigError(f"lattice of {count} points: ask for at least 1")
    # A ball of volume V holds about V points of a unit cell; grow it until it holds enough.
    radius = 1.0
    while True:
        radius *= 1.25
        points = _points_within(lattice, dim, radius)
        if len(points) >= count:
            break
    points.sort(key=lambda p: _shell_key(lattice, p))
    return torch.tensor(points[:count], dtype=torch.int64)


def lattice_basis(dim: int) -> Tensor:
    """Rows that generate the lattice, scaled to a unit cell.

    Returns:
        float64 `[dim, dim]`, determinant of magnitude 1.

    Raises:
        ConfigError: `dim` is neither 2 nor 4.
    """
    lattice = _lattice(dim)
    return torch.tensor(lattice.basis, dtype=torch.float64) * lattice.scale


def _lattice(dim: int) -> _Lattice:
    if dim not in _LATTICES:
        raise ConfigError(f"no lattice of {dim} dimensions: use 2 (A2) or 4 (D4)")
    return _LATTICES[dim]


def _points_within(lattice: _Lattice, dim: int, radius: float) -> list[tuple[int, ...]]:
    """Every lattice point of length up to `radius` (in units of the unit-cell lattice)."""
    length = radius / lattice.scale
    bound = math.ceil(length * lattice.spread)
    limit = math.floor(2.0 * length * length)  # of the doubled integer norm
    span = range(-bound, bound + 1)
    return [p for p in itertools.product(span, repeat=dim) if _norm(lattice, p) <= limit]


def _norm(lattice: _Lattice, point: tuple[int, ...]) -> int:
    """Twice the squared length of an unscaled point, exactly."""
    return sum(a * b * lattice.gram[i][j] for i, a in enumerate(point) for j, b in enumerate(point))


def _shell_key(
    lattice: _Lattice, point: tuple[int, ...]
) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    negative = tuple(-a for a in point)
    leader = max(point, negative)
    return _norm(lattice, point), tuple(-a for a in leader), tuple(-a for a in point)
