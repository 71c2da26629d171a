"""The lossless tiles of files, and whole files that have no others: no networks, no torch.

`compress` and `decompress` are the codec's for pictures that are to come back bit by bit. Knows
nothing of models but that such a file names none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from diveqcodec.container import bitstream, lossless
from diveqcodec.container.bitstream import NO_MODEL, DvqFile, Header, PixelData, Tile
from diveqcodec.container.canvas import Canvas, Crop, crop_area
from diveqcodec.container.grid import meets
from diveqcodec.container.regions import Map, Rectangle, rectangles
from diveqcodec.container.salvage import Salvage, notices_of, read_what_is_whole
from diveqcodec.errors import DamagedError
from diveqcodec.image import Picture

# Tiles that are coded together at most; WebP's limits allow for it (see `lossless`).
_TOGETHER = 16
_LONG = 12  # of them in a row or a column: below 16,384 pixels
_CHEAP = 1  # the effort at which sizes are compared


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the tiles of a picture lie, and which are lossless: `[rows, columns]`, a map."""

    grid: list[Tile]
    lossless: Map

    @classmethod
    def of(cls, header: Header) -> Layout:
        """Of a picture of this size, without lossless tiles."""
        grid = bitstream.tile_grid(header.width, header.height)
        columns = bitstream.grid_columns(header.width)
        return cls(grid, np.zeros((len(grid) // columns, columns), np.bool_))

    @property
    def columns(self) -> int:
        """Tiles side by side."""
        return self.lossless.shape[1]

    def bounds(self, rectangle: Rectangle) -> Tile:
        """A rectangle of tiles in pixels."""
        return bitstream.bounds(self.part(rectangle), self.grid, self.columns)

    def part(self, rectangle: Rectangle, packed: bytes = b"") -> PixelData:
        """A rectangle as the container has it."""
        first = rectangle.row * self.columns + rectangle.column
        return PixelData(first, rectangle.columns, rectangle.rows, packed)

    def regions(self) -> dict[int, Tile]:
        """For every tile that networks code: the region, in pixels, that they see it in."""
        found: dict[int, Tile] = {}
        for rectangle in rectangles(~self.lossless):
            region = self.bounds(rectangle)
            found |= dict.fromkeys(bitstream.covered(self.part(rectangle), self.columns), region)
        return found


def layout_of(file: DvqFile) -> Layout:
    """Of a file; tiles that are lost count as ones that networks code."""
    layout = Layout.of(file.header)
    for part in file.lossless:
        layout.lossless.flat[bitstream.covered(part, layout.columns)] = True
    return layout


def compress(picture: Picture, effort: int = 5) -> bytes:
    """Compress a picture without any loss of pixels, hidden ones included."""
    header = header_of(picture, NO_MODEL, 0)
    layout = Layout.of(header)
    layout.lossless[:] = True
    parts = pack_tiles(picture, layout, effort, is_hidden_kept=True)
    tiles = (None,) * len(layout.grid)
    return bitstream.write(
        DvqFile(header, tiles, picture.icc, picture.exif, picture.xmp, tuple(parts))
    )


def decompress(data: bytes, crop: Crop | None = None, *, is_partial: bool = False) -> Picture:
    """The inverse of `compress`: of a file that names no model.

    Args:
        data: All bytes of the file.
        crop: Left, top, width and height of the part that is wanted.
        is_partial: Leave damaged tiles grey, with a notice for each.

    Raises:
        FormatError: Not a `.dvq` file, of a newer version, or damaged (`DamagedError`) where it is
            wanted.
        ConfigError: The crop leaves the picture.
    """
    found = read_what_is_whole(data, is_partial=is_partial or crop is not None)
    header = found.file.header
    area = crop_area(header, crop)
    canvas = Canvas(header, area)
    check_front(found, is_cropped=crop is not None, is_partial=is_partial)
    if any(tile is not None for tile in found.file.tiles):
        raise DamagedError("damaged: tiles that need a model, but no model is named")
    lost = paint_lossless(found, canvas, is_partial=is_partial)
    grid = bitstream.tile_grid(header.width, header.height)
    lost |= {index for index in found.lost if meets(grid[index], area)}
    if lost and not is_partial:
        raise found.error or DamagedError("damaged: a tile is missing")
    check_left(lost, grid, area)
    return picture_of(canvas, found.file, notices_of(found, lost))


def check_front(found: Salvage, *, is_cropped: bool, is_partial: bool) -> None:
    """Refuse a damaged file unless a part of it was asked for, or whatever is left.

    Raises:
        DamagedError: see above; also for a crop if metadata may be lost.
    """
    if found.error is not None and not is_partial and not (is_cropped and found.is_front_whole):
        raise found.error


def check_left(lost: set[int], grid: Sequence[Tile], area: Tile) -> None:
    """Refuse a picture of which nothing is left: nobody wants a grey rectangle.

    Raises:
        DamagedError: all tiles of the area are lost.
    """
    count = sum(meets(tile, area) for tile in grid)
    if len(lost) == count:
        raise DamagedError(f"damaged: no tile is whole of the {count} wanted")


def picture_of(canvas: Canvas, file: DvqFile, notices: tuple[str, ...]) -> Picture:
    """What was painted, with the metadata of its file."""
    return Picture(canvas.pixels, canvas.alpha, file.icc, file.exif, file.xmp, notices)


def header_of(picture: Picture, model_id: bytes, gain_index: int) -> Header:
    """The header of a picture's file."""
    height, width, channels = picture.pixels.shape
    return Header(width, height, model_id, gain_index, channels == 1, picture.alpha is not None)


def paint_lossless(found: Salvage, canvas: Canvas, *, is_partial: bool) -> set[int]:
    """Decode the lossless tiles that meet the canvas; those that could not be.

    Raises:
        DamagedError: One could not be, and not `is_partial`.
    """
    file = found.file
    layout = Layout.of(file.header)
    lost: set[int] = set()
    for part in file.lossless:
        place = bitstream.bounds(part, layout.grid, layout.columns)
        if not meets(place, canvas.area):
            continue
        header = file.header
        try:
            pixels, alpha = lossless.unpack(
                part.packed,
                place.height,
                place.width,
                is_grey=header.is_grey,
                has_alpha=header.has_alpha,
            )
        except DamagedError:
            if not is_partial:
                raise
            indices = bitstream.covered(part, layout.columns)
            lost.update(i for i in indices if meets(layout.grid[i], canvas.area))
        else:
            canvas.paint(place, pixels, alpha)
    return lost


def pack_tiles(
    picture: Picture, layout: Layout, effort: int, *, is_hidden_kept: bool = False
) -> list[PixelData]:
    """Code the tiles of a layout that are lossless, as many together as makes them smaller."""
    parts: list[PixelData] = []
    for rectangle in rectangles(layout.lossless):
        pieces = [rectangle]
        if not _is_constant(picture, layout, rectangle):
            pieces = [small for piece in _cut(rectangle) for small in _best(picture, layout, piece)]
        for piece in pieces:
            pixels, alpha = area_of(picture, layout.bounds(piece))
            packed = lossless.pack(pixels, alpha, effort, is_hidden_kept=is_hidden_kept)
            parts.append(layout.part(piece, packed))
    return sorted(parts, key=lambda part: part.first)


def area_of(picture: Picture, area: Tile) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Pixels and transparency of a part of a picture, not copied."""
    rows, columns = slice(area.y, area.y + area.height), slice(area.x, area.x + area.width)
    return picture.pixels[rows, columns], None if picture.alpha is None else picture.alpha[
        rows, columns
    ]


def is_of_one_colour(picture: Picture) -> bool:
    """Whether all pixels of a picture are the same, transparency included."""
    if picture.alpha is not None and not lossless.is_constant(picture.alpha[..., None]):
        return False
    return lossless.is_constant(picture.pixels)


def _is_constant(picture: Picture, layout: Layout, rectangle: Rectangle) -> bool:
    pixels, alpha = area_of(picture, layout.bounds(rectangle))
    return is_of_one_colour(replace(picture, pixels=pixels, alpha=alpha))


def _cut(rectangle: Rectangle) -> Iterator[Rectangle]:
    """Pieces of as many tiles as may be coded together."""
    width = min(rectangle.columns, _LONG)
    height = min(_LONG, _TOGETHER // width)
    for row in range(0, rectangle.rows, height):
        for column in range(0, rectangle.columns, width):
            yield Rectangle(
                rectangle.row + row,
                rectangle.column + column,
                min(height, rectangle.rows - row),
                min(width, rectangle.columns - column),
            )


def _best(picture: Picture, layout: Layout, piece: Rectangle) -> list[Rectangle]:
    """The piece itself, or its tiles where a table of colours for each of them makes up for it."""
    tiles = [
        Rectangle(piece.row + row, piece.column + column, 1, 1)
        for row in range(piece.rows)
        for column in range(piece.columns)
    ]
    if len(tiles) == 1:
        return [piece]
    sizes = [
        len(lossless.pack(*area_of(picture, layout.bounds(one)), _CHEAP)) for one in (piece, *tiles)
    ]
    return [piece] if sizes[0] <= sum(sizes[1:]) else tiles
