"""A codebook made ready for searching: which codewords may be the best one for a residual.

For groups of two a fine grid over the plane keeps the nearest codewords of each of its points, so
that a residual finds its candidates by rounding; other groups compare distances. Beyond the
codebook lies a lattice without end, which the escape symbol stands for.

Knows codewords as plain tensors: nothing of bits but the least they can be, nor of who chooses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diveqcodec.model.lattice import lattice_basis

GRID_BITS = 8
GRID = 1 << GRID_BITS  # means, codewords and escaped points are multiples of 1 / GRID cells
ESCAPE_LENGTHS = 25  # the length of an escaped coordinate is one of 0 ... 24 bits
CANDIDATES = 13  # codewords looked at for a residual: the null codeword and its nearest ones

_GRID_STEP = 0.25  # spacing of the grid on which neighbour lists are kept, in cells of the layer
# Of the way to the next coarse codeword: residuals that are closer to the null one have no need of
# it. Half of the way is the border of its cell; at .5 some files are .05 % longer, at .35 seven
# photographs take as many bytes as without this short cut or .03 % fewer (-q 20, 50 and 85).
_CENTRE = 0.35


@dataclass(frozen=True, slots=True)
class Search:
    """A codebook made ready for searching.

    Attributes:
        words: `[K, d]` in cells of the finest layer, row 0 the null codeword (zero).
        cell: side of a unit cell of this layer, in cells of the finest one.
        basis: `[d, d]`, rows, of the lattice behind the escape symbol, on the grid of codewords.
        unbasis: its inverse.
        lists: int64 `[M, side^2]`, the candidates of every point of a fine grid (d = 2).
        reach: norm of the shortest codeword but null.
    """

    words: Tensor
    cell: float
    basis: Tensor
    unbasis: Tensor
    lists: Tensor
    reach: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, words: Tensor, cell: float, lattice: Tensor | None = None) -> Search:
        """Build the neighbour lists of `words` `[K, d]`.

        `lattice`, int64 `[d, d]` in units of 1 / GRID cells, is `integer_basis` unless given.
        """
        words = words.detach().float()
        dim = words.shape[1]
        basis = (integer_basis(dim, cell) if lattice is None else lattice).double() / GRID
        norms = words[1:].norm(dim=1)
        lists = words.new_zeros(0, dtype=torch.int64)
        if dim == 2:
            half = math.ceil(float(norms.max()) / (cell * _GRID_STEP)) + 2
            axis = torch.arange(-half, half + 1, device=words.device) * (_GRID_STEP * cell)
            lists = nearest_lists(torch.cartesian_prod(axis, axis), words)
        return cls(
            words,
            cell,
            basis.float().to(words.device),
            torch.linalg.inv(basis).float().to(words.device),
            lists,
            norms.min(),
        )

    def moved(self, words: Tensor) -> Search:
        """The same lists with codewords that have moved a little since."""
        return replace(self, words=words.detach().float())

    def neighbours(self, r: Tensor) -> Tensor:
        """Candidates of residuals `r` `[N, d]`: int64 `[M, N]`, distinct, null among them."""
        if r.shape[1] != 2:
            return nearest_lists(r, self.words)
        side = math.isqrt(self.lists.shape[1])
        half = side // 2
        cells = (r * (1 / (self.cell * _GRID_STEP))).round().clamp(-half, half).long() + half
        return self.lists.index_select(1, cells[:, 0] * side + cells[:, 1])

    def offsets(self, candidates: Tensor, r: Tensor) -> list[Tensor]:
        """Codewords `[M, N]` minus residuals `r` `[N, d]`: `[M, N]` for each of the d axes."""
        return [self.words[:, i].take(candidates) - r[:, i] for i in range(r.shape[1])]

    def may_leave_null(self, r: Tensor, row: Tensor, table: Tensor, rate: float) -> Tensor:
        """False where the null codeword is the best choice for certain, also softly. bool `[N]`.

        A codeword at distance D >= reach gains at most 2|r|D - D^2 in distortion over the null
        codeword and costs at least the dearness of the cheapest other symbol.
        """
        dearness = (table[:, 1:].min(1).values - table[:, 0]) * rate
        length = r.norm(dim=1)
        gain = (2 * length - self.reach) * self.reach
        margin = self.cell**2  # a codeword dearer by this weighs e^-6 in the soft assignment
        maybe: Tensor = (length >= self.reach) | (gain > dearness[row] - margin)
        return maybe

    def may_leave_centre(self, r: Tensor, row: Tensor, table: Tensor) -> Tensor:
        """False where a coarse codeword but the null one can hardly help. bool `[N]`.

        That is well inside the null codeword's cell, where it is also the cheapest symbol.
        """
        cheaper = table[:, 1:].min(1).values < table[:, 0]
        maybe: Tensor = (r.norm(dim=1) > _CENTRE * self.reach) | cheaper[row]
        return maybe

    def escape_point(self, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Nearby lattice point for residuals `r` `[N, d]`, by rounding lattice coordinates.

        Returns:
            the point `[N, d]`, its integer coordinates as floats `[N, d]`, its raw bits `[N]`.
        """
        limit = float(2 ** (ESCAPE_LENGTHS - 2))
        coordinates = (r @ self.unbasis).round().clamp(-limit, limit)
        point = coordinates @ self.basis
        mantissa = torch.log2(coordinates.abs() * 2 + 1).floor().sum(1)
        return point, coordinates, mantissa + math.log2(ESCAPE_LENGTHS) * r.shape[1]


@torch.no_grad()
def nearest_lists(points: Tensor, words: Tensor) -> Tensor:
    """The null codeword and those nearest to points `[N, d]`: int64 `[M, N]`, distinct."""
    count = min(CANDIDATES, words.shape[0])
    lists = []
    for part in points.split(4096):
        distance = torch.cdist(part, words)
        distance[:, 0] = -1.0  # the null codeword first, whatever its distance
        lists.append(distance.topk(count, dim=1, largest=False, sorted=False).indices)
    return torch.cat(lists).T.contiguous()


def integer_basis(dim: int, cell: float) -> Tensor:
    """Rows of the escape lattice, int64 `[d, d]`, in units of 1 / GRID cells."""
    return (lattice_basis(dim) * (cell * GRID)).round().long()
