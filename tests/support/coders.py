"""Coders around the coders: one that remembers every call, one that says it again."""

from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from diveqcodec.codec import Codec
from diveqcodec.container import bitstream
from diveqcodec.container.entropy import Decoder, Encoder, EntropyCoder, IntArray, Symbols, Tables
from diveqcodec.exact.tile import TileCoder
from diveqcodec.model.candidates import ESCAPE_LENGTHS
from diveqcodec.model.dvq import STRIDE


@dataclass
class Recorder:
    """Passes calls on to another coder and keeps them."""

    inner: EntropyCoder
    symbols: list[Symbols] = field(default_factory=list)
    classes: list[IntArray] = field(default_factory=list)  # empty for uniform values
    sizes: list[int] = field(default_factory=list)  # of the alphabet

    def code(self, tables: Tables, classes: IntArray, symbols: IntArray | None) -> Symbols:
        return self._keep(self.inner.code(tables, classes, symbols), classes, tables.symbols)

    def uniform(self, size: int, count: int, values: IntArray | None) -> Symbols:
        return self._keep(self.inner.uniform(size, count, values), np.zeros(0, np.int64), size)

    def _keep(self, coded: Symbols, classes: IntArray, size: int) -> Symbols:
        self.symbols.append(coded)
        self.classes.append(classes)
        self.sizes.append(size)
        return coded

    def flags(self) -> list[int]:
        """The flag of every pass."""
        calls = zip(self.symbols, self.sizes, self.classes, strict=True)
        return [int(s[0]) for s, size, c in calls if size == 2 and len(c)]

    def optional(self) -> list[int]:
        """Whether each of the optional slices is coded."""
        found, rest = [], 0  # raw parts of escaped coordinates that are still to come
        for symbols, size, classes in zip(self.symbols, self.sizes, self.classes, strict=True):
            if len(classes):
                continue
            if size == ESCAPE_LENGTHS:
                rest = int((symbols > 0).sum() + (symbols > 12).sum())
            elif rest:
                rest -= 1
            elif size == 2:
                found.append(int(symbols[0]))
        return found

    def escaped(self) -> int:
        """How many lattice coordinates followed an escape symbol."""
        calls = zip(self.symbols, self.sizes, self.classes, strict=True)
        return sum(len(s) for s, size, c in calls if size == ESCAPE_LENGTHS and not len(c))


@dataclass
class Replay:
    """Writes given symbols, whatever it is asked to write."""

    inner: Encoder
    symbols: list[Symbols]
    position: int = 0

    def code(self, tables: Tables, classes: IntArray, symbols: IntArray | None) -> Symbols:
        return self.inner.code(tables, classes, self._next())

    def uniform(self, size: int, count: int, values: IntArray | None) -> Symbols:
        return self.inner.uniform(size, count, self._next())

    def _next(self) -> Symbols:
        self.position += 1
        return self.symbols[self.position - 1]


@dataclass(frozen=True)
class DecodedTile:
    """What a tile of a file holds: every call, the latent in 2^-8 cells `[h, w, C]`, the CRC."""

    calls: Recorder
    latent: Tensor
    crc: int


def decoded_tiles(codec: Codec, data: bytes) -> list[DecodedTile]:
    """Decode the indices of every tile of a file, without the networks."""
    file = bitstream.read(data)
    grid = bitstream.tile_grid(file.header.width, file.header.height)
    tiles = []
    for tile, content in zip(grid, file.tiles, strict=True):
        assert content is not None, "a lossless tile has no indices"
        calls = Recorder(Decoder(content.payload))
        coder = TileCoder(codec.model, calls, quality_bin(codec, file), positions(tile))
        latent, crc = coder.run()
        tiles.append(DecodedTile(calls, latent, crc))
    return tiles


def rewritten(codec: Codec, data: bytes) -> bytes:
    """The file whose payloads are written anew from the decoded indices."""
    file = bitstream.read(data)
    grid = bitstream.tile_grid(file.header.width, file.header.height)
    tiles = []
    decoded = decoded_tiles(codec, data)
    for tile, content, known in zip(grid, file.tiles, decoded, strict=True):
        assert content is not None
        encoder = Encoder()
        replay = Replay(encoder, known.calls.symbols)
        _, crc = TileCoder(codec.model, replay, quality_bin(codec, file), positions(tile)).run()
        finished = encoder.finish()
        tiles.append(replace(content, index_crc=crc, payload=finished))
    return bitstream.write(
        bitstream.DvqFile(file.header, tuple(tiles), file.icc, file.exif, file.xmp)
    )


def quality_bin(codec: Codec, file: bitstream.DvqFile) -> int:
    return codec.model.config.scale.bin(file.header.gain_index)


def positions(tile: bitstream.Tile) -> tuple[int, int]:
    return -(-tile.height // STRIDE), -(-tile.width // STRIDE)
