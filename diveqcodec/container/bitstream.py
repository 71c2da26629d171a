"""The `.dvq` container: a header and chunks <-> bytes. FORMAT.md describes it for other programs.

It checks all that can be checked without decoding: magic, version, checksums, limits, and that
each chunk is there exactly once and in order. What a file is made of stands next door, in `header`,
`grid` and `chunks`. It does not know models, symbols or pixels, nor the name of the file, which the
caller puts in front of the message.
"""

from dataclasses import dataclass

from diveqcodec.container.chunks import (
    ALPHA,
    ANCILLARY,
    CRC,
    FILTERS,
    FRONT,
    METADATA,
    NAMES,
    PATCHES,
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
from diveqcodec.container.grid import Tile, grid_columns, grid_rows, tile_grid
from diveqcodec.container.header import (
    HEADER_BYTES,
    MAGIC,
    MIME,
    NO_MODEL,
    SUFFIX,
    VERSION,
    Header,
    header_bytes,
    parse_header,
    read_header,
)
from diveqcodec.errors import DamagedError, FormatError
from diveqcodec.limits import MAX_METADATA

__all__ = [
    "HEADER_BYTES",
    "MAGIC",
    "MIME",
    "NO_MODEL",
    "SUFFIX",
    "VERSION",
    "Assembly",
    "DvqFile",
    "Header",
    "PixelData",
    "Tile",
    "TileData",
    "bounds",
    "covered",
    "grid_columns",
    "needs_model",
    "parse_header",
    "read",
    "read_header",
    "tile_grid",
    "write",
]


@dataclass(frozen=True, slots=True)
class TileData:
    """The bytes of one tile.

    Attributes:
        index_crc: CRC-32 of the decoded indices: tells a wrong decoding from a right one.
        payload: The entropy-coded indices.
        alpha: The losslessly coded transparency; None unless the header says `has_alpha`.
        filters: The coded filters, empty for none; None unless the header says `has_filters`, or
            where they are lost, which only `diveqcodec.container.salvage` leaves.
        patches: The same of lossless rectangles within the tile, and `has_patches`.
    """

    index_crc: int
    payload: bytes
    alpha: bytes | None = None
    filters: bytes | None = None
    patches: bytes | None = None

    @property
    def front(self) -> dict[int, bytes]:
        """Bodies, but for the index, of the chunks before the tile's TILE chunk, by type."""
        bodies = zip(FRONT, (self.alpha, self.filters, self.patches), strict=True)
        return {kind: body for kind, body in bodies if body is not None}


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


_TOPICS = {ALPHA: "transparency", FILTERS: "filters", PATCHES: "patches"}


def _front_of(header: Header) -> dict[int, bool]:
    """Which chunks stand before each TILE chunk."""
    flags = header.has_alpha, header.has_filters, header.has_patches
    return dict(zip(FRONT, flags, strict=True))


def write(file: DvqFile) -> bytes:
    """Turn a file into bytes; the inverse of `read`.

    Raises:
        FormatError: The picture or its metadata pass a limit, or tiles and header do not fit.
    """
    header = file.header
    start = header_bytes(header)
    assembly = Assembly(header)
    if len(file.tiles) != assembly.count:
        raise FormatError(f"{len(file.tiles)} tiles given for a picture of {assembly.count}")
    parts = [start]
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
        due = _front_of(header)
        for kind in FRONT:
            if (kind in tile.front) != due[kind]:
                raise FormatError(f"tile {index} and the header disagree about {_TOPICS[kind]}")
        for kind, body in tile.front.items():
            parts.append(chunk_bytes(kind, varint_bytes(index) + body))
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
    """The parts of a file, put together chunk by chunk in the order of the format.

    Args:
        header: Of the file.
        may_lose: A tile without its FILT or PTCH chunk is taken all the same.
    """

    def __init__(self, header: Header, *, may_lose: bool = False) -> None:
        self.header, self.may_lose = header, may_lose
        self.columns = grid_columns(header.width)
        self.count = self.columns * grid_rows(header.height)
        self.taken: set[int] = set()  # tiles that are there, in whatever form
        self._tiles: dict[int, TileData] = {}
        self._lossless: list[PixelData] = []
        self._metadata: dict[int, bytes] = {}
        self._front: dict[int, bytes] = {}  # of the next tile, as far as read
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
        elif kind in FRONT:
            self._add_front(kind, body)
        elif kind == TILE:
            body = self._after_index(body, TILE, self._next)
            self._check_front()
            if len(body) < CRC.size:
                raise DamagedError(f"damaged: chunk TILE {self._next} is too short")
            (index_crc,) = CRC.unpack_from(body)
            front = (self._front.get(kind) for kind in FRONT)
            self.add_tile(self._next, TileData(index_crc, body[CRC.size :], *front))
        elif kind == PIXELS:
            rest = self._after_index(body, PIXELS, self._next)
            if self._front:
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

    def skip_to(self, index: int, kind: int) -> None:
        """Give up the tiles before `index`, and of that one what no chunk `kind` may follow."""
        is_same = index == self._next and kind in (TILE, FILTERS, PATCHES)
        self._front = {k: body for k, body in self._front.items() if is_same and k != kind}
        self._next = index

    def file(self) -> DvqFile:
        """What is there."""
        tiles = tuple(self._tiles.get(index) for index in range(self.count))
        icc, exif, xmp = (self._metadata.get(kind) for kind in METADATA)
        return DvqFile(self.header, tiles, icc, exif, xmp, tuple(self._lossless))

    def _take(self, indices: list[int]) -> None:
        self.taken.update(indices)
        self._front = {}
        while self._next in self.taken:
            self._next += 1

    def _add_metadata(self, kind: int, body: bytes) -> None:
        if kind in self._metadata:
            raise DamagedError(f"damaged: a second {NAMES[kind]} chunk")
        is_late = self.taken or self._front
        if is_late or any(kind < earlier for earlier in self._metadata):
            raise DamagedError(f"damaged: chunk {NAMES[kind]} is out of order")
        self._metadata[kind] = inflate(body, NAMES[kind], MAX_METADATA)

    def _add_front(self, kind: int, body: bytes) -> None:
        """Take in a chunk that stands before a tile, in the order of their types."""
        expected = self._next
        is_late = any(earlier >= kind for earlier in self._front)
        if is_late:  # it can only be that of a later tile
            expected = next(i for i in range(expected + 1, self.count + 1) if i not in self.taken)
        body = self._after_index(body, kind, expected)
        if not _front_of(self.header)[kind]:
            raise DamagedError(f"damaged: chunk {NAMES[kind]} in a picture without {_TOPICS[kind]}")
        if is_late:
            raise DamagedError(f"damaged: chunk TILE {self._next} is missing or out of order")
        self._front[kind] = body

    def _check_front(self) -> None:
        """Refuse a tile if a chunk is missing that stands before it."""
        for kind, is_due in _front_of(self.header).items():
            if is_due and kind not in self._front and not (self.may_lose and kind != ALPHA):
                raise DamagedError(f"damaged: chunk {NAMES[kind]} {self._next} is missing")

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
