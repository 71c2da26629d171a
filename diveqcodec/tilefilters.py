"""The filters that a tile is sent with: its decoding, or samples of it, beside the picture.

Neighbouring tiles are not known here; what blocks at a border share with them is missing, so a rim
is left out. That costs a little of what filters save and nothing else: decoders apply whatever is
sent. Knows nothing of files; FORMAT.md, "Filters", says what filters do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diveqcodec.container import filterfit, wiener
from diveqcodec.container.bitstream import Tile
from diveqcodec.container.filterfit import Sums
from diveqcodec.container.filters import Filters
from diveqcodec.container.pixelfile import area_of
from diveqcodec.image import Picture
from diveqcodec.model.candidates import GRID_BITS
from diveqcodec.model.dvq import STRIDE
from diveqcodec.quality import lambda_of
from diveqcodec.windows import Networks, with_halo

Pixels = NDArray[np.uint8]

_BAND: Final = 4 * STRIDE  # rows whose correlations are summed up at once
_SAMPLE: Final = 8  # positions of a side of a sample
_RIM: Final = STRIDE // 2  # pixels of its sides that blocks around it would overlap
_EVERY: Final = 256  # pixels from sample to sample, about: a fifth of all are seen


@dataclass(frozen=True, slots=True)
class Plan:
    """What is tried.

    Attributes:
        thresholds: Their numbers, for the first components.
        is_sampled: Samples of a tile are decoded, not all of it.
    """

    thresholds: tuple[tuple[int, ...], ...]
    is_sampled: bool


# From an effort up. Thresholds of 5 levels in brightness are best at all qualities, or nearly.
_PLANS: Final = {
    9: Plan(((4, 5, 6, 7, 8), (1, 2, 3, 4), (1, 2, 3, 4)), is_sampled=False),
    7: Plan(((6,), (2,), (3,)), is_sampled=False),
    3: Plan(((6,), (2,), (3,)), is_sampled=True),
}


@dataclass(frozen=True, slots=True)
class _Part:
    """Some decoded pixels with their halo, and what they should be.

    Attributes:
        decoded: uint8 `[h + 2 HALO, w + 2 HALO, 1 or 3]`.
        target: uint8 `[h, w, 1 or 3]`.
        seen: Bool `[h, w]`: pixels of the tile that transparency does not hide.
        area: Pixels of the tile.
    """

    decoded: Pixels
    target: Pixels
    seen: NDArray[np.bool_]
    area: int


class FilterSearch:
    """Finds filters for the tiles of one picture.

    Attributes:
        plan: What is tried; None is nothing.
        components: 3, or 1 of a grey picture.
        price: Bits that a squared error of one level in one of red, green and blue is worth.
    """

    def __init__(self, networks: Networks, picture: Picture, gain: int, effort: int) -> None:
        self.networks, self.picture, self.gain = networks, picture, gain
        self.plan = next((plan for least, plan in _PLANS.items() if effort >= least), None)
        self.components = picture.pixels.shape[2]
        # λ is the price of an error's mean over the colours.
        self.price = lambda_of(networks.model.config.scale.log_gain(gain)) / 3

    @torch.inference_mode()
    def run(self, tile: Tile, latent: Tensor) -> Filters:
        """The filters that pay.

        Args:
            tile: Where it lies in the picture.
            latent: Int `[h, w, C]`, in units of 2^-8 cells.
        """
        nothing: Filters = (None,) * self.components
        if self.plan is None:
            return nothing
        thresholds = self.plan.thresholds[: self.components]
        cells = latent.float() * 2.0**-GRID_BITS
        parts = self._samples(tile, cells) if self.plan.is_sampled else self._bands(tile, cells)
        totals: list[list[Sums]] = []
        area = 0
        for part in parts:
            window = wiener.BlockWindow.of(part.decoded)
            found = [
                [filterfit.sums(window, part.target, component, one, part.seen) for one in several]
                for component, several in enumerate(thresholds)
            ]
            totals = _added(totals, found) if totals else found
            area += part.area
        if not area:
            return nothing
        chosen = filterfit.best(totals, self.price, area / (tile.height * tile.width))
        return (*chosen, *nothing[len(chosen) :])

    def _bands(self, tile: Tile, cells: Tensor) -> Iterator[_Part]:
        """All of a tile but its rims at other tiles, some rows at once."""
        whole = self.networks.rounded(cells[None], self.gain, is_grey=self.components == 1)[0]
        height, width = whole.shape[:2]
        picture_height, picture_width = self.picture.pixels.shape[:2]
        top, left = STRIDE * (tile.y > 0), STRIDE * (tile.x > 0)
        bottom = height - STRIDE * (tile.y + tile.height < picture_height)
        right = width - STRIDE * (tile.x + tile.width < picture_width)
        for row in range(top, bottom, _BAND):
            rows = slice(row, min(row + _BAND, bottom))
            yield self._part(tile, whole, (0, 0), rows, slice(left, right))

    def _samples(self, tile: Tile, cells: Tensor) -> Iterator[_Part]:
        """Squares of a tile, evenly spread, each decoded alone."""
        (rows, row_rim), (columns, column_rim) = (_spread(n) for n in cells.shape[:2])
        corners = [(row, column) for row in rows for column in columns]
        latents = torch.stack([cells[y : y + _SAMPLE, x : x + _SAMPLE] for y, x in corners])
        decoded = self.networks.rounded(latents, self.gain, is_grey=self.components == 1)
        height, width = decoded.shape[1:3]
        inner = slice(row_rim, height - row_rim), slice(column_rim, width - column_rim)
        for whole, (y, x) in zip(decoded, corners, strict=True):
            yield self._part(tile, whole, (y * STRIDE, x * STRIDE), *inner)

    def _part(
        self, tile: Tile, whole: Pixels, corner: tuple[int, int], rows: slice, columns: slice
    ) -> _Part:
        """Some rows and columns of decoded pixels whose corner lies so far from the tile's."""
        top, left = corner[0] + rows.start, corner[1] + columns.start
        height = min(rows.stop - rows.start, tile.height - top)
        width = min(columns.stop - columns.start, tile.width - left)
        place = Tile(tile.x + left, tile.y + top, max(width, 0), max(height, 0))
        pixels, transparency = area_of(self.picture, place)
        shape = rows.stop - rows.start, columns.stop - columns.start
        target = np.zeros((*shape, self.components), np.uint8)
        target[: place.height, : place.width] = pixels
        seen = np.zeros(shape, np.bool_)
        seen[: place.height, : place.width] = True if transparency is None else transparency > 0
        return _Part(with_halo(whole, rows, columns), target, seen, place.height * place.width)


def _spread(length: int) -> tuple[list[int], int]:
    """Where samples begin in so many positions, and the pixels of their rims."""
    if length < _SAMPLE:
        return [0], 0
    count = max(1, round(length * STRIDE / _EVERY))
    return [round((i + 0.5) * length / count - _SAMPLE / 2) for i in range(count)], _RIM


def _added(totals: list[list[Sums]], found: list[list[Sums]]) -> list[list[Sums]]:
    return [
        [filterfit.added(one, other) for one, other in zip(*both, strict=True)]
        for both in zip(totals, found, strict=True)
    ]
