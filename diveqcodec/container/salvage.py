"""What is whole in a damaged `.dvq` file.

`bitstream.read` refuses a file for one wrong bit, as it should. For those who want what is left,
this finds every chunk whose checksum is right, wherever it stands, and says which tiles are lost.
The header must be whole. Knows nothing of what is in a tile.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from diveqcodec.container.bitstream import Assembly, DvqFile, parse_header, read, tile_grid
from diveqcodec.container.checksums import PartialSums
from diveqcodec.container.chunks import (
    CRC,
    METADATA,
    NAMES,
    OF_TILES,
    parse_chunk,
    parse_varint,
)
from diveqcodec.errors import DamagedError

_TYPES: Final = re.compile(b"[" + re.escape(bytes((*OF_TILES, *METADATA))) + b"]")


@dataclass(frozen=True, slots=True)
class Salvage:
    """What was found.

    Attributes:
        file: With the tiles that are whole.
        lost: Indices of the tiles that are not there.
        error: Why the file is not whole; None if it is.
        is_front_whole: Nothing before the first tile is damaged, so no metadata are lost.
    """

    file: DvqFile
    lost: frozenset[int] = frozenset()
    error: DamagedError | None = None
    is_front_whole: bool = True


def read_what_is_whole(data: bytes, *, is_partial: bool = True) -> Salvage:
    """As `bitstream.read`, but damage behind the header is told, not raised.

    Args:
        data: All bytes of a file.
        is_partial: False: damage is raised after all, and nobody looks for what is left.

    Raises:
        FormatError: its header is not whole, or it holds what this program does not know.
        DamagedError: it is damaged, and not `is_partial`.
    """
    try:
        return Salvage(read(data))
    except DamagedError as error:
        if not is_partial:
            raise
        found = salvage(data)
        return replace(found, error=error)


def salvage(data: bytes) -> Salvage:
    """Read all that is whole of a file.

    Raises:
        FormatError: its header is not whole, or it holds a critical chunk of an unknown type.
    """
    header, position = parse_header(data)
    assembly = Assembly(header, may_lose=True)
    # Any length may be claimed at any position: what is read to check it must not grow with it.
    sums = PartialSums(data)
    is_front_whole = True
    while position < len(data) and not assembly.is_whole:
        try:
            kind, body, end = parse_chunk(data, position, sums)
        except DamagedError:
            is_front_whole &= bool(assembly.taken) or _is_of_tiles(data, position, sums)
            position = _next_chunk(data, position + 1, assembly, sums)
            continue
        try:
            _take(assembly, kind, body)
        except DamagedError:
            is_front_whole &= bool(assembly.taken) or kind in OF_TILES
        position = end
    lost = frozenset(range(assembly.count)) - assembly.taken
    return Salvage(assembly.file(), lost, is_front_whole=is_front_whole)


def notices_of(
    found: Salvage,
    lost: Iterable[int],
    unfiltered: Iterable[int] = (),
    unpatched: Iterable[int] = (),
) -> tuple[str, ...]:
    """A notice for every lost tile, or one that lost its filters or patches: which, and where.

    Before them one for metadata, where some may be lost.
    """
    header = found.file.header
    grid = tile_grid(header.width, header.height)
    gone = set(lost)
    faults = [(index, " is", "grey") for index in gone]
    for indices, damaged, result in (
        (unfiltered, ": its filters are", "not filtered"),
        (unpatched, ": its patches are", "smooth where those were"),
    ):
        faults += [(index, damaged, result) for index in indices if index not in gone]
    notices = []
    if not found.is_front_whole:
        notices.append("damaged before its first tile; a colour profile, EXIF or XMP may be lost")
    for index, damaged, result in sorted(faults):
        tile = grid[index]
        place = f"{tile.width}x{tile.height} pixels at {tile.x},{tile.y}"
        notices.append(f"tile {index} of {len(grid)}{damaged} damaged; its {place} are {result}")
    return tuple(notices)


def _take(assembly: Assembly, kind: int, body: bytes) -> None:
    """Add a whole chunk, giving up tiles before it that are missing."""
    if kind in OF_TILES:
        index, _ = parse_varint(body, 0, f"chunk {NAMES[kind]}")
        if index not in assembly.taken and index < assembly.count:
            assembly.skip_to(index, kind)
    assembly.add(kind, body)


def _is_of_tiles(data: bytes, position: int, sums: PartialSums) -> bool:
    """Whether the damaged chunk at `position` is of a tile, as far as can be told.

    Its type says so, and is not itself what is wrong: that of metadata would make it whole.
    """
    if data[position] not in OF_TILES:
        return False
    try:
        length, body = parse_varint(data, position + 1, "a chunk")
    except DamagedError:
        return True
    end = body + length
    if end + CRC.size > len(data):
        return True
    (expected,) = CRC.unpack_from(data, end)
    starts = (zlib.crc32(bytes([kind])) for kind in METADATA)
    return all(sums.crc32(position + 1, end, start) != expected for start in starts)


def _next_chunk(data: bytes, start: int, assembly: Assembly, sums: PartialSums) -> int:
    """Where the next whole chunk of a tile or of metadata begins, or the end of the data.

    Most positions are refused by their type, length or index, before a checksum is computed.
    """
    for match in _TYPES.finditer(data, start):
        position, kind = match.start(), data[match.start()]
        if kind in METADATA and assembly.taken:
            continue
        try:
            if kind in OF_TILES:
                _, body = parse_varint(data, position + 1, "a chunk")
                index, _ = parse_varint(data, body, "a chunk")
                if index >= assembly.count or index in assembly.taken:
                    continue
            parse_chunk(data, position, sums)
        except DamagedError:
            continue
        return position
    return len(data)
