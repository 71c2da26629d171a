"""The container: write and read are inverses; every damage and limit is an error with a name."""

import re
import struct
import tracemalloc
import zlib
from dataclasses import replace

import pytest

from diveqcodec.container import bitstream, chunks, header
from diveqcodec.container.bitstream import (
    DvqFile,
    Header,
    PixelData,
    Tile,
    TileData,
    read,
    read_header,
    tile_grid,
    write,
)
from diveqcodec.errors import DamagedError, FormatError
from diveqcodec.limits import MAX_METADATA
from tests.support.containers import (
    FILTERED,
    FULL,
    HEADER,
    PATCHED,
    SMALL,
    chunk,
    header_and_chunks,
)


@pytest.mark.parametrize(
    "file", [SMALL, FULL, FILTERED, PATCHED, replace(FULL, icc=None, exif=None, xmp=None)]
)
def test_read_inverts_write(file):
    data = write(file)
    assert read(data) == file
    assert read_header(data) == file.header
    assert read_header(data[: bitstream.HEADER_BYTES]) == file.header


def test_golden_bytes():
    assert write(SMALL).hex() == (
        "8b445651"  # magic
        "01"
        "00"  # version, flags
        "6d6f64656c696438"  # model id
        "cdab"  # gain index
        "8004"
        "cd02"  # width, height
        "f1e97337"
        "01"
        "0c"
        "00"
        "78563412" + b"payload".hex() + "1076e6b4"
    )


def test_overhead_of_a_small_picture():
    file = replace(SMALL, tiles=(TileData(0, bytes(9000)),))
    assert len(write(file)) - 9000 == 36


@pytest.mark.parametrize("file", [SMALL, FULL, FILTERED, PATCHED])
def test_every_truncation_is_an_error(file):
    data = write(file)
    for length in range(len(data)):
        with pytest.raises(FormatError):
            read(data[:length])
    for length in range(len(header.header_bytes(file.header))):
        with pytest.raises(FormatError):
            read_header(data[:length])


@pytest.mark.parametrize("file", [SMALL, FULL, FILTERED, PATCHED])
def test_every_flipped_bit_is_an_error(file):
    data = write(file)
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            read(bytes(flipped))


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"", FormatError, "not a .dvq file: it is empty"),
        (b"\x89PNG\r\n\x1a\n", FormatError, "not a .dvq file"),
        (
            bitstream.MAGIC + b"\x03",
            FormatError,
            "written in bitstream version 3; this program reads 1",
        ),
        (write(SMALL)[:30], DamagedError, "damaged: truncated, 30 bytes cannot hold the 1 tiles"),
        (write(SMALL)[:-1], DamagedError, "damaged: truncated in chunk TILE"),
        (write(SMALL) + b"\0", DamagedError, "damaged: 1 bytes follow the last tile"),
        (
            write(SMALL)[:-1] + b"\0",
            DamagedError,
            "damaged: the checksum of chunk TILE 0 does not match",
        ),
    ],
)
def test_messages(data, error, message):
    with pytest.raises(error, match=re.escape(message)) as caught:
        read(data)
    assert type(caught.value) is error


def test_missing_repeated_and_unordered_chunks_are_named():
    head, icc, exif, xmp, *tiles = header_and_chunks(FULL)
    alpha0, tile0, alpha1, tile1, *rest = tiles
    full = [head, icc, exif, xmp, *tiles]
    assert b"".join(full) == write(FULL)
    for parts, message in [
        ([head, icc, icc, *tiles], "a second ICC"),
        ([head, exif, icc, *tiles], "ICC is out of order"),
        ([head, alpha0, xmp, *tiles[1:]], "XMP is out of order"),
        ([head, *tiles, xmp], "bytes follow the last tile"),
        ([head, tile0, alpha1, tile1, *rest], "ALPH 0 is missing"),
        ([head, alpha0, alpha0, tile0, alpha1, tile1, *rest], "ALPH 0 is repeated"),
        ([head, alpha0, alpha1, tile1, *rest, *rest], "TILE 0 is missing"),
        ([head, alpha0, tile0, alpha1, tile0, *rest], "TILE 0 is repeated"),
        ([head, alpha0, tile0, *rest, alpha1, tile1], "ALPH 1 is missing or out of order"),
        ([head, *tiles[:-2]], "TILE is missing"),
    ]:
        with pytest.raises(DamagedError, match=message):
            read(b"".join(parts))
    wrong_index = chunk(1, b"\x07" + bytes(4))
    with pytest.raises(DamagedError, match="TILE 7, but there are 4 tiles"):
        read(b"".join([head, alpha0, wrong_index, *rest, *rest]))


def test_alpha_without_its_flag():
    head, tile = header_and_chunks(SMALL)
    with pytest.raises(DamagedError, match="without transparency"):
        read(head + chunk(2, b"\0alpha") + tile)


@pytest.mark.parametrize(
    ("kind", "name", "topic"), [(4, "FILT", "filters"), (5, "PTCH", "patches")]
)
def test_filters_and_patches_without_their_flag(kind, name, topic):
    head, tile = header_and_chunks(SMALL)
    with pytest.raises(DamagedError, match=f"chunk {name} in a picture without {topic}"):
        read(head + chunk(kind, b"\0body") + tile)


def test_missing_repeated_and_unordered_filters_are_named():
    head, icc, exif, xmp, *tiles = header_and_chunks(FILTERED)
    alpha0, filter0, tile0, alpha1, filter1, tile1, *rest = tiles
    assert b"".join([head, icc, exif, xmp, *tiles]) == write(FILTERED)
    for parts, message in [
        ([alpha0, tile0, alpha1, filter1, tile1, *rest], "FILT 0 is missing"),
        ([filter0, alpha0, tile0, alpha1, filter1, tile1, *rest], "ALPH 0 is repeated"),
        ([filter0, tile0, alpha1, filter1, tile1, *rest], "ALPH 0 is missing"),
        ([alpha0, filter0, filter0, tile0, alpha1, filter1, tile1, *rest], "FILT 0 is repeated"),
        ([alpha0, filter1, tile0, alpha1, filter1, tile1, *rest], "FILT 0 is missing or out of"),
        ([alpha0, filter0, alpha1, filter1, tile1, *rest, *rest], "TILE 0 is missing"),
        ([alpha0, filter0, filter1, tile1, *rest, *rest], "TILE 0 is missing"),
        ([alpha0, filter0, tile0, filter0, tile1, *rest, *rest], "FILT 0 is repeated"),
        ([alpha0, filter0, xmp, tile0, alpha1, filter1, tile1, *rest], "XMP is out of order"),
    ]:
        with pytest.raises(DamagedError, match=message):
            read(b"".join([head, *parts]))


def test_missing_repeated_and_unordered_patches_are_named():
    head, icc, exif, xmp, *tiles = header_and_chunks(PATCHED)
    alpha, filters, patches, tile, *rest = tiles
    assert b"".join([head, icc, exif, xmp, *tiles]) == write(PATCHED)
    for parts, message in [
        ([alpha, filters, tile, *rest], "PTCH 0 is missing"),
        ([alpha, patches, filters, tile, *rest], "FILT 0 is repeated or out of order"),
        ([patches, tile, *rest], "ALPH 0 is missing"),
        ([alpha, filters, patches, patches, tile, *rest], "PTCH 0 is repeated"),
        ([alpha, filters, patches, *rest, *rest], "TILE 0 is missing"),
    ]:
        with pytest.raises(DamagedError, match=message):
            read(b"".join([head, *parts]))


def test_filters_of_lossless_tiles_are_damage():
    file = replace(
        MIXED,
        header=replace(MIXED.header, has_filters=True),
        tiles=tuple(None if tile is None else replace(tile, filters=b"f") for tile in MIXED.tiles),
    )
    assert read(write(file)) == file
    head, pixels, *rest = header_and_chunks(file)
    with pytest.raises(DamagedError, match="TILE 0 is missing"):
        read(head + chunk(4, b"\0f") + pixels + b"".join(rest))


@pytest.mark.parametrize(
    ("flag", "field"),
    [(8, {"has_filters": True}), (16, {"has_patches": True}), (32, {"has_mirror": True})],
)
def test_a_header_that_tells_of_what_a_model_does_but_of_no_model(flag, field):
    data = struct.pack("<4sBB", bitstream.MAGIC, 1, 4 + flag) + b"\5\5"
    with pytest.raises(DamagedError, match="of what a model does, but of no model"):
        read_header(data + struct.pack("<I", zlib.crc32(data)))
    with pytest.raises(FormatError, match="filters, patches or a mirror without a model"):
        write(replace(LOSSLESS, header=replace(LOSSLESS.header, **field)))


def test_tile_without_room_for_its_checksum():
    head, _ = header_and_chunks(SMALL)
    with pytest.raises(DamagedError, match="TILE 0 is too short"):
        read(head + chunk(1, b"\0\1\2\3") + bytes(9))


def test_unknown_chunks():
    head, tile = header_and_chunks(SMALL)
    assert read(head + chunk(0xF0, b"from the future") + tile) == SMALL
    with pytest.raises(FormatError, match="chunk type 112 is unknown"):
        read(head + chunk(0x70, b"from the future") + tile)


def header_bytes(width, height, flags=0):
    data = struct.pack("<4sBB8sH", bitstream.MAGIC, 1, flags, b"modelid8", 0)
    data += chunks.varint_bytes(width) + chunks.varint_bytes(height)
    return data + struct.pack("<I", zlib.crc32(data))


@pytest.mark.parametrize(
    ("width", "height", "message"),
    [
        (70_000, 70_000, "claims 70000x70000 pixels; the limit is 268 million"),
        (0, 5, "claims 0x5 pixels; a picture has at least one"),
        (1, (1 << 18) + 1, "claims 1x262145 pixels; the limit of a side is 262144"),
    ],
)
def test_sizes_past_the_limits(width, height, message):
    for call in (read, read_header):
        with pytest.raises(FormatError, match=re.escape(message)):
            call(header_bytes(width, height))
    with pytest.raises(FormatError, match=re.escape(message)):
        write(replace(SMALL, header=replace(HEADER, width=width, height=height)))


def test_pixels_need_bytes():
    head = header_bytes(16_384, 16_384)
    with pytest.raises(DamagedError, match="cannot hold the 256 tiles"):
        read(head + bytes(10))


def test_largest_picture_with_empty_tiles():
    file = DvqFile(replace(HEADER, width=16_384, height=16_384), (TileData(0, b""),) * 256)
    assert read(write(file)) == file


def test_unknown_flags():
    for flags in (0x40, 0x80):
        with pytest.raises(FormatError, match=f"flags {flags:#04x}"):
            read_header(header_bytes(5, 5, flags=flags))


@pytest.mark.parametrize("overlong", [b"\x85\x00", b"\x80\x80\x80\x80\x80\x01"])
def test_overlong_numbers(overlong):
    data = struct.pack("<4sBB8sH", bitstream.MAGIC, 1, 0, bytes(8), 0) + overlong + b"\x05"
    with pytest.raises(DamagedError, match="a number in the header"):
        read_header(data + struct.pack("<I", zlib.crc32(data)) + bytes(8))


def test_inflation_is_capped():
    head, tile = header_and_chunks(SMALL)
    limit = MAX_METADATA
    assert len(read(write(replace(SMALL, icc=bytes(limit)))).icc or b"") == limit
    for size in (limit + 1, 6 * limit):
        bomb = head + chunk(0x81, chunks.deflate(bytes(size))) + tile
        tracemalloc.start()
        with pytest.raises(FormatError, match="ICC inflates past the limit"):
            read(bomb)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 3 * limit
    with pytest.raises(FormatError, match="EXIF data of 16777217 bytes"):
        write(replace(SMALL, exif=bytes(limit + 1)))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"\xff\xff\xff", "cannot be inflated"),
        (chunks.deflate(b"metadata")[:-1], "does not end"),
        (chunks.deflate(b"metadata") + b"x", "does not end"),
    ],
)
def test_bad_deflated_data(body, message):
    head, tile = header_and_chunks(SMALL)
    with pytest.raises(DamagedError, match=message):
        read(head + chunk(0x83, body) + tile)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (replace(SMALL, tiles=SMALL.tiles * 2), "2 tiles given for a picture of 1"),
        (replace(SMALL, header=replace(HEADER, has_alpha=True)), "disagree about transparency"),
        (replace(SMALL, header=replace(HEADER, has_filters=True)), "disagree about filters"),
        (replace(SMALL, header=replace(HEADER, has_patches=True)), "disagree about patches"),
        (replace(SMALL, header=replace(HEADER, model_id=b"short")), "a model id has 8 bytes"),
        (replace(SMALL, header=replace(HEADER, gain_index=1 << 16)), "gain index 65536"),
    ],
)
def test_write_refuses(file, message):
    with pytest.raises(FormatError, match=message):
        write(file)


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 16_383, 16_384, 1 << 28, (1 << 35) - 1])
def test_varints(value):
    data = chunks.varint_bytes(value)
    assert chunks.parse_varint(b"." + data + b".", 1, "a test") == (value, 1 + len(data))


def test_tile_grid_by_hand():
    assert tile_grid(1, 1) == [Tile(0, 0, 1, 1)]
    assert tile_grid(2100, 1300) == [
        Tile(0, 0, 1024, 1024),
        Tile(1024, 0, 1076, 1024),
        Tile(0, 1024, 1024, 276),
        Tile(1024, 1024, 1076, 276),
    ]


@pytest.mark.parametrize("side", [1, 255, 256, 1023, 1024, 1025, 1279, 1280, 2047, 2303, 2304])
def test_tiles_cover_a_picture_once(side):
    tiles = tile_grid(side, 700)
    assert [tile.x for tile in tiles] == [
        sum(t.width for t in tiles[:i]) for i in range(len(tiles))
    ]
    assert sum(tile.width for tile in tiles) == side
    assert max(tile.width for tile in tiles) < 1024 + 256
    assert min(tile.width for tile in tiles) >= min(side, 256)
    assert [(t.y, t.x, t.height, t.width) for t in tile_grid(700, side)] == [
        (t.x, t.y, t.width, t.height) for t in tiles
    ]


# Columns of 1024 and 1076, rows of 1024 and 276.
MIXED = DvqFile(
    Header(2100, 1300, b"modelid8", 7),
    (None, TileData(1, b"one"), None, TileData(2, b"two")),
    lossless=(PixelData(0, 1, 2, b"pixels"),),
)
LOSSLESS = DvqFile(
    Header(2100, 1300, bitstream.NO_MODEL, 0, has_alpha=True),
    (None,) * 4,
    lossless=(PixelData(0, 2, 2, b"\0\1\2\3\4"),),
)


@pytest.mark.parametrize("file", [MIXED, LOSSLESS])
def test_read_inverts_write_of_lossless_tiles(file):
    data = write(file)
    assert read(data) == file
    assert read_header(data) == file.header
    for length in range(len(data)):
        with pytest.raises(FormatError):
            read(data[:length])
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            read(bytes(flipped))


def test_golden_bytes_of_a_lossless_file():
    assert write(LOSSLESS).hex() == (
        "8b445651"
        "01"
        "06"  # version; flags: transparency, no model
        "b410"
        "940a"  # width, height
        "712a2857"
        "03"
        "08"
        "00"
        "02"
        "02"  # PIXL: length, first tile, columns, rows
        "0001020304"
        "9ee54afe"
    )


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ((0, 0, 1), "PIXL 0 leaves the picture"),
        ((0, 1, 0), "PIXL 0 leaves the picture"),
        ((0, 3, 1), "PIXL 0 leaves the picture"),
        ((0, 1, 3), "PIXL 0 leaves the picture"),
        ((1, 1, 1), "PIXL 0 is missing"),
        ((4, 1, 1), "PIXL 4, but there are 4 tiles"),
    ],
)
def test_rectangles_that_do_not_fit(part, message):
    head, _ = header_and_chunks(LOSSLESS)
    body = b"".join(map(chunks.varint_bytes, part)) + b"\0\1\2\3\4"
    with pytest.raises(DamagedError, match=message):
        read(head + chunk(3, body) + bytes(9))


def test_rectangles_and_tiles_meet_only_once():
    head, pixels, tile1, tile3 = header_and_chunks(MIXED)
    row = chunk(3, b"\0\2\1pixels")
    column = chunk(3, b"\1\1\2pixels")
    with pytest.raises(DamagedError, match="TILE 1 is repeated"):
        read(head + row + tile1 + tile3)
    with pytest.raises(DamagedError, match="PIXL 1 is repeated"):
        read(head + row + column + tile3)
    low = chunk(3, b"\2\2\1pixels")
    tile0 = chunk(1, b"\0" + bytes(4))
    with pytest.raises(DamagedError, match="PIXL 2 meets tiles that are there"):
        read(head + tile0 + column + low)
    with pytest.raises(DamagedError, match="bytes follow"):
        read(head + pixels + tile1 + tile3 + pixels)


def test_transparency_before_lossless_tiles_is_damage():
    head, pixels = header_and_chunks(LOSSLESS)
    with pytest.raises(DamagedError, match="TILE 0 is missing"):
        read(head + chunk(2, b"\0\0\xff") + pixels)


def test_a_header_that_names_model_0():
    data = struct.pack("<4sBB8sH", bitstream.MAGIC, 1, 0, bytes(8), 0) + b"\5\5"
    with pytest.raises(DamagedError, match="names model 0"):
        read_header(data + struct.pack("<I", zlib.crc32(data)))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (replace(MIXED, tiles=(None,) * 4), "tile 1 is not given"),
        (replace(MIXED, lossless=()), "tile 0 is not given"),
        (replace(MIXED, tiles=(TileData(0, b""), *MIXED.tiles[1:])), "tile 0 is given twice"),
        (replace(MIXED, lossless=(*MIXED.lossless, PixelData(3, 1, 1, b""))), "PIXL|twice"),
        (replace(LOSSLESS, header=replace(LOSSLESS.header, gain_index=1)), "without a model"),
    ],
)
def test_write_refuses_tiles_that_do_not_fit(file, message):
    with pytest.raises(FormatError, match=message):
        write(file)
