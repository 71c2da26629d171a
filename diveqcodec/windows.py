"""The float networks, run tile by tile: pixels -> latent of a tile, latents -> pixels of a tile.

They see a window around a tile that reaches as far as they look, so that tiles leave no seams.
A window ends where its region of tiles ends (see `diveqcodec.container.regions`): networks see a
region as a picture of its own. Knows nothing of symbols, bytes or files.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diveqcodec.container import alpha, wiener
from diveqcodec.container.bitstream import Tile
from diveqcodec.container.filters import Filters
from diveqcodec.container.wiener import HALO
from diveqcodec.exact.tile import TileSource
from diveqcodec.exact.weights import CodingModel
from diveqcodec.image import Picture
from diveqcodec.model.dvq import STRIDE, pad_to

Box = tuple[int, int, int, int]  # top, left, bottom, right, in positions


@dataclass(frozen=True, slots=True)
class Window:
    """A tile in units of positions, and the window around it that the networks see."""

    top: int
    left: int
    height: int
    width: int
    outer: Box

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the tile."""
        return self.height, self.width

    @property
    def inner(self) -> tuple[slice, slice]:
        """Where the tile lies in its window."""
        top, left = self.top - self.outer[0], self.left - self.outer[1]
        return slice(top, top + self.height), slice(left, left + self.width)

    @property
    def inner_pixels(self) -> tuple[slice, slice]:
        """The same in pixels."""
        rows, columns = (slice(s.start * STRIDE, s.stop * STRIDE) for s in self.inner)
        return rows, columns

    @property
    def pixels(self) -> Tile:
        """The window in pixels; at the picture's end it may reach beyond."""
        top, left, bottom, right = (side * STRIDE for side in self.outer)
        return Tile(left, top, right - left, bottom - top)


class Networks:
    """Analysis and synthesis of one model, on its device, in the precision that they are to run.

    Args:
        model: Of a codec.
        dtype: Of what is not exact.
        has_mirror: Whether they are averaged over a picture and its mirror image.
    """

    def __init__(self, model: CodingModel, dtype: torch.dtype, has_mirror: bool = False) -> None:
        self.model, self.device, self.dtype = model, model.device, dtype
        self.has_mirror = has_mirror
        self.margin = -(-(model.transforms.reach + HALO) // STRIDE)

    def window(self, tile: Tile, region: Tile) -> Window:
        """The window around a tile within its region; both in pixels."""
        top, left, bottom, right = positions_of(tile)
        first_row, first_column, last_row, last_column = positions_of(region)
        margin = self.margin
        outer = (
            max(first_row, top - margin),
            max(first_column, left - margin),
            min(last_row, bottom + margin),
            min(last_column, right + margin),
        )
        return Window(top, left, bottom - top, right - left, outer)

    def source(self, picture: Picture, window: Window, gain: int, rate: float) -> TileSource:
        """Run the analysis for a tile."""
        rows, columns = window.inner
        return source_of(self.analysed(picture, window, gain)[:, :, rows, columns], rate)

    def analysed(self, picture: Picture, window: Window, gain: int) -> Tensor:
        """The latent of a whole window, in cells `[1, C, h, w]`, on the networks' device."""
        x = torch.from_numpy(seen_pixels(picture, window)).to(self.device)
        x = x.permute(2, 0, 1)[None].float() / 255
        x = pad_to(x.expand(1, 3, -1, -1), STRIDE).contiguous(memory_format=torch.channels_last)
        with self._autocast():
            return self.model.transforms.encode_latent(x, self._log_gain(gain), self.has_mirror)

    def pixels(
        self,
        latent: Tensor,
        window: Window,
        gain: int,
        *,
        is_grey: bool,
        filters: Filters | None = None,
    ) -> NDArray[np.uint8]:
        """Run synthesis for a tile.

        Args:
            latent: Of the window, in cells, float32 `[h, w, C]`.
            window: The tile and where it lies in the window.
            gain: The gain index.
            is_grey: One channel, the mean of the three, instead of them.
            filters: What is done to the tile's pixels at last.

        Returns:
            uint8 `[16 h, 16 w, 1 or 3]` of the tile: at the picture's end it may reach beyond.
        """
        whole: NDArray[np.uint8] = self.rounded(latent[None], gain, is_grey=is_grey)[0]
        rows, columns = window.inner_pixels
        if filters is None or all(one is None for one in filters):
            return whole[rows, columns]
        return wiener.filtered(with_halo(whole, rows, columns), filters)

    def rounded(self, latents: Tensor, gain: int, *, is_grey: bool) -> NDArray[np.uint8]:
        """Run synthesis for whole windows of one size.

        Args:
            latents: In cells, float32 `[n, h, w, C]`.
            gain: The gain index.
            is_grey: One channel, the mean of the three, instead of them.

        Returns:
            uint8 `[n, 16 h, 16 w, 1 or 3]`, not filtered.
        """
        x = self.synthesised(latents.to(self.device).permute(0, 3, 1, 2), gain)
        colours = x.permute(0, 2, 3, 1) * 255
        if is_grey:
            colours = colours.mean(3, keepdim=True)
        result: NDArray[np.uint8] = colours.round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        return result

    def synthesised(self, latent: Tensor, gain: int) -> Tensor:
        """Latents in cells `[n, C, h, w]` to pixels `[n, 3, 16 h, 16 w]`, in about [0, 1]."""
        latent = latent.contiguous(memory_format=torch.channels_last)
        with self._autocast():
            gains = self._log_gain(gain).expand(len(latent))
            return self.model.transforms.decode_latent(latent, gains, self.has_mirror)

    def _log_gain(self, gain: int) -> Tensor:
        return torch.tensor([self.model.config.scale.log_gain(gain)], device=self.device)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        enabled = self.dtype != torch.float32
        return torch.autocast(self.device.type, self.dtype, enabled=enabled)


def with_halo(pixels: NDArray[np.uint8], rows: slice, columns: slice) -> NDArray[np.uint8]:
    """Some rows and columns of a window and the pixels around them that filters see.

    Where the window ends the region does, and its last pixels are repeated.
    """
    sides, edges = [], []
    for inner, size in zip((rows, columns), pixels.shape, strict=False):
        start, stop = max(0, inner.start - HALO), min(size, inner.stop + HALO)
        sides.append(slice(start, stop))
        edges.append((HALO - (inner.start - start), HALO - (stop - inner.stop)))
    return np.pad(pixels[tuple(sides)], (*edges, (0, 0)), mode="edge")


def source_of(latent: Tensor, rate: float) -> TileSource:
    """A tile's latent `[1, C, h, w]` for coding: on the CPU, where the exact part runs."""
    return TileSource(latent[0].permute(1, 2, 0).float().contiguous().cpu(), rate)


def quality_bin_of(model: CodingModel, gain: int) -> int:
    """The row of the prior's tables that depend on the quality."""
    return model.config.scale.bin(gain)


def seen_pixels(picture: Picture, window: Window) -> NDArray[np.uint8]:
    """A copy of the pixels of a window, smooth ones where transparency hides them."""
    area = window.pixels
    rows, columns = slice(area.y, area.y + area.height), slice(area.x, area.x + area.width)
    seen = picture.pixels[rows, columns].copy()  # torch wants to own what it reads
    return seen if picture.alpha is None else alpha.fill_hidden(seen, picture.alpha[rows, columns])


def positions_of(part: Tile) -> Box:
    """A rectangle of whole tiles in positions: top, left, and below and right of the last ones."""
    bottom, right = part.y + part.height, part.x + part.width
    return part.y // STRIDE, part.x // STRIDE, -(-bottom // STRIDE), -(-right // STRIDE)
