"""One tile's latent <-> symbols: the traversal that both directions share.

Order of symbols: slice by slice, for an optional one first whether it is coded; then pass by pass:
a flag, the coarse symbols, their escapes, the fine symbols, their escapes. Groups of size class 0
are skipped: they cost nothing and are the null codeword, unless the flag of the pass says that they
are coded with class 1 after all, which keeps latents that the prior did not expect from being lost.

The same function writes and reads; only where the symbols come from differs. Knows latents and
coders: nothing of pixels or files.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diveqcodec.container.entropy import TOTAL, EntropyCoder, Tables, ideal_bits
from diveqcodec.errors import DamagedError
from diveqcodec.exact.prior import GroupRows
from diveqcodec.exact.weights import CodingLayer, CodingModel
from diveqcodec.model.candidates import ESCAPE_LENGTHS, GRID
from diveqcodec.model.recorder import is_worth_coding
from diveqcodec.model.search import Choice, choose, choose_pair, rate_in_files
from diveqcodec.quality import RATE

# The flag of a pass: 1 in 64 passes is expected to code its skipped groups.
_RARITY = 6  # bits of a flag that is set
_RARE = TOTAL >> _RARITY
_FLAG = Tables(np.array([[TOTAL - _RARE, _RARE]], dtype=np.uint32))
_DEAR = 10.0  # bits a channel that a symbol of class 1, which is seldom more than null, may cost


@dataclass(frozen=True, slots=True)
class TileSource:
    """What an encoder has: the latent in cells `[h, w, C]`, float32.

    `rate` multiplies the bits in the assignment, of every slice its share (`rate_in_files`); 0
    assigns nearest codewords.
    """

    latent: Tensor
    rate: float = RATE


@dataclass(slots=True)
class Tally:
    """Ideal bits by part, collected when asked for: "slice 0", ...; and by place, if asked for too.

    Attributes:
        bits: Of every part.
        map: Of every position of a tile, float64 `[h, w]`, without what escapes and flags cost.
    """

    bits: dict[str, float] = field(default_factory=dict)
    map: NDArray[np.float64] | None = None

    def add(self, part: str, bits: float) -> None:
        """Count bits of a part."""
        self.bits[part] = self.bits.get(part, 0.0) + bits


class TileCoder:
    """Codes one tile of `size` (h, w) positions with `coder`, from `source` or from its payload."""

    def __init__(
        self,
        model: CodingModel,
        coder: EntropyCoder,
        quality_bin: int,
        size: tuple[int, int],
        source: TileSource | None = None,
        tally: Tally | None = None,
    ) -> None:
        self.model, self.coder, self.quality_bin = model, coder, quality_bin
        self.size, self.source, self.tally = size, source, tally
        self.crc = 0
        self._places = torch.empty(0, dtype=torch.int64)  # the positions of the pass

    def run(self) -> tuple[Tensor, int]:
        """Code the tile.

        Returns:
            ŷ `[h, w, C]` in units of 2^-8 cells, float64; CRC-32 of all symbols.

        Raises:
            DamagedError: the payload is not one that an encoder wrote.
        """
        y_hat = self.model.prior.walk(self.quality_bin, self.size, self)
        return y_hat, self.crc

    def is_coded(self, s: int) -> bool:
        """Code whether the optional slice `s` is coded; see `SliceCoder`."""
        wanted = None
        if self.source is not None:
            y = self.source.latent[:, :, self.model.config.part(s)].flatten(0, 1)
            worth = is_worth_coding(y[None], self.model.config.group)
            wanted = np.array([int(worth)], dtype=np.int32)
        return bool(self.coder.uniform(2, 1, wanted)[0])

    def code(self, s: int, places: Tensor, mean: Tensor, rows: GroupRows) -> Tensor:
        """Code one pass of a slice; see `SliceCoder`."""
        d = self.model.config.group
        count, channels = mean.shape
        self._places = places
        fine, skipped = rows.fine.flatten(), rows.skipped.flatten()
        residual = None
        if self.source is not None:
            latent = self.source.latent.reshape(-1, self.source.latent.shape[-1])
            y = latent[places, self.model.config.part(s)]
            residual = (y - mean.float() / GRID).reshape(-1, d)
        if self._flag(residual, skipped):
            fine = torch.where(skipped, fine + self.model.config.shapes, fine)
            skipped = torch.zeros_like(skipped)
        choice = None if residual is None else self._choose(s, residual, fine, rows.coarse)
        e = torch.zeros(count * channels // d, d, dtype=torch.float64, device=mean.device)
        part = f"slice {s}"
        if rows.coarse is not None and rows.coarse_skipped is not None:
            assert self.model.coarse is not None
            coarse, gone = rows.coarse.flatten(), rows.coarse_skipped.flatten()
            symbols = None if choice is None else choice.coarse
            coordinates = None if choice is None else choice.coarse_coordinates
            e += self._layer(part, self.model.coarse, coarse, gone, symbols, coordinates)
        symbols = None if choice is None else choice.fine
        coordinates = None if choice is None else choice.fine_coordinates
        e += self._layer(part, self.model.fine, fine, skipped, symbols, coordinates)
        return mean + e.view(count, channels)

    def _choose(self, s: int, r: Tensor, fine: Tensor, coarse: Tensor | None) -> Choice:
        assert self.source is not None
        model = self.model
        rate = rate_in_files(self.source.rate, model.config.part(s).start)
        if coarse is None or model.coarse is None:
            return choose(model.fine.search, r, fine, model.fine.bits, rate=rate)
        tables = model.fine.bits, model.coarse.bits
        searches = model.fine.search, model.coarse.search
        return choose_pair(searches, r, (fine, coarse.flatten()), tables, rate=rate)

    def _flag(self, residual: Tensor | None, skipped: Tensor) -> bool:
        """Whether skipped groups of this pass are coded after all."""
        wish = None
        if residual is not None:
            lost = residual[skipped].square().sum(1)
            shapes, d = self.model.config.shapes, self.model.config.group
            # In squared cells: a coded group keeps 1 / 12 a channel, and pays for its symbol; all
            # others pay for a null codeword of class 1 where they were free, and the flag is dear.
            null = float(self.model.fine.bits[shapes : 2 * shapes, 0].mean())
            saved = (lost - (d / 12 + RATE * (_DEAR * d))).clamp(min=0).sum()
            spent = RATE * null * len(lost) + RATE * _RARITY
            wish = np.array([float(saved) > spent], dtype=np.int32)
        return bool(self.coder.code(_FLAG, np.zeros(1, dtype=np.int64), wish)[0])

    def _layer(
        self,
        part: str,
        layer: CodingLayer,
        rows: Tensor,
        skipped: Tensor,
        symbols: Tensor | None,
        coordinates: Tensor | None,
    ) -> Tensor:
        """Code the symbols of one layer, `[N]` groups; error vectors `[N, d]`, 2^-8 cells."""
        kept = (~skipped).nonzero()[:, 0]
        classes = rows[kept].cpu().numpy()
        wanted = None if symbols is None else symbols[kept].cpu().numpy().astype(np.int32)
        coded = self.coder.code(layer.tables, classes, wanted)
        self._note(coded)
        if self.tally is not None:
            self.tally.add(part, ideal_bits(layer.tables, classes, coded))
            if self.tally.map is not None:
                bits = layer.bits.cpu().numpy()[classes, coded]
                groups = len(rows) // len(self._places)
                where = self._places.cpu().numpy()[kept.cpu().numpy() // groups]
                counts = np.bincount(where, bits, self.tally.map.size)
                self.tally.map += counts.reshape(self.tally.map.shape)
        padded = torch.cat([layer.codewords, layer.codewords.new_zeros(1, layer.basis.shape[0])])
        index = torch.from_numpy(coded.astype(np.int64)).to(rows.device)
        e = torch.zeros(len(rows), layer.basis.shape[0], dtype=torch.float64, device=rows.device)
        e[kept] = padded[index].double()
        escaped = kept[index == len(layer.codewords)]
        if len(escaped):
            given = None
            if coordinates is not None:
                given = coordinates[escaped].cpu().numpy().astype(np.int64)
            points = self._escapes(part, len(escaped) * layer.basis.shape[0], given)
            grid = torch.from_numpy(points).to(rows.device).view(len(escaped), -1).double()
            e[escaped] = grid @ layer.basis.double()
        return e

    def _escapes(self, part: str, count: int, given: NDArray[np.int64] | None) -> NDArray[np.int64]:
        """Code lattice coordinates: for each the bit length of its folded value, then its bits.

        A coordinate c is folded to 2c or -2c - 1 and raised by one; that number has n + 1 bits, of
        which n is coded in [0, 25), then all but the leading one, in halves of at most 12 bits.
        """
        coder = self.coder
        folded = None
        if given is not None:
            flat = given.reshape(-1)
            folded = np.where(flat >= 0, 2 * flat, -2 * flat - 1) + 1
            wanted = np.array([int(v).bit_length() - 1 for v in folded], dtype=np.int64)
        lengths = coder.uniform(ESCAPE_LENGTHS, count, None if folded is None else wanted)
        values = np.zeros(count, dtype=np.int64)
        for i, length in enumerate(lengths.tolist()):
            rest = None if folded is None else int(folded[i]) - (1 << length)
            low_bits = min(length, 12)
            high = low = 0
            if length > low_bits:
                high = self._raw(length - low_bits, None if rest is None else rest >> low_bits)
            if low_bits:
                low = self._raw(low_bits, None if rest is None else rest & ((1 << low_bits) - 1))
            values[i] = (1 << length) + (high << low_bits) + low
        values -= 1
        self._note(values.astype(np.int32))
        if self.tally is not None:
            bits = count * np.log2(ESCAPE_LENGTHS) + float(lengths.sum())
            self.tally.add(part, bits)
        return np.where(values % 2 == 0, values // 2, -(values + 1) // 2)

    def _raw(self, bits: int, value: int | None) -> int:
        wanted = None if value is None else np.array([value], dtype=np.int32)
        return int(self.coder.uniform(1 << bits, 1, wanted)[0])

    def _note(self, symbols: NDArray[np.int32]) -> None:
        self.crc = zlib.crc32(symbols.astype("<i4").tobytes(), self.crc)


def check_crc(found: int, expected: int, tile: int) -> None:
    """Compare the CRC of decoded symbols with the one in the file.

    Raises:
        DamagedError: they differ.
    """
    if found != expected:
        raise DamagedError(f"damaged: the indices of tile {tile} do not match their checksum")
