"""The codec's quantizer: rate-aware assignment of groups, and the gradients it is trained with.

A group's residual r = y - mean gets the codeword (or pair: coarse + fine) that minimises
`|r - e|^2 + rate * bits(symbol | class)`. The choice is hard. What bits do when a residual moves is
that of the same rule made soft,

    Q = softmax(-(|r - e|^2 + rate * bits) / (2 / 12)),

the gradient of E_Q[bits], which is 12 Cov_Q[bits, e]. How distortion reaches codewords and encoder
is a choice (`Gradient`): DiVeQ, or STE, or through the Jacobian 12 Cov_Q[e, e] of E_Q[e].

Knows nothing of slices, passes or bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from diveqcodec.model.codebook import Codebook
from diveqcodec.model.layers import returning_clamp
from diveqcodec.model.search import Choice, Moments, choose, choose_pair
from diveqcodec.quality import RATE
from diveqcodec.quantize.diveq import diveq_step, step_toward, with_value

Gradient = Literal["soft", "soft-diveq", "diveq", "ste"]


@dataclass(frozen=True, slots=True)
class Classes:
    """Predicted classes of N groups, real-valued: `size`, `shape` `[N]`; `coarse` `[N]` or None."""

    size: Tensor
    shape: Tensor
    coarse: Tensor | None


class RateAwareQuantizer(nn.Module):
    """Fine layer for every group, coarse layer for groups of wide range.

    `tables` below are `tables()` or, as coding sees them, `skipping` them: made once a forward
    pass and shared by all slices.
    """

    def __init__(self, fine: Codebook, coarse: Codebook | None) -> None:
        super().__init__()
        self.fine = fine
        self.coarse = coarse

    def refresh(self) -> None:
        """Rebuild the neighbour lists after the codebooks have moved."""
        self.fine.refresh()
        if self.coarse is not None:
            self.coarse.refresh()

    def choose(
        self,
        r: Tensor,
        classes: Classes,
        tables: tuple[Tensor, Tensor | None],
        *,
        rate: float = RATE,
        moments: Moments = "none",
    ) -> Choice:
        """Choose symbols for residuals `r` `[N, d]` of the given classes, perhaps with moments."""
        rows, coarse_rows = self.rows(classes)
        fine, r = self.fine.search(), r.detach().float()
        table = tables[0].detach()
        if coarse_rows is None or self.coarse is None or tables[1] is None:
            return choose(fine, r, rows, table, rate=rate, moments=moments)
        searches = fine, self.coarse.search()
        both = table, tables[1].detach()
        return choose_pair(searches, r, (rows, coarse_rows), both, rate=rate, moments=moments)

    def tables(self) -> tuple[Tensor, Tensor | None]:
        """Bits of every symbol in training, `[rows, K + 1]`, fine and coarse, differentiable."""
        return self.fine.bit_table(), None if self.coarse is None else self.coarse.bit_table()

    def words(self) -> tuple[Tensor, Tensor | None]:
        """Codewords of both layers, differentiable."""
        return self.fine.codewords(), None if self.coarse is None else self.coarse.codewords()

    def value(self, choice: Choice, words: tuple[Tensor, Tensor | None]) -> Tensor:
        """The chosen error vectors e `[N, d]`, with the gradient to the codewords `words`."""
        e = _with_escape(words[0], choice.fine, choice.fine_point)
        if choice.coarse is not None:
            assert words[1] is not None
            e = e + _with_escape(words[1], choice.coarse, choice.coarse_point)
        return e

    def bits(
        self, choice: Choice, classes: Classes, tables: tuple[Tensor, Tensor | None]
    ) -> Tensor:
        """Bits of every group `[N]`, with gradients to tables and (real) classes.

        Between neighbouring classes the bits are interpolated; coding rounds the class.
        """
        bits = _interpolated_bits(
            tables[0], classes.size, classes.shape, choice.fine, self.fine.sizes, self.fine.shapes
        )
        if choice.coarse is not None and self.coarse is not None:
            assert tables[1] is not None
            assert classes.coarse is not None
            middle = torch.zeros_like(classes.coarse)
            bits = bits + _interpolated_bits(
                tables[1], classes.coarse, middle, choice.coarse, self.coarse.sizes, 1
            )
        return bits + choice.raw_bits

    def rows(self, classes: Classes) -> tuple[Tensor, Tensor | None]:
        """Rounded classes as rows of the tables: fine and, if there, coarse, int64 `[N]`."""
        with torch.no_grad():
            size = classes.size.round().clamp(0, self.fine.sizes - 1).long()
            shape = (classes.shape.round().long() + self.fine.shapes // 2).clamp(
                0, self.fine.shapes - 1
            )
            fine = size * self.fine.shapes + shape
            if classes.coarse is None or self.coarse is None:
                return fine, None
            return fine, classes.coarse.round().clamp(0, self.coarse.sizes - 1).long()


def moments_for(gradient: Gradient, encoder: bool) -> Moments:
    """What a rule needs to know of the soft assignment, with or without an `encoder` to train."""
    return "all" if encoder and gradient in ("soft", "soft-diveq") else "slope"


def encoder_step(y: Tensor, y_hat: Tensor) -> Tensor:
    """Coded values `y_hat`, unchanged, with DiVeQ's gradient to `y`: rows of positions alike."""
    return diveq_step(y, y_hat.detach(), rho=1.0, noise="gradient")


def reconstruct(
    y: Tensor, mean: Tensor, e: Tensor, jacobian: Tensor | None, gradient: Gradient
) -> Tensor:
    """The quantized latent, value `mean + e` exactly, with the gradients of the chosen rule.

    Means hear of distortion only where a group is null. Where it is coded the choice follows the
    mean, so that what is left of the distortion's gradient is noise, which is large at high rates
    and drives means away (models/EXPERIMENTS.md); there they hear of the rate alone.

    Args:
        y: latent of a slice, `[M, G, d]` for M positions of G groups, with or without a gradient.
        mean: predicted means, same shape.
        e: chosen error vectors with gradient to their codewords, same shape.
        jacobian: of the soft assignment, `[M, G, d, d]`; needed for the soft rules.
        gradient: "diveq": encoder and codewords share it as published, jointly over the slice at a
            position, noise in the gradient only; "ste": the encoder gets the whole gradient,
            codewords DiVeQ's part of it; "soft": the encoder through the soft assignment, codewords
            by the true gradient; "soft-diveq": the same, but codewords get DiVeQ's part.
    """
    still = mean.detach()
    value = still + e.detach()
    is_null = (e.detach() == 0).all(-1, keepdim=True)
    parts = [torch.where(is_null, mean, still)]
    if gradient == "soft":
        parts.append(e)
    else:
        ends = y.detach().flatten(1), (still + e).flatten(1)
        step = step_toward(*ends, rho=1.0, noise="gradient", sigma=None, generator=None)
        parts.append(step.view_as(y))
    if not y.requires_grad:
        pass
    elif gradient == "diveq":
        parts.append(encoder_step(y.flatten(1), value.flatten(1)).view_as(y))
    elif gradient == "ste":
        parts.append(y)
    else:
        assert jacobian is not None
        parts.append(torch.einsum("mgij,mgj->mgi", jacobian, y))
    return with_value(torch.stack(parts).sum(0), value)


def clamp_classes(classes: Tensor, sizes: int) -> Tensor:
    """Keep real size classes inside the table, letting gradients lead back."""
    return returning_clamp(classes, 0.0, float(sizes - 1))


def _with_escape(
    words: Tensor, symbols: Tensor, point: Tensor, whole: bool | None = None
) -> Tensor:
    """Codewords of `symbols`; the escape symbol stands for a zero row plus its lattice point.

    `whole` looks at all of them, see `choose`.
    """
    padded = torch.cat([words, words.new_zeros(1, words.shape[1])])
    if symbols.is_cuda if whole is None else whole:
        return nn.functional.embedding(symbols, padded) + point
    places = symbols.nonzero()[:, 0]  # few are not null
    return point.index_add(0, places, nn.functional.embedding(symbols[places], padded))


def _interpolated_bits(
    table: Tensor, size: Tensor, shape: Tensor, symbols: Tensor, sizes: int, shapes: int
) -> Tensor:
    """Bilinear look-up of `table` `[T * A, K + 1]` at real classes; gradients to all of them."""
    low = size.detach().floor().clamp(0, sizes - 2)
    part = size - low
    flat, width = table.flatten(), table.shape[1]
    corner = low.long() * shapes

    def at(row: Tensor) -> Tensor:
        index = (row * width + symbols).detach()
        return flat.index_select(0, index)

    if shapes == 1:
        return torch.lerp(at(corner), at(corner + 1), part)
    side = (shape + shapes // 2).clamp(0, shapes - 1)
    left = side.detach().floor().clamp(max=shapes - 2)
    tilt = side - left
    corner = corner + left.long()
    upper = torch.lerp(at(corner), at(corner + 1), tilt)
    lower = torch.lerp(at(corner + shapes), at(corner + shapes + 1), tilt)
    return torch.lerp(upper, lower, part)
