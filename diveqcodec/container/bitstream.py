"""The `.dvq` container: a header and chunks <-> bytes. FORMAT.md describes it for other programs.

It checks all that can be checked without decoding: magic, version, checksums, limits, and that
each chunk is there exactly once and in order. It does not know models, symbols or pixels, nor the
name of the file, which the caller puts in front of the message.
"""

import struct
import zlib
from dataclasses import dataclass
from typing import Final

from diveqcodec.container.chunks import (
    ALPHA,
    ANCILLARY,
    CRC,
    METADATA,
    NAMES,
    PIXELS,
    SMALLEST_CHUNK,
    TILE,
    chunk_bytes,
    deflate,
    inflate,
    parse_chunk,
    parse_varint,
    varint_bytes,
)
from diveqcodec.errors import DamagedError, FormatError

# The first byte is not ASCII, so that no text file is taken for a picture.
MAGIC: Final = b"\x8bDVQ"
VERSION: Final = 1

# Bytes of a file that are enough for `read_header`.
HEADER_BYTES: Final = 64

# Limits of the format, checked before anything is allocated.
MAX_PIXELS: Final = 1 << 28
MAX_SIDE: Final = 1 << 18
MAX_METADATA: Final = 16 << 20

# Tiles are 1024 pixels wide and high; a remainder narrower than 256 joins its neighbour.
TILE_SIZE: Final = 1024
TILE_MIN: Final = 256

# The model id of a file that needs none: all of its tiles are lossless.
NO_MODEL: Final = bytes(8)

_GREY_FLAG: Final = 0x01
_ALPHA_FLAG: Final = 0x02
_NO_MODEL_FLAG: Final = 0x04

# Magic, version, flags; then model id and gain index, unless the flags say that there are none;
# width, height and the checksum follow.
_FIXED: Final = struct.Struct("<4sBB")
_MODEL: Final = struct.Struct("<8sH")


@dataclass(frozen=True, slots=True)
class Header:
    """What is known before any chunk is read.

    Attributes:
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
        model_id: The eight bytes that name the model; `NO_MODEL` if no tile needs one.
        gain_index: Quality as the model's 16-bit index of log gain.
        is_grey: One colour channel instead of three.
        has_alpha: Each tile has an ALPH chunk, or its transparency in a PIXL chunk.
    """

    width: int
    height: int
    model_id: bytes
    gain_index: int
    is_grey: bool = False
    has_alpha: bool = False


@dataclass(frozen=True, slots=True)
class Tile:
    """Position of an independently coded rectangle in its picture, in pixels."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class TileData:
    """The bytes of one tile.

    Attributes:
        index_crc: CRC-32 of the decoded indices: tells a wrong decoding from a right one.
        payload: The entropy-coded indices.
        alpha: The losslessly coded transparency; None unless the header says `has_alpha`.
    """

    index_crc: int
    payload: bytes
    alpha: bytes | None = None


@dataclass(frozen=True, slots=True)
class PixelData:
    """The losslessly coded pixels of a rectangle of whole tiles.

    Attributes:
        first: Index of its upper left tile.
        columns: Tiles side by side.
        rows: Tiles one below the other.
        packed: Their pixels, transparency included (see `diveqcodec.container.lossless`).
    """

    first: int
    columns: int
    rows: int
    packed: bytes


@dataclass(frozen=True, slots=True)
class DvqFile:
    """A whole file.

    Attributes:
        header: What is known first.
        tiles: In the order of `tile_grid`; None where `lossless` has the pixels, or where nothing
            has them, which only `diveqcodec.container.salvage` leaves.
        lossless: Rectangles of lossless tiles, in the order of their first ones.
        icc: The colour profile.
        exif: The EXIF block.
        xmp: The XMP packet.
    """

    header: Header
    tiles: tuple[TileData | None, ...]
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    lossless: tuple[PixelData, ...] = ()


def tile_grid(width: int, height: int) -> list[Tile]:
    """The tiles of a picture in raster order.

    Each side is cut every 1024 pixels; a last piece under 256 joins the one before it.
    Example: `width=2100, height=1300` gives columns 1024, 1076 and rows 1024, 276: four tiles.
    """
    return [
        Tile(x, y, tile_width, tile_height)
        for y, tile_height in _cut(height)
        for x, tile_width in _cut(width)
    ]


def grid_columns(width: int) -> int:
    """How many tiles of `tile_grid` lie side by side."""
    return len(_cut(width))


def covered(part: PixelData, columns: int) -> list[int]:
    """Indices of the tiles of a lossless rectangle, in a grid of so many `columns`."""
    return [
        part.first + row * columns + column
        for row in range(part.rows)
        for column in range(part.columns)
    ]


def bounds(part: PixelData, grid: list[Tile], columns: int) -> Tile:
    """A lossless rectangle in pixels."""
    first, last = grid[part.first], grid[covered(part, columns)[-1]]
    return Tile(first.x, first.y, last.x + last.width - first.x, last.y + last.height - first.y)


def needs_model(file: DvqFile) -> bool:
    """Whether any tile is coded by networks, or the header says that one was."""
    return file.header.model_id != NO_MODEL or any(tile is not None for tile in file.tiles)


def write(file: DvqFile) -> bytes:
    """Turn a file into bytes; the inverse of `read`.

    Raises:
        FormatError: The picture or its metadata pass a limit, or tiles and header do not fit.
    """
    header = file.header
    _check_size(header)
    assembly = Assembly(header)
    if len(file.tiles) != assembly.count:
        raise FormatError(f"{len(file.tiles)} tiles given for a picture of {assembly.count}")
    parts = [_header_bytes(header)]
    for kind, data in zip(METADATA, (file.icc, file.exif, file.xmp), strict=True):
        if data is None:
            continue
        if len(data) > MAX_METADATA:
            raise FormatError(
                f"{NAMES[kind]} data of {len(data)} bytes; the limit is {MAX_METADATA}"
            )
        parts.append(chunk_bytes(kind, deflate(data)))
    rectangles = {part.first: part for part in file.lossless}
    for index, tile in enumerate(file.tiles):
        if index in rectangles:
            part = rectangles.pop(index)
            assembly.add_pixels(part)
            numbers = (part.first, part.columns, part.rows)
            body = b"".join(map(varint_bytes, numbers)) + part.packed
            parts.append(chunk_bytes(PIXELS, body))
        if index in assembly.taken:
            if tile is not None:
                raise FormatError(f"tile {index} is given twice")
            continue
        if tile is None:
            raise FormatError(f"tile {index} is not given")
        if (tile.alpha is not None) != header.has_alpha:
            raise FormatError(f"tile {index} and the header disagree about transparency")
        if tile.alpha is not None:
            parts.append(chunk_bytes(ALPHA, varint_bytes(index) + tile.alpha))
        parts.append(
            chunk_bytes(TILE, varint_bytes(index) + CRC.pack(tile.index_crc) + tile.payload)
        )
        assembly.add_tile(index, tile)
    if rectangles:
        raise FormatError(f"tile {min(rectangles)} is given twice")
    return b"".join(parts)


def read(data: bytes) -> DvqFile:
    """Turn the bytes of a whole file into its parts; the inverse of `write`.

    Raises:
        FormatError: Not a `.dvq` file, of another version, past a limit, or with an unknown chunk.
        DamagedError: Truncated, a wrong checksum, or chunks missing, repeated or out of order.
    """
    header, position = parse_header(data)
    assembly = Assembly(header)
    if len(data) - position < SMALLEST_CHUNK:
        raise DamagedError(
            f"damaged: truncated, {len(data)} bytes cannot hold the {assembly.count} tiles "
            f"of {header.width}x{header.height} pixels"
        )
    while not assembly.is_whole:
        kind, body, position = parse_chunk(data, position)
        assembly.add(kind, body)
    if position != len(data):
        raise DamagedError(f"damaged: {len(data) - position} bytes follow the last tile")
    return assembly.file()


class Assembly:
    """The parts of a file, put together chunk by chunk in the order of the format."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self.columns = grid_columns(header.width)
        self.count = self.columns * len(_cut(header.height))
        self.taken: set[int] = set()  # tiles that are there, in whatever form
        self._tiles: dict[int, TileData] = {}
        self._lossless: list[PixelData] = []
        self._metadata: dict[int, bytes] = {}
        self._alpha: bytes | None = None
        self._next = 0  # the lowest tile that is not there

    @property
    def is_whole(self) -> bool:
        """Whether no tile is missing."""
        return len(self.taken) == self.count

    def add(self, kind: int, body: bytes) -> None:
        """Take in the next chunk.

        Raises:
            FormatError: its type is critical and unknown, or it inflates past its limit.
            DamagedError: it cannot stand here, or its body is not one.
        """
        if kind in METADATA:
            self._add_metadata(kind, body)
        elif kind == ALPHA:
            self._alpha = self._checked_alpha(body)
        elif kind == TILE:
            body = self._after_index(body, TILE, self._next)
            if self.header.has_alpha and self._alpha is None:
                raise DamagedError(f"damaged: chunk ALPH {self._next} is missing")
            if len(body) < CRC.size:
                raise DamagedError(f"damaged: chunk TILE {self._next} is too short")
            (index_crc,) = CRC.unpack_from(body)
            self.add_tile(self._next, TileData(index_crc, body[CRC.size :], self._alpha))
        elif kind == PIXELS:
            rest = self._after_index(body, PIXELS, self._next)
            if self._alpha is not None:
                raise DamagedError(f"damaged: chunk TILE {self._next} is missing or out of order")
            columns, position = parse_varint(rest, 0, "chunk PIXL")
            rows, position = parse_varint(rest, position, "chunk PIXL")
            self.add_pixels(PixelData(self._next, columns, rows, rest[position:]))
        elif not kind & ANCILLARY:
            raise FormatError(
                f"chunk type {kind} is unknown to this program; use a newer version of it"
            )

    def add_tile(self, index: int, tile: TileData) -> None:
        """Take in a tile that is known to be the next one."""
        self._tiles[index] = tile
        self._take([index])

    def add_pixels(self, part: PixelData) -> None:
        """Take in a rectangle of lossless tiles.

        Raises:
            DamagedError: it is empty, leaves the picture, or meets tiles that are there.
        """
        rows = self.count // self.columns
        row, column = divmod(part.first, self.columns)
        if not (1 <= part.columns <= self.columns - column and 1 <= part.rows <= rows - row):
            raise DamagedError(f"damaged: chunk PIXL {part.first} leaves the picture")
        indices = covered(part, self.columns)
        if self.taken.intersection(indices):
            raise DamagedError(f"damaged: chunk PIXL {part.first} meets tiles that are there")
        self._lossless.append(part)
        self._take(indices)

    def skip_to(self, index: int, *, keeps_alpha: bool) -> None:
        """Give up the tiles before `index`, and what came before of that one unless kept."""
        if index != self._next or not keeps_alpha:
            self._alpha = None
        self._next = index

    def file(self) -> DvqFile:
        """What is there."""
        tiles = tuple(self._tiles.get(index) for index in range(self.count))
        icc, exif, xmp = (self._metadata.get(kind) for kind in METADATA)
        return DvqFile(self.header, tiles, icc, exif, xmp, tuple(self._lossless))

    def _take(self, indices: list[int]) -> None:
        self.taken.update(indices)
        self._alpha = None
        while self._next in self.taken:
            self._next += 1

    def _add_metadata(self, kind: int, body: bytes) -> None:
        if kind in self._metadata:
            raise DamagedError(f"damaged: a second {NAMES[kind]} chunk")
        is_late = self.taken or self._alpha is not None
        if is_late or any(kind < earlier for earlier in self._metadata):
            raise DamagedError(f"damaged: chunk {NAMES[kind]} is out of order")
        self._metadata[kind] = inflate(body, NAMES[kind], MAX_METADATA)

    def _checked_alpha(self, body: bytes) -> bytes:
        expected = self._next
        if self._alpha is not None:  # a second one can only be that of a later tile
            expected = next(i for i in range(expected + 1, self.count + 1) if i not in self.taken)
        body = self._after_index(body, ALPHA, expected)
        if not self.header.has_alpha:
            raise DamagedError("damaged: chunk ALPH in a picture without transparency")
        if self._alpha is not None:
            raise DamagedError(f"damaged: chunk TILE {self._next} is missing or out of order")
        return body

    def _after_index(self, body: bytes, kind: int, expected: int) -> bytes:
        """The rest of a chunk's body after its tile index, which must be the expected one."""
        name = NAMES[kind]
        index, position = parse_varint(body, 0, f"chunk {name}")
        if index >= self.count:
            raise DamagedError(f"damaged: chunk {name} {index}, but there are {self.count} tiles")
        if index < expected or index in self.taken:
            raise DamagedError(f"damaged: chunk {name} {index} is repeated or out of order")
        if index > expected:
            raise DamagedError(f"damaged: chunk {name} {expected} is missing or out of order")
        return body[position:]


def read_header(data: bytes) -> Header:
    """The header alone, from the first `HEADER_BYTES` bytes of a file or more.

    Raises:
        FormatError: Not a `.dvq` file, of another version, or past a limit.
        DamagedError: The header is truncated or its checksum does not match.
    """
    return parse_header(data)[0]


def _cut(size: int) -> list[tuple[int, int]]:
    """(start, length) of the pieces of one side."""
    count = max(1, (size + TILE_SIZE - TILE_MIN) // TILE_SIZE)
    starts = [TILE_SIZE * i for i in range(count)]
    return [(a, b - a) for a, b in zip(starts, [*starts[1:], size], strict=True)]


def _check_size(header: Header) -> None:
    """Raise FormatError if the picture has no pixels or too many."""
    width, height = header.width, header.height
    if width < 1 or height < 1:
        raise FormatError(f"claims {width}x{height} pixels; a picture has at least one")
    if width * height > MAX_PIXELS:
        raise FormatError(
            f"claims {width}x{height} pixels; the limit is {MAX_PIXELS // 1_000_000} million"
        )
    if max(width, height) > MAX_SIDE:
        raise FormatError(f"claims {width}x{height} pixels; the limit of a side is {MAX_SIDE}")


def _header_bytes(header: Header) -> bytes:
    if len(header.model_id) != 8:
        raise FormatError(f"a model id has 8 bytes, not {len(header.model_id)}")
    if not 0 <= header.gain_index < 1 << 16:
        raise FormatError(f"gain index {header.gain_index} is not in 0...65535")
    flags = _GREY_FLAG * header.is_grey | _ALPHA_FLAG * header.has_alpha
    if header.model_id == NO_MODEL:
        if header.gain_index:
            raise FormatError(f"gain index {header.gain_index} without a model")
        fixed = _FIXED.pack(MAGIC, VERSION, flags | _NO_MODEL_FLAG)
    else:
        fixed = _FIXED.pack(MAGIC, VERSION, flags)
        fixed += _MODEL.pack(header.model_id, header.gain_index)
    data = fixed + varint_bytes(header.width) + varint_bytes(header.height)
    return data + CRC.pack(zlib.crc32(data))


def parse_header(data: bytes) -> tuple[Header, int]:
    """The header and the position after it; see `read_header`."""
    if not data.startswith(MAGIC):
        raise FormatError("not a .dvq file" if data else "not a .dvq file: it is empty")
    if len(data) > len(MAGIC) and data[len(MAGIC)] != VERSION:
        raise FormatError(
            f"written in bitstream version {data[len(MAGIC)]}; this program reads {VERSION}"
        )
    if len(data) < _FIXED.size:
        raise DamagedError("damaged: truncated in the header")
    _, _, flags = _FIXED.unpack_from(data)
    model_id, gain_index, position = NO_MODEL, 0, _FIXED.size
    if not flags & _NO_MODEL_FLAG:
        if len(data) < _FIXED.size + _MODEL.size:
            raise DamagedError("damaged: truncated in the header")
        model_id, gain_index = _MODEL.unpack_from(data, position)
        position += _MODEL.size
    width, position = parse_varint(data, position, "the header")
    height, position = parse_varint(data, position, "the header")
    end = position + CRC.size
    if end > len(data):
        raise DamagedError("damaged: truncated in the header")
    if zlib.crc32(data[:position]) != CRC.unpack_from(data, position)[0]:
        raise DamagedError("damaged: the checksum of the header does not match")
    if flags & ~(_GREY_FLAG | _ALPHA_FLAG | _NO_MODEL_FLAG):
        raise FormatError(f"flags {flags:#04x} are unknown to this program; use a newer version")
    header = Header(
        width, height, model_id, gain_index, bool(flags & _GREY_FLAG), bool(flags & _ALPHA_FLAG)
    )
    if model_id == NO_MODEL and not flags & _NO_MODEL_FLAG:
        raise DamagedError("damaged: the header names model 0, which there is none of")
    _check_size(header)
    return header, end
