"""Rate-aware search: which codeword (or coarse + fine pair) a residual gets.

A group's residual r gets the symbols that minimise `|r - e|^2 + rate * bits(symbol | class)`, over
a few candidates: the null codeword and the nearest ones, and a lattice point behind the escape
symbol where the codebook ends. No gradients here; what soft gradients need is returned on request.

Knows codewords and bits as plain tensors: nothing of how they are learned or coded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor

from diveqcodec.model.candidates import Search
from diveqcodec.quality import RATE, rate_share

# Bits of a symbol that cannot be coded, and the least rate: times each other they are dearer than
# any distortion of a latent (2^36), by itself the rate changes no choice of a nearest codeword.
IMPOSSIBLE = 1e30
LEAST_RATE = 1e-12

# What a search tells of the soft assignment Q: nothing, how the rate changes with the residual, or
# that and how the value does.
Moments = Literal["none", "slope", "all"]

_SHARPNESS = 6.0  # of the soft assignment: 1 / (2 * cell^2 / 12)
# What costs more squared cells than this lies outside the codebook, and only there an escape is
# looked at: elsewhere it would be a waste that tables could learn. Inside, a codeword is at most
# .39 away (the radius of a hexagonal cell of area 1, squared), which leaves it 14 bits, and more
# where bits count for less.
_OUTSIDE = 2.0
_COARSE_CANDIDATES = 4
_BLOCK = 8192  # residuals looked at together: their candidates stay in a core's cache


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen for N groups; nothing here carries a gradient.

    `fine`, `coarse` int64 `[N]` symbols (K = escape); `*_point` `[N, d]` the escaped lattice points
    and `*_coordinates` `[N, d]` theirs (zero elsewhere); `raw_bits` `[N]` of the coordinates;
    `jacobian` `[N, d, d]` of E_Q[e] and `rate_slope` `[N, d]`, the gradient of E_Q[bits], if asked
    for.
    """

    fine: Tensor
    coarse: Tensor | None
    fine_point: Tensor
    fine_coordinates: Tensor
    coarse_point: Tensor
    coarse_coordinates: Tensor
    raw_bits: Tensor
    jacobian: Tensor | None
    rate_slope: Tensor | None

    @staticmethod
    def joined(parts: list[Choice]) -> Choice:
        """Choices one after another."""
        if len(parts) == 1:
            return parts[0]
        joined: dict[str, Any] = {}
        for entry in fields(Choice):
            values = [getattr(part, entry.name) for part in parts]
            joined[entry.name] = None if values[0] is None else torch.cat(values)
        return Choice(**joined)

    def put(self, places: Tensor, other: Choice) -> None:
        """Overwrite the choices of groups `places` `[M]` by those of `other`, made for M groups."""
        for entry in fields(self):
            mine, theirs = getattr(self, entry.name), getattr(other, entry.name)
            if mine is not None:
                mine.index_copy_(0, places, theirs)


@torch.no_grad()
def choose(
    search: Search,
    r: Tensor,
    rows: Tensor,
    table: Tensor,
    *,
    rate: float = RATE,
    moments: Moments = "none",
    whole: bool | None = None,
) -> Choice:
    """Choose codewords of one layer for residuals `r` `[N, d]`.

    Args:
        search: the codebook.
        r: residuals in cells, float32.
        rows: int64 `[N]`, row of the table.
        table: bits of every symbol, `[rows, K + 1]`.
        rate: multiplier of the bits; 0 assigns the nearest codeword.
        moments: what else to compute, see `Moments`.
        whole: look closely at all residuals instead of finding the few that matter, which saves
            work but would make the host wait for a device. By default, on CUDA.
    """
    count, dim = r.shape
    escape = search.words.shape[0]
    fine = rows.new_zeros(count)
    zero = r.new_zeros(count, dim)
    if r.is_cuda if whole is None else whole:
        active = torch.arange(count, device=r.device)
    else:
        active = search.may_leave_null(r, rows, table, rate).nonzero()[:, 0]
    part, part_rows = r[active], rows[active]
    blocks = part.split(len(part) or 1 if r.is_cuda else _BLOCK)
    blocks_of_rows = part_rows.split([len(block) for block in blocks])
    found = []
    for block, row in zip(blocks, blocks_of_rows, strict=True):
        candidates = search.neighbours(block)
        bits = _look_up(table, row, candidates)
        offsets = search.offsets(candidates, block)
        best, cost, *soft = _assign(offsets, bits, rate, moments)
        found.append((candidates.gather(0, best[None])[0], cost, *soft))
    chosen, best_cost, *soft = (torch.cat(values) for values in zip(*found, strict=True))
    taken, point, coordinates, raw = _consider_escape(
        search, part, part_rows, table, rate, best_cost
    )
    fine[active] = torch.where(taken, escape, chosen)
    jacobian = slope = None
    if soft:
        slope = zero.index_copy(0, active, _slope_of_escaped(soft[0], taken, part))
    if len(soft) > 1:
        jacobian = r.new_zeros(count, dim, dim)
        jacobian = jacobian.index_copy(0, active, _jacobian_of_escaped(soft[1], taken))
    return Choice(
        fine=fine,
        coarse=None,
        fine_point=zero.index_copy(0, active, point),
        fine_coordinates=zero.index_copy(0, active, coordinates),
        coarse_point=zero,
        coarse_coordinates=zero,
        raw_bits=r.new_zeros(count).index_copy(0, active, raw),
        jacobian=jacobian,
        rate_slope=slope,
    )


@torch.no_grad()
def choose_pair(
    searches: tuple[Search, Search],
    r: Tensor,
    rows: tuple[Tensor, Tensor],
    tables: tuple[Tensor, Tensor],
    *,
    rate: float = RATE,
    moments: Moments = "none",
    whole: bool | None = None,
) -> Choice:
    """Joint choice of (fine, coarse) codewords: a few coarse ones, each with its fine ones.

    Arguments as in `choose`, in pairs (fine, coarse).
    """
    whole = r.is_cuda if whole is None else whole
    if whole or rate < RATE / 2:  # where bits count for little, any pair may be the nearest sum
        return _choose_jointly(searches, r, rows, tables, rate, moments)
    wide = searches[1].may_leave_centre(r, rows[1], tables[1]).nonzero()[:, 0]
    choice = choose(searches[0], r, rows[0], tables[0], rate=rate, moments=moments, whole=False)
    still = torch.zeros_like(r)
    choice = replace(
        choice,
        coarse=torch.zeros_like(choice.fine),
        coarse_point=still,
        coarse_coordinates=still.clone(),
    )
    for places in wide.split(_BLOCK // _COARSE_CANDIDATES) if len(wide) else ():
        some = rows[0][places], rows[1][places]
        choice.put(places, _choose_jointly(searches, r[places], some, tables, rate, moments))
    return choice


def _choose_jointly(
    searches: tuple[Search, Search],
    r: Tensor,
    rows: tuple[Tensor, Tensor],
    tables: tuple[Tensor, Tensor],
    rate: float,
    moments: Moments,
) -> Choice:
    """`choose_pair` where a coarse codeword may be worth it."""
    fine, coarse = searches
    count = len(r)
    escape = coarse.words.shape[0]
    near = coarse.neighbours(r)  # [Mc, N]
    distance = _squares(coarse.offsets(near, r))
    distance.masked_fill_(near == 0, -1.0)  # keep the null codeword among the few
    few = distance.topk(min(_COARSE_CANDIDATES, len(near)), dim=0, largest=False).indices
    kc = near.gather(0, few)  # [m, N], nearest first but for null
    point = coarse.words[kc]  # [m, N, d]
    # Far outside the coarse codebook the farthest candidate makes room for a lattice point.
    far = (r - point[min(1, len(kc) - 1)]).square().sum(1) > _OUTSIDE * coarse.cell**2
    lattice, coordinates, raw = coarse.escape_point(r)
    kc[-1] = torch.where(far, escape, kc[-1])
    point[-1] = torch.where(far[:, None], lattice, point[-1])
    coarse_bits = _look_up(tables[1], rows[1], kc)
    coarse_bits[-1] += torch.where(far, raw, torch.zeros_like(raw))

    rest = (r - point).flatten(0, 1)  # [m * N, d]
    kf = fine.neighbours(rest)  # [M, m * N]
    bits = _look_up(tables[0], rows[0].repeat(len(kc)), kf) + coarse_bits.flatten()
    # Candidates are pairs now: M * m of them, the fine one varying slowest.
    pairs = len(kf) * len(kc), count
    offsets = [axis.view(pairs) for axis in fine.offsets(kf, rest)]
    best, best_cost, *soft = _assign(offsets, bits.view(pairs), rate, moments)
    which = best % len(kc)
    take = torch.arange(count, device=r.device)
    chosen = kc[which, take]
    left = r - point[which, take]
    spent = rate * coarse_bits[which, take]
    taken, fine_point, fine_coordinates, fine_raw = _consider_escape(
        fine, left, rows[0], tables[0], rate, best_cost - spent
    )
    gone = chosen == escape
    escaped = taken | gone
    symbols = kf.view(pairs).gather(0, best[None])[0]
    return Choice(
        fine=torch.where(taken, fine.words.shape[0], symbols),
        coarse=chosen,
        fine_point=fine_point,
        fine_coordinates=fine_coordinates,
        coarse_point=lattice * gone[:, None],
        coarse_coordinates=coordinates * gone[:, None],
        raw_bits=fine_raw + raw * gone,
        jacobian=_jacobian_of_escaped(soft[1], escaped) if len(soft) > 1 else None,
        rate_slope=_slope_of_escaped(soft[0], escaped, r) if soft else None,
    )


def skipping(table: Tensor, shapes: int) -> Tensor:
    """The table as coding sees it: groups of size class 0 cost nothing and can only be null.

    It takes a rate of at least `LEAST_RATE` to make the search heed it.
    """
    table = table.clone()
    table[:shapes] = IMPOSSIBLE
    table[:shapes, 0] = 0.0
    return table


def rate_in_files(rate: float, channel: int) -> float:
    """What `rate` is when a file's slice that begins at `channel` is coded: its share of it.

    With nearest assignment too, rate 0, the search heeds which groups can only be null.
    """
    return max(rate * rate_share(channel), LEAST_RATE)


def _look_up(table: Tensor, rows: Tensor, symbols: Tensor) -> Tensor:
    """Bits `[M, N]` of `symbols` `[M, N]` in rows `[N]` of the table."""
    return table.take(rows * table.shape[1] + symbols)


def _squares(offsets: list[Tensor]) -> Tensor:
    """Squared lengths `[M, N]` of vectors given axis by axis."""
    total = offsets[0].square()
    for axis in offsets[1:]:
        total.addcmul_(axis, axis)
    return total


def _assign(
    offsets: list[Tensor], bits: Tensor, rate: float, moments: Moments
) -> tuple[Tensor, ...]:
    """The best of M candidates for each of N residuals.

    Candidates vary slowest in memory, so that every operation runs along N.

    Args:
        offsets: error vector minus residual, axis by axis, d times `[M, N]`.
        bits: `[M, N]`.
        rate: multiplier of the bits.
        moments: of the soft assignment Q.

    Returns:
        number of the best candidate `[N]`, its cost `[N]`, and, if asked for, 12 Cov_Q[bits, e]
        `[N, d]`, and 12 Cov_Q[e, e] `[N, d, d]`.
    """
    cost = _squares(offsets).add_(bits, alpha=rate)
    best_cost, best = cost.min(0)
    if moments == "none":
        return best, best_cost
    q = torch.sub(best_cost, cost, out=cost).mul_(_SHARPNESS).exp_()
    q /= q.sum(0)
    centred = [axis.sub((q * axis).sum(0)).mul_(q) for axis in offsets]
    slope = torch.stack([(axis * bits).sum(0) for axis in centred], dim=1)
    slope *= 2 * _SHARPNESS
    if moments == "slope":
        return best, best_cost, slope
    covariance = torch.stack([(a * b).sum(0) for a in centred for b in offsets], dim=1)
    dim = len(offsets)
    return best, best_cost, slope, (2 * _SHARPNESS) * covariance.view(-1, dim, dim)


def _consider_escape(
    search: Search, r: Tensor, rows: Tensor, table: Tensor, rate: float, best: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where the escape beats the best codeword: bool, and its point, coordinates and raw bits."""
    point, coordinates, raw = search.escape_point(r)
    cost = (r - point).square().sum(1) + rate * (table[rows, -1] + raw)
    taken = (cost < best) & (best > _OUTSIDE * search.cell**2)
    return taken, point * taken[:, None], coordinates * taken[:, None], raw * taken


def _slope_of_escaped(slope: Tensor, escaped: Tensor, r: Tensor) -> Tensor:
    """The slope `[N, d]` of the rate where some residuals `r` `[N, d]` escaped, bool `[N]`.

    Each coordinate costs a bit more with every doubling, so bits rise by d / ln 2 when the residual
    grows by a factor of e: without that slope a mean that is far off would never find back.
    """
    far = r * (r.shape[1] / math.log(2)) / r.square().sum(1, keepdim=True).clamp_min(1.0)
    return torch.where(escaped[:, None], far, slope)


def _jacobian_of_escaped(jacobian: Tensor, escaped: Tensor) -> Tensor:
    """The Jacobian `[N, d, d]` where some residuals escaped: the identity, as on a fine lattice."""
    eye = torch.eye(jacobian.shape[1], device=jacobian.device)
    return torch.where(escaped[:, None, None], eye, jacobian)
