"""What is whole of a damaged file is found, wherever it stands; what is lost is named."""

import zlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from diveqcodec.container import bitstream, checksums, chunks
from diveqcodec.container import salvage as salvaging
from diveqcodec.container.bitstream import DvqFile, Header, PixelData, TileData
from diveqcodec.container.chunks import METADATA, OF_TILES, TILE, varint_bytes
from diveqcodec.container.salvage import Salvage, notices_of, read_what_is_whole, salvage
from diveqcodec.errors import DamagedError, FormatError
from tests.support.containers import FILTERED, FULL, PATCHED, chunk, header_and_chunks

# Columns of 1024 and 1076, rows of 1024, 1024 and 276: six tiles, two of them lossless.
MIXED = DvqFile(
    Header(2100, 2324, b"modelid8", 7, has_alpha=True),
    (
        TileData(1, b"one", b"a"),
        None,
        TileData(2, b"two", b"b"),
        None,
        TileData(3, b"three" * 9, b"c"),
        TileData(4, b"", b"d"),
    ),
    icc=b"colours",
    lossless=(PixelData(1, 1, 2, b"pixels"),),
)


@pytest.mark.parametrize("file", [FULL, MIXED, FILTERED, PATCHED])
def test_a_whole_file_is_whole(file: DvqFile) -> None:
    found = read_what_is_whole(bitstream.write(file))
    assert found.file == file
    assert not found.lost
    assert found.error is None
    assert found.is_front_whole


def test_nobody_looks_for_what_is_left_unless_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(salvaging, "salvage")
    with pytest.raises(DamagedError, match="truncated"):
        read_what_is_whole(bitstream.write(FULL)[:-1], is_partial=False)


def tiles_of(file: DvqFile) -> list[set[int]]:
    """The tiles that the chunks of a file are about, behind its header; metadata: none."""
    columns = bitstream.grid_columns(file.header.width)
    parts: list[set[int]] = [set() for data in (file.icc, file.exif, file.xmp) if data is not None]
    rectangles = {part.first: set(bitstream.covered(part, columns)) for part in file.lossless}
    for index, tile in enumerate(file.tiles):
        if tile is not None:
            parts += [{index}] * (1 + (tile.alpha is not None))
        elif index in rectangles:
            parts.append(rectangles[index])
    return parts


@pytest.mark.parametrize("file", [FULL, MIXED])
def test_every_damaged_byte_costs_its_chunk_alone(file: DvqFile) -> None:
    head, *chunks = header_and_chunks(file)
    about = tiles_of(file)
    assert len(about) == len(chunks)
    for number, (part, tiles) in enumerate(zip(chunks, about, strict=True)):
        for place in range(len(part)):
            spoiled = bytearray(part)
            spoiled[place] ^= 0x55
            data = b"".join([head, *chunks[:number], bytes(spoiled), *chunks[number + 1 :]])
            found = read_what_is_whole(data)
            assert found.lost == tiles, (number, place)
            is_tile = number > (2 if file is FULL else 0)
            behind = number > (4 if file is FULL else 2)  # the first tile
            assert found.is_front_whole == (behind or (is_tile and place > 0))
            assert isinstance(found.error, DamagedError)
            for index, tile in enumerate(found.file.tiles):
                assert tile == (None if index in tiles else file.tiles[index])


def test_a_wrong_type_does_not_hide_that_metadata_are_lost() -> None:
    head, *chunks = header_and_chunks(FULL)
    for number in range(3):
        spoiled = bytes([chunks[number][0] ^ 0x80]) + chunks[number][1:]
        assert spoiled[0] in OF_TILES
        found = read_what_is_whole(
            b"".join([head, *chunks[:number], spoiled, *chunks[number + 1 :]])
        )
        assert not found.is_front_whole
        assert not found.lost
        (notice,) = notices_of(found, found.lost)
        assert notice == "damaged before its first tile; a colour profile, EXIF or XMP may be lost"


@pytest.mark.parametrize("between", [False, True])
@pytest.mark.parametrize("kind", [METADATA[0], TILE])
def test_what_is_made_to_be_looked_at_over_and_over_is_read_a_few_times(
    kind: int, between: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, *_ = header_and_chunks(MIXED)
    size, read = 1 << 20, 0

    def crc32(data: bytes, value: int = 0) -> int:
        nonlocal read
        read += len(data)
        return zlib.crc32(data, value)

    one = bytes([kind]) + varint_bytes(size // 2) + (b"\0" if kind == TILE else b"")
    if between:  # so that the way to each leads through a chunk that is whole
        one = chunk(METADATA[0], b"") + one
    data = head + one * (size // len(one))
    with pytest.raises(DamagedError):
        bitstream.read(data)
    for module in (checksums, chunks, salvaging):
        monkeypatch.setattr(module, "zlib", SimpleNamespace(**vars(zlib) | {"crc32": crc32}))
    assert salvage(data).lost == frozenset(range(6))
    looks = size // 2 // len(one)  # the others claim more than there is
    assert looks < read < (looks + 1000) * 8192 * (4 if between else 1)


def test_one_damaged_byte_of_large_tiles_costs_one_tile() -> None:
    random = np.random.default_rng(0)
    bodies = [random.bytes(400_000) for _ in range(6)]
    file = DvqFile(Header(2100, 2324, b"modelid8", 7), tuple(TileData(1, b) for b in bodies))
    data = bytearray(bitstream.write(file))
    for place in (5_000, 1_000_000, 2_300_000):
        data[place] ^= 1
    assert salvage(bytes(data)).lost == frozenset({0, 2, 5})


def test_partial_sums_are_checksums() -> None:
    data = np.random.default_rng(1).bytes(50_000)
    sums = checksums.PartialSums(data)
    ends = [0, 1, 4095, 4096, 4097, 8192, 20_000, 40_960, 49_999, 50_000]
    for start in ends:
        for end in (one for one in ends if one >= start):
            assert sums.crc32(start, end) == zlib.crc32(data[start:end])
            assert sums.crc32(start, end, 77) == zlib.crc32(data[start:end], 77)


def test_every_truncation_keeps_what_was_before() -> None:
    data = bitstream.write(MIXED)
    head, *chunks = header_and_chunks(MIXED)
    ends = np.cumsum([len(head)] + [len(part) for part in chunks])
    about = tiles_of(MIXED)
    for length in range(len(head), len(data)):
        found = read_what_is_whole(data[:length])
        there = [about[i] for i in range(len(chunks)) if ends[i + 1] <= length]
        alone = {4} if len(there) == 7 else set()  # ALPH 4 without its tile
        lost = set(range(6)) - set().union(*there)
        # A transparency alone is no tile: of pairs, the second one counts.
        pairs = {i for i in range(6) if MIXED.tiles[i] is not None}
        half = {i for i in pairs if there.count({i}) == 1}
        assert found.lost == lost | half | alone - set(range(4))


@pytest.mark.parametrize("file", [FILTERED, PATCHED])
def test_a_damaged_filter_or_patch_costs_nothing_else(file: bitstream.DvqFile) -> None:
    head, *chunks = header_and_chunks(file)
    kinds = [part[0] for part in chunks]
    of_a_tile = [2, 4, 5, 1] if file.header.has_patches else [2, 4, 1]
    assert kinds[3:] == of_a_tile * 4
    for number in range(3, len(chunks)):
        index = (number - 3) // len(of_a_tile)
        for spoiled in (chunks[number][:-1] + bytes([chunks[number][-1] ^ 1]), b""):
            data = b"".join([head, *chunks[:number], spoiled, *chunks[number + 1 :]])
            found = read_what_is_whole(data)
            assert isinstance(found.error, DamagedError)
            name = {4: "filters", 5: "patches"}.get(kinds[number])
            assert found.lost == (set() if name else {index})
            for i, tile in enumerate(file.tiles):
                assert tile is not None
                lost = replace(tile, **{name: None}) if name else None  # type: ignore[arg-type]
                assert found.file.tiles[i] == (lost if i == index else tile)


def test_cut_out_repeated_and_swapped_bytes() -> None:
    head, icc, *tiles = header_and_chunks(MIXED)
    whole = [head, icc, *tiles]
    for parts, lost in [
        ([head, icc, *tiles[:3], *tiles[5:]], {2}),  # a tile cut out
        ([*whole[:4], b"garbage", *whole[4:]], set()),
        ([head, icc, *tiles[3:], *tiles[:3]], set()),  # the first ones come last
        ([head, icc, tiles[0], tiles[0], *tiles[1:]], set()),
        ([head, *tiles, icc], set()),
    ]:
        assert salvage(b"".join(parts)).lost == lost
    assert read_what_is_whole(b"".join([head, *tiles, icc])).file.icc is None


def test_what_this_program_does_not_know_is_an_error() -> None:
    head, *rest = header_and_chunks(FULL)
    with pytest.raises(FormatError, match="chunk type 112 is unknown"):
        read_what_is_whole(head + chunk(0x70, b"from the future") + b"".join(rest))
    with pytest.raises(FormatError, match="header"):
        read_what_is_whole(head[:9] + b"x" + head[10:] + b"".join(rest))


def test_lost_tiles_are_described() -> None:
    assert notices_of(Salvage(MIXED), {4, 1}) == (
        "tile 1 of 6 is damaged; its 1076x1024 pixels at 1024,0 are grey",
        "tile 4 of 6 is damaged; its 1024x276 pixels at 0,2048 are grey",
    )


def test_lost_filters_and_patches_are_described() -> None:
    assert notices_of(Salvage(MIXED), {4}, {2, 4}, {2, 0}) == (
        "tile 0 of 6: its patches are damaged; its 1024x1024 pixels at 0,0 are smooth where those"
        " were",
        "tile 2 of 6: its filters are damaged; its 1024x1024 pixels at 0,1024 are not filtered",
        "tile 2 of 6: its patches are damaged; its 1024x1024 pixels at 0,1024 are smooth where"
        " those were",
        "tile 4 of 6 is damaged; its 1024x276 pixels at 0,2048 are grey",
    )
