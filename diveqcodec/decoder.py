"""The bytes of a file to a picture, or to a part of it, tile by tile.

Latents are kept only until the tiles around them are done, so memory does not grow with the
picture but for its pixels. Knows nothing of files on disk.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diveqcodec.container import alpha, filters, patches
from diveqcodec.container.bitstream import Tile
from diveqcodec.container.canvas import Canvas, Crop, crop_area
from diveqcodec.container.entropy import Decoder
from diveqcodec.container.grid import meets
from diveqcodec.container.pixelfile import (
    check_front,
    check_left,
    layout_of,
    paint_lossless,
    picture_of,
)
from diveqcodec.container.salvage import Salvage, notices_of
from diveqcodec.errors import DamagedError
from diveqcodec.exact.tile import TileCoder, check_crc
from diveqcodec.image import Picture
from diveqcodec.model.candidates import GRID_BITS
from diveqcodec.parallel import Progress, ordered_map
from diveqcodec.windows import Networks, Window, positions_of, quality_bin_of

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted of a file.

    Attributes:
        crop: Left, top, width and height in pixels; None is all.
        is_partial: Damaged tiles are left grey and told of, instead of an error.
        progress: Is told of every tile that networks decode.
        workers: Tiles that are worked on at once.
    """

    crop: Crop | None = None
    is_partial: bool = False
    progress: Progress | None = None
    workers: int = 1


@dataclass(frozen=True, slots=True)
class _Step:
    """Something to be done for a tile: its latent is decoded, or its pixels are painted."""

    tile: int
    is_paint: bool


class PictureDecoder:
    """Decodes one file."""

    def __init__(self, networks: Networks, found: Salvage, wish: Wish) -> None:
        self.networks, self.found, self.wish = networks, found, wish
        self.file, self.header = found.file, found.file.header
        self.area = crop_area(self.header, wish.crop)
        self.layout = layout_of(self.file)
        self.lost = set(found.lost)
        self.unfiltered: set[int] = set()  # what should have been
        self.unpatched: set[int] = set()
        self._latents: dict[int, Tensor] = {}
        self._uses: dict[int, int] = {}  # how many tiles still wait for a latent
        self._decoded: dict[int, threading.Event] = {}  # whether there is anything to wait for
        self._lock = threading.Lock()

    def run(self) -> Picture:
        """The picture.

        Raises:
            DamagedError: a tile that is needed is damaged, and not `is_partial`; or all are.
            ConfigError: the crop leaves the picture.
        """
        wish = self.wish
        check_front(self.found, is_cropped=wish.crop is not None, is_partial=wish.is_partial)
        canvas = Canvas(self.header, self.area)
        lost = paint_lossless(self.found, canvas, is_partial=wish.is_partial)
        self._decode_tiles(canvas)
        lost |= {index for index in self.lost if meets(self.layout.grid[index], self.area)}
        check_left(lost, self.layout.grid, self.area)
        notices = notices_of(self.found, lost, self.unfiltered, self.unpatched)
        return picture_of(canvas, self.file, notices)

    def _decode_tiles(self, canvas: Canvas) -> None:
        """Decode and paint what networks have coded of the area."""
        grid, regions = self.layout.grid, self.layout.regions()
        wanted = {
            index: self.networks.window(grid[index], region)
            for index, region in regions.items()
            if meets(grid[index], self.area)
        }
        needs = {
            index: [
                other
                for other, region in regions.items()
                if region == regions[index]
                and meets(grid[other], window.pixels)
                and meets(grid[other], self._seen)
            ]
            for index, window in wanted.items()
        }
        for others in needs.values():
            for other in others:
                self._uses[other] = self._uses.get(other, 0) + 1
        order = sorted(self._uses)
        self._decoded = {index: threading.Event() for index in order}
        workers = min(self.wish.workers, len(order))

        def work(step: _Step) -> bool:
            if step.is_paint:
                self._paint(canvas, step.tile, wanted[step.tile], needs[step.tile])
            else:
                self._decode(canvas, step.tile)
            return step.is_paint

        done = 0
        for is_paint in ordered_map(work, _steps(order, needs, workers), workers):
            done += is_paint
            if is_paint and self.wish.progress is not None:
                self.wish.progress(done, len(wanted))

    @property
    def _seen(self) -> Tile:
        """What the pixels of the area depend on: what networks around them look at."""
        whole = Tile(0, 0, self.header.width, self.header.height)
        return self.networks.window(self.area, whole).pixels

    def _decode(self, canvas: Canvas, index: int) -> None:
        """Keep the latent of a tile for those around it, and paint its transparency."""
        try:
            latent = self._latent(index)
            if latent is None:
                self.lost.add(index)
            else:
                self._latents[index], transparency = latent
                canvas.paint(self.layout.grid[index], None, transparency)
        finally:
            self._decoded[index].set()  # an error is raised in its turn; nobody need wait for it

    @torch.inference_mode()
    def _latent(self, index: int) -> tuple[Tensor, Pixels | None] | None:
        """Latent `[h, w, C]`, as it is kept, and transparency of a tile; None if it is lost."""
        tile, data = self.layout.grid[index], self.file.tiles[index]
        try:
            if data is None:
                raise self.found.error or DamagedError(f"damaged: tile {index} is missing")
            transparency = None
            if data.alpha is not None:
                transparency = alpha.unpack_alpha(data.alpha, tile.height, tile.width)
            decoder = Decoder(data.payload)
            top, left, bottom, right = positions_of(tile)
            size = bottom - top, right - left
            quality_bin = quality_bin_of(self.networks.model, self.header.gain_index)
            latent, crc = TileCoder(self.networks.model, decoder, quality_bin, size).run()
            check_crc(crc, data.index_crc, index)
            decoder.finish()
        except DamagedError:
            if not self.wish.is_partial:
                raise
            return None
        return _kept(latent), transparency

    @torch.inference_mode()
    def _paint(self, canvas: Canvas, index: int, window: Window, needs: list[int]) -> None:
        """Run the synthesis of a tile, and forget the latents that no other tile waits for."""
        for other in needs:
            self._decoded[other].wait()
        tile, header = self.layout.grid[index], self.header
        if index not in self.lost:
            top, left, bottom, right = window.outer
            cells = torch.zeros(bottom - top, right - left, self.networks.model.config.channels)
            for other in needs:
                self._copy(cells, window, other)
            cells *= 2.0**-GRID_BITS
            pixels = self.networks.pixels(
                cells,
                window,
                header.gain_index,
                is_grey=header.is_grey,
                filters=self._filters(index),
            )
            canvas.paint(tile, pixels[: tile.height, : tile.width], None)
            self._patch(canvas, index)
        with self._lock:
            for other in needs:
                self._uses[other] -= 1
                if not self._uses[other]:
                    self._latents.pop(other, None)

    def _patch(self, canvas: Canvas, index: int) -> None:
        """Paint what of a tile is lossless."""
        data, header = self.file.tiles[index], self.header
        if data is None or not header.has_patches:
            return
        tile = self.layout.grid[index]
        try:
            if data.patches is None:
                raise self.found.error or DamagedError(f"damaged: chunk PTCH {index} is missing")
            name = f"chunk PTCH {index}"
            for patch in patches.unpack(data.patches, tile.height, tile.width, name):
                place = patch.within(tile)
                if meets(place, self.area):
                    canvas.paint(place, patches.pixels_of(patch, is_grey=header.is_grey), None)
        except DamagedError:
            if not self.wish.is_partial:
                raise
            self.unpatched.add(index)

    def _filters(self, index: int) -> filters.Filters | None:
        """Those of a tile; None if there are none, or if they are lost."""
        data, header = self.file.tiles[index], self.header
        if data is None or not header.has_filters:
            return None
        try:
            if data.filters is None:
                raise self.found.error or DamagedError(f"damaged: chunk FILT {index} is missing")
            return filters.unpack(data.filters, 1 if header.is_grey else 3, f"chunk FILT {index}")
        except DamagedError:
            if not self.wish.is_partial:
                raise
            self.unfiltered.add(index)
            return None

    def _copy(self, cells: Tensor, window: Window, index: int) -> None:
        """Put what there is of a tile's latent into that of a window."""
        latent = self._latents.get(index)
        if latent is None:
            return  # lost: zeros
        top, left, bottom, right = window.outer
        row, column, end_row, end_column = positions_of(self.layout.grid[index])
        rows = max(top, row), min(bottom, end_row)
        columns = max(left, column), min(right, end_column)
        target = cells[rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left]
        target.copy_(
            latent[rows[0] - row : rows[1] - row, columns[0] - column : columns[1] - column]
        )


def _steps(order: list[int], needs: dict[int, list[int]], workers: int) -> list[_Step]:
    """All that is to be done, such that a step needs none but those before it.

    Those just before a step are still being worked on when its turn comes. So tiles are painted as
    many steps late as there are workers: hardly ever one of these waits for another.
    """
    late = workers if workers > 1 else 0
    pending = sorted(needs, key=lambda index: max(needs[index]))
    steps: list[_Step] = []
    for number, index in enumerate(order):
        steps.append(_Step(index, False))
        while pending and number >= late and max(needs[pending[0]]) <= order[number - late]:
            steps.append(_Step(pending.pop(0), True))
    return steps + [_Step(index, True) for index in pending]


def _kept(latent: Tensor) -> Tensor:
    """A latent in units of 2^-8 cells, as 16-bit integers unless they are too few.

    Two rows of tiles wait for each other: of a picture of 100 megapixels that is .15 GB, and would
    be .3 GB as floats.
    """
    short = latent.short()
    return short if torch.equal(short.to(latent.dtype), latent) else latent
