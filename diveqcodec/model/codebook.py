"""One codebook of the codec with its frequency tables: codewords, neighbours, bits, escape.

K codewords in d dimensions, codeword 0 pinned at the origin (the null codeword), and one table of
K + 1 symbols for every class; symbol K is the escape, after which the coordinates of a lattice
point follow, so that no residual is ever clipped. A class is a pair (size, shape): size grows with
the log of the standard deviation, shape is the anisotropy between the two halves of a group. Size 0
means "skipped": the group costs nothing and is the null codeword.

Knows nothing of images, of how classes are predicted, or of bytes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from diveqcodec.errors import ConfigError
from diveqcodec.model.candidates import Search
from diveqcodec.model.config import SIGMA_MIN, SIGMA_RANGE, Kind
from diveqcodec.model.lattice import lattice_points
from diveqcodec.quantize.sf_diveq import expand

_FLOOR = 2.0**-22  # training never lets a symbol become dearer than this probability


class Codebook(nn.Module):
    """A codebook, learned, with the logits of its tables, learned too.

    Args:
        size: K, codewords in coding (the null codeword included).
        dim: d, 2 or 4.
        cell: side of a unit cell of this layer, in cells of the finest layer.
        sizes: size classes T.
        shapes: shape classes A, odd.
        kind: "sf-diveq" learns the corners of a polyline of which the codewords are points;
            "scalar" rounds every coordinate for itself and learns tables only.
        steps: SF-DiVeQ: grid steps L of a segment.
    """

    def __init__(
        self,
        *,
        size: int,
        dim: int,
        cell: float,
        sizes: int,
        shapes: int,
        kind: Kind = "diveq",
        steps: int = 4,
    ) -> None:
        super().__init__()
        self.dim, self.cell, self.sizes, self.shapes = dim, cell, sizes, shapes
        self.kind, self.steps = kind, steps
        if kind == "sf-diveq":
            corners = (size - 2) // steps + 1
            if corners < 2:
                raise ConfigError(f"a curve of {size} points in steps of {steps}: use more points")
            self.unit = nn.Parameter(_snake((corners - 1) * steps + 1, dim)[::steps].clone())
            size = 1 + (corners - 1) * steps + 1
        elif kind == "scalar":
            self.unit = nn.Parameter(_grid(size, dim)[1:], requires_grad=False)
        else:
            self.unit = nn.Parameter(lattice_points(dim, size)[1:].clone())
        self.size = size
        with torch.no_grad():
            self.logits = nn.Parameter(initial_logits(self.codewords() / cell, sizes, shapes))
        self.refresh()

    def codewords(self) -> Tensor:
        """All codewords, `[K, d]` in cells of the finest layer, differentiable; row 0 is zero."""
        points = expand(self.unit, self.steps) if self.kind == "sf-diveq" else self.unit
        return torch.cat([points.new_zeros(1, self.dim), points * self.cell])

    def bit_table(self) -> Tensor:
        """Bits of every symbol in every class, `[T * A, K + 1]`, differentiable."""
        p = self.logits.float().flatten(0, 1).softmax(1)
        return -torch.log2(p + _FLOOR)

    def refresh(self, words: Tensor | None = None) -> None:
        """Rebuild the neighbour lists; call it when the codebook has moved.

        `words` are codewords of another moment, `built.words` of then: to resume exactly.
        """
        self.built = Search.of(self.codewords() if words is None else words, self.cell)

    def search(self) -> Search:
        """The codebook as it is now, made ready for searching."""
        return self.built.moved(self.codewords())


def size_class(sigma: Tensor, sizes: int) -> Tensor:
    """The real-valued size class of a standard deviation in cells of the layer."""
    return (sizes - 1) * torch.log(sigma / SIGMA_MIN) / math.log(SIGMA_RANGE)


def class_sigmas(sizes: int) -> Tensor:
    """Standard deviation of every size class, in cells, `[T]`."""
    return SIGMA_MIN * SIGMA_RANGE ** (torch.arange(sizes) / (sizes - 1))


def initial_logits(codewords: Tensor, sizes: int, shapes: int) -> Tensor:
    """Tables of Gaussians of every class over the cells of `codewords`: logits `[T, A, K + 1]`.

    Drawn rather than integrated: counts of nearest codewords of a fixed sample, with the density of
    a wider Gaussian as the tail, so that no symbol starts impossible.
    """
    count, dim = codewords.shape
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(8192, dim, generator=generator)
    logits = torch.empty(sizes, shapes, count + 1)
    half = torch.arange(dim) < dim // 2
    span = codewords.norm(dim=1).max() + 0.6  # and the radius of a cell
    for t, sigma in enumerate(class_sigmas(sizes).tolist()):
        for a in range(shapes):
            octaves = (a - (shapes - 1) / 2) / 2
            spread = torch.where(half, 2.0**octaves, 2.0**-octaves) * sigma
            drawn = sample * spread
            inside = drawn.norm(dim=1) < span
            best = torch.cdist(drawn[inside], codewords).min(1).indices
            mass = torch.bincount(best, minlength=count).float() / len(drawn)
            wide = 2 * spread + 0.5
            tail = torch.exp(-0.5 * (codewords / wide).square().sum(1)) + 1e-6
            p = 0.998 * mass + 0.002 * tail / tail.sum()
            escape = max(float((~inside).float().mean()), 1e-6)
            logits[t, a] = torch.cat([p * (1 - escape), torch.tensor([escape])]).log()
    return logits


def _grid(count: int, dim: int) -> Tensor:
    """The `count` points of whole coordinates nearest to the origin, which is the first."""
    side = math.ceil(count ** (1 / dim))
    axis = torch.arange(-side, side + 1)
    points = torch.cartesian_prod(*[axis] * dim)
    return points[points.square().sum(1).argsort(stable=True)[:count]].float()


def _snake(count: int, dim: int) -> Tensor:
    """`count` points of a lattice-like walk round the origin: a curve that fills the plane evenly.

    In two dimensions rows of a hexagonal patch walked to and fro; in more, the lattice points
    sorted by angle within shells of growing norm.
    """
    points = lattice_points(dim, count)
    if dim != 2:
        key = points.norm(dim=1) * 1e3 + torch.atan2(points[:, 1], points[:, 0])
        return points[key.argsort()]
    rows = torch.round(points[:, 1] / points[:, 1].abs()[points[:, 1].abs() > 0.1].min()).long()
    walk = []
    for number, row in enumerate(sorted(set(rows.tolist()))):
        line = points[rows == row]
        order = line[:, 0].argsort(descending=bool(number % 2))
        walk.append(line[order])
    return torch.cat(walk)
