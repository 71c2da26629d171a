"""Pictures <-> bytes: the only room where bytes, pixels and networks meet.

A picture is cut into tiles that are coded on their own. The networks run on windows that overlap
by more than their receptive field, so that tiles leave no seams; memory does not grow with the
picture but for its pixels and latent.

Knows nothing of files on disk, nor of the command line.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diveqcodec import alpha, bitstream
from diveqcodec.entropy import Decoder, Encoder
from diveqcodec.errors import ConfigError, ModelError
from diveqcodec.fixedprior import GRID_BITS
from diveqcodec.image import Picture
from diveqcodec.layers import fast_dtype
from diveqcodec.model import STRIDE, pad_to
from diveqcodec.quality import DEFAULT_QUALITY, RATE, gain_index
from diveqcodec.tilecoder import Source, Tally, TileCoder, check_crc
from diveqcodec.weights import CodingModel

EFFORTS = {1: 0.0, 5: RATE}  # effort -> multiplier of the bits in the assignment
DEFAULT_EFFORT = 5


@dataclass(frozen=True, slots=True)
class _Window:
    """A tile in units of positions, and the window around it that the networks see."""

    top: int
    left: int
    height: int
    width: int
    outer: tuple[int, int, int, int]  # top, left, bottom, right

    @property
    def inner(self) -> tuple[slice, slice]:
        """Where the tile lies in its window."""
        top, left = self.top - self.outer[0], self.left - self.outer[1]
        return slice(top, top + self.height), slice(left, left + self.width)


class Codec:
    """Compresses and decompresses with one model.

    Args:
        model: loaded weights.
        device: where the float networks run: where the model was loaded to.
        networks: dtype of the float networks; "auto" takes bfloat16 where the processor has it.
    """

    def __init__(
        self,
        model: CodingModel,
        device: torch.device | None = None,
        networks: torch.dtype | None = None,
    ) -> None:
        self.model = model
        self.device = device or torch.device("cpu")
        self.networks = networks or fast_dtype(self.device)
        self._margin = -(-model.transforms.reach // STRIDE)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    def compress(
        self,
        picture: Picture,
        quality: float = DEFAULT_QUALITY,
        effort: int = DEFAULT_EFFORT,
    ) -> bytes:
        """Compress a picture to the bytes of a `.dvq` file.

        Args:
            picture: pixels and what belongs to them.
            quality: 1 (smallest) to 100 (best).
            effort: 1 nearest codewords, 5 rate-aware.

        Raises:
            ConfigError: quality or effort out of range.
        """
        gain = gain_index(quality)
        if effort not in EFFORTS:
            raise ConfigError(f"effort {effort}: use one of {', '.join(map(str, EFFORTS))}")
        return self.compress_at(picture, gain, effort)

    @torch.inference_mode()
    def compress_at(
        self, picture: Picture, gain: int, effort: int = DEFAULT_EFFORT, tally: Tally | None = None
    ) -> bytes:
        """As `compress`, at a gain index 0 ... 65535; `tally` collects ideal bits by part."""
        height, width = picture.pixels.shape[:2]
        header = bitstream.Header(
            width=width,
            height=height,
            model_id=self.model.model_id,
            gain_index=gain,
            is_grey=picture.pixels.shape[2] == 1,
            has_alpha=picture.alpha is not None,
        )
        rows, columns = -(-height // STRIDE), -(-width // STRIDE)
        tiles = []
        for tile in bitstream.tile_grid(width, height):
            window = self._window(tile, rows, columns)
            source = self._source(picture, window, gain, EFFORTS[effort])
            encoder = Encoder()
            size = (window.height, window.width)
            coder = TileCoder(self.model, encoder, self._bin(gain), size, source, tally)
            _, crc = coder.run()
            packed = None
            if picture.alpha is not None:
                part = picture.alpha[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
                packed = alpha.pack_alpha(part)
            tiles.append(bitstream.TileData(crc, encoder.finish(), packed))
        return bitstream.write(
            bitstream.DvqFile(header, tuple(tiles), picture.icc, picture.exif, picture.xmp)
        )

    @torch.inference_mode()
    def decompress(self, data: bytes) -> Picture:
        """Decompress the bytes of a `.dvq` file; the inverse of `compress`, but for what it lost.

        Raises:
            FormatError: not a `.dvq` file, of a newer version, or damaged (`DamagedError`).
            ModelError: coded with another model.
        """
        file = bitstream.read(data)
        header = file.header
        self.check_model(header.model_id)
        rows, columns = -(-header.height // STRIDE), -(-header.width // STRIDE)
        grid = bitstream.tile_grid(header.width, header.height)
        latent = torch.empty(rows, columns, self.model.config.channels)
        transparency = None
        if header.has_alpha:
            transparency = np.empty((header.height, header.width), dtype=np.uint8)
        for number, (tile, data_of_tile) in enumerate(zip(grid, file.tiles, strict=True)):
            window = self._window(tile, rows, columns)
            decoder = Decoder(data_of_tile.payload)
            size = (window.height, window.width)
            y_hat, crc = TileCoder(self.model, decoder, self._bin(header.gain_index), size).run()
            check_crc(crc, data_of_tile.index_crc, number)
            decoder.finish()
            inside = latent[window.top :, window.left :][: window.height, : window.width]
            inside.copy_(y_hat * 2.0**-GRID_BITS)
            if transparency is not None and data_of_tile.alpha is not None:
                area = slice(tile.y, tile.y + tile.height), slice(tile.x, tile.x + tile.width)
                transparency[area] = alpha.unpack_alpha(data_of_tile.alpha, tile.height, tile.width)
        pixels = np.empty((header.height, header.width, 1 if header.is_grey else 3), np.uint8)
        for tile in grid:
            window = self._window(tile, rows, columns)
            area = slice(tile.y, tile.y + tile.height), slice(tile.x, tile.x + tile.width)
            colours = self._pixels(latent, window, header.gain_index)[: tile.height, : tile.width]
            pixels[area] = _grey(colours) if header.is_grey else _bytes(colours)
        return Picture(pixels, transparency, file.icc, file.exif, file.xmp)

    def check_model(self, model_id: bytes) -> None:
        """Refuse a file of another model.

        Raises:
            ModelError: `model_id` is not this codec's.
        """
        if model_id != self.model.model_id:
            raise ModelError(
                f"needs model {model_id.hex()}, not {self.name} ({self.model.model_id.hex()})"
            )

    def parts(self, data: bytes) -> dict[str, int]:
        """Bits of a file by part: ideal code lengths of the latents, and all the rest."""
        file = bitstream.read(data)
        tally = Tally()
        rows = -(-file.header.height // STRIDE), -(-file.header.width // STRIDE)
        grid = bitstream.tile_grid(file.header.width, file.header.height)
        for tile, content in zip(grid, file.tiles, strict=True):
            window = self._window(tile, *rows)
            decoder = Decoder(content.payload)
            size = (window.height, window.width)
            quality_bin = self._bin(file.header.gain_index)
            TileCoder(self.model, decoder, quality_bin, size, tally=tally).run()
        parts = {name: round(bits) for name, bits in tally.bits.items()}
        parts["container"] = 8 * len(data) - sum(parts.values())
        return parts

    def synchronise(self) -> None:
        """Wait until the device has done all it was asked to, for timing."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _bin(self, gain: int) -> int:
        return self.model.config.scale.bin(gain)

    def _window(self, tile: bitstream.Tile, rows: int, columns: int) -> _Window:
        top, left = tile.y // STRIDE, tile.x // STRIDE
        height, width = -(-tile.height // STRIDE), -(-tile.width // STRIDE)
        margin = self._margin
        outer = (
            max(0, top - margin),
            max(0, left - margin),
            min(rows, top + height + margin),
            min(columns, left + width + margin),
        )
        return _Window(top, left, height, width, outer)

    def _source(self, picture: Picture, window: _Window, gain: int, rate: float) -> Source:
        """Run the analysis for a tile."""
        top, left, bottom, right = (side * STRIDE for side in window.outer)
        seen = picture.pixels[top:bottom, left:right].copy()  # torch wants to own what it reads
        if picture.alpha is not None:
            seen = alpha.fill_hidden(seen, picture.alpha[top:bottom, left:right])
        part = torch.from_numpy(seen)
        x = part.to(self.device).permute(2, 0, 1)[None].float() / 255
        x = pad_to(x.expand(1, 3, -1, -1), STRIDE).contiguous(memory_format=torch.channels_last)
        transforms = self.model.transforms
        log_gain = self._log_gain(gain)
        with self._autocast():
            y = transforms.encode_latent(x, log_gain)
            rows, columns = window.inner
            y = y[:, :, rows, columns]
        return Source(_as_rows(y), rate)

    def _pixels(self, latent: Tensor, window: _Window, gain: int) -> Tensor:
        """Run synthesis for a tile: float `[h * 16, w * 16, 3]`, nominally in [0, 255]."""
        top, left, bottom, right = window.outer
        part = latent[top:bottom, left:right].to(self.device).permute(2, 0, 1)[None]
        part = part.contiguous(memory_format=torch.channels_last)
        with self._autocast():
            x = self.model.transforms.decode_latent(part, self._log_gain(gain))
        rows, columns = (slice(s.start * STRIDE, s.stop * STRIDE) for s in window.inner)
        return x[0, :, rows, columns].permute(1, 2, 0) * 255

    def _log_gain(self, gain: int) -> Tensor:
        return torch.tensor([self.model.config.scale.log_gain(gain)], device=self.device)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        enabled = self.networks != torch.float32
        return torch.autocast(self.device.type, self.networks, enabled=enabled)


def _as_rows(grid: Tensor) -> Tensor:
    """`[1, C, h, w]` to float32 `[h, w, C]` on the CPU, where the exact part runs."""
    return grid[0].permute(1, 2, 0).float().contiguous().cpu()


def _bytes(colours: Tensor) -> NDArray[np.uint8]:
    result: NDArray[np.uint8] = colours.round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return result


def _grey(colours: Tensor) -> NDArray[np.uint8]:
    return _bytes(colours.mean(2, keepdim=True))
