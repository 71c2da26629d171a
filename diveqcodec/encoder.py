"""A picture to the bytes of a file: which tiles are lossless, and the coding of the others.

A tile that looks drawn is coded both ways. It is lossless if its bits are fewer than what the
networks' tile costs at the quality asked for: its bits, and its error at the price of the quality.
So lossless always wins where it is smaller. Parts of a tile that look drawn become patches by the
same price; networks then see the picture as if it were transparent there. With a `Refiner` a tile
is coded twice, its latent as the analysis gives it and refined, and the cheaper one is kept by the
same price. Knows nothing of files on disk.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diveqcodec import patching
from diveqcodec.container import alpha, bitstream, drawnparts, filters, lossless, patches, pixelfile
from diveqcodec.container.bitstream import NO_MODEL, Tile, TileData
from diveqcodec.container.entropy import Encoder
from diveqcodec.container.grid import meets
from diveqcodec.container.patches import Patch
from diveqcodec.container.pixelfile import Layout, area_of
from diveqcodec.container.regions import close
from diveqcodec.exact.tile import Tally, TileCoder, TileSource
from diveqcodec.image import Picture
from diveqcodec.model.candidates import GRID_BITS
from diveqcodec.model.dvq import STRIDE
from diveqcodec.parallel import Progress, ordered_map
from diveqcodec.patching import Candidate
from diveqcodec.quality import Lossless, lambda_of
from diveqcodec.refinement import Refiner, TileView
from diveqcodec.tilefilters import FilterSearch
from diveqcodec.windows import Networks, Window, quality_bin_of, seen_pixels, source_of

_EDGE = STRIDE  # pixels at a tile's inner borders that say little of its error: see `_error`
_CHUNK_BITS = 8 * 11  # of the container, for a tile


@dataclass(frozen=True, slots=True)
class CodingJob:
    """How a picture is to be coded.

    Attributes:
        gain: The gain index.
        rate: Multiplier of the bits in the assignment of codewords.
        effort: 1 ... 9, of the search for small lossless tiles, and for filters.
        lossless: Which tiles, or patches of them, may be; "always" is no matter for networks.
        tally: Collects ideal bits by part; only with "never".
        progress: Is told of every tile, and of every round in it.
        workers: Tiles that are worked on at once; with a refiner, which needs much memory, one.
        refiner: Works latents over.
        is_filtered: Whether filters are sought.
    """

    gain: int
    rate: float
    effort: int
    lossless: Lossless = "auto"
    tally: Tally | None = None
    progress: Progress | None = None
    workers: int = 1
    refiner: Refiner | None = None
    is_filtered: bool = True

    @property
    def rounds(self) -> int:
        """In which a tile is refined."""
        return 0 if self.refiner is None else self.refiner.rounds


@dataclass(frozen=True, slots=True)
class _Trial:
    """A tile as the networks code all of it, if that was needed, and what it costs, in bits.

    Attributes:
        coded: Without patches.
        patches: Those that pay.
        coded_cost: With them.
        lossless_cost: As a lossless tile.
    """

    coded: TileData | None
    patches: tuple[Patch, ...] = ()
    coded_cost: float = 0.0
    lossless_cost: float = field(default=float("inf"))


class PictureEncoder:
    """Codes one picture."""

    def __init__(self, networks: Networks, picture: Picture, job: CodingJob) -> None:
        self.networks, self.picture, self.job = networks, picture, job
        self.model = networks.model
        header = pixelfile.header_of(picture, self.model.model_id, job.gain)
        self.header = replace(header, has_mirror=networks.has_mirror)
        self.layout = Layout.of(self.header)
        self.whole = Tile(0, 0, self.header.width, self.header.height)
        self._done = 0
        self._look_at(picture)

    def run(self) -> bytes:
        """The bytes of the file."""
        if self.job.lossless != "never" and pixelfile.is_of_one_colour(self.picture):
            return pixelfile.compress(self.picture)
        grid, layout, job = self.layout.grid, self.layout, self.job
        trials = list(ordered_map(self._try, grid, self._workers))
        if any(trial.lossless_cost < trial.coded_cost for trial in trials):
            self._choose(trials)
        regions = layout.regions()
        self._advance((len(grid) - len(regions)) * job.rounds)
        patched = {index: trials[index].patches for index in regions if trials[index].patches}
        hidden = [patch.within(grid[index]) for index, found in patched.items() for patch in found]
        if hidden:
            self._look_at(patching.hiding(self.picture, hidden))
        again = [
            (index, region)
            for index, region in regions.items()
            if job.rounds
            or self._window(index, region) != self._window(index, self.whole)
            or any(meets(place, self._window(index, region).pixels) for place in hidden)
        ]
        kept = ((index, trials[index].coded) for index in regions)
        coded = {index: data for index, data in kept if data is not None}
        # what gradients go through takes 0.3 GB for 768x512 pixels, so it is one tile at a time
        results = ordered_map(self._again, again, 1 if job.rounds else self._workers)
        coded |= {index: data for (index, _), data in zip(again, results, strict=True)}
        return self._written(coded, {i: patches.pack(found) for i, found in patched.items()})

    def _written(self, coded: dict[int, TileData], patched: dict[int, bytes]) -> bytes:
        """The bytes of the file: tiles that networks coded, and packed patches of some of them."""
        parts = pixelfile.pack_tiles(self.picture, self.layout, self.job.effort)
        header = self.header
        if not coded:
            header = replace(header, model_id=NO_MODEL, gain_index=0, has_mirror=False)
        if any(data.filters for data in coded.values()):
            header = replace(header, has_filters=True)
        else:
            coded = {index: replace(data, filters=None) for index, data in coded.items()}
        if patched:
            header = replace(header, has_patches=True)
            coded = {
                index: replace(data, patches=patched.get(index, b""))
                for index, data in coded.items()
            }
        picture = self.picture
        tiles = tuple(coded.get(index) for index in range(len(self.layout.grid)))
        return bitstream.write(
            bitstream.DvqFile(header, tiles, picture.icc, picture.exif, picture.xmp, tuple(parts))
        )

    def _look_at(self, seen: Picture) -> None:
        """What networks are to see of the picture, and what they are judged by."""
        self.seen = seen
        self.search = FilterSearch(self.networks, seen, self.job.gain, self.job.effort)

    @property
    def _workers(self) -> int:
        return 1 if self.job.tally is not None else min(self.job.workers, len(self.layout.grid))

    def _choose(self, trials: list[_Trial]) -> None:
        """Decide which tiles are lossless."""
        shape = self.layout.lossless.shape
        coded = np.array([trial.coded_cost for trial in trials]).reshape(shape)
        exact = np.array([trial.lossless_cost for trial in trials]).reshape(shape)
        chosen = exact < coded
        extra = np.where(chosen, coded - np.where(chosen, exact, 0), 0)
        self.layout.lossless[:] = ~close(~chosen, extra, coded)

    @torch.inference_mode()
    def _try(self, tile: Tile) -> _Trial:
        """Code a tile by networks and, if it looks drawn, see what it costs without loss.

        What will be refined is coded here only to see whether any of it should be lossless.
        """
        pixels, transparency = area_of(self.picture, tile)
        is_drawn, places = False, list[Tile]()
        shown = pixels  # black where it is hidden
        if transparency is not None:
            shown = np.where(transparency[..., None] > 0, pixels, np.uint8(0))
        if self.job.lossless == "auto":
            is_drawn = lossless.is_drawn(shown)
            places = drawnparts.find(shown)
        if places == [Tile(0, 0, tile.width, tile.height)]:  # a lossless tile does it better
            is_drawn, places = True, []
        if self.job.rounds and not is_drawn and not places:
            self._advance()
            return _Trial(None)
        window = self.networks.window(tile, self.whole)
        tally = Tally(map=np.zeros(window.size)) if places else self.job.tally
        coded, latent = self._code(tile, window, self._source(window), tally)
        hopes: tuple[Candidate, ...] = ()
        if places and tally is not None and tally.map is not None:
            hopes = patching.promising(places, shown, tally.map)
        trial = _Trial(coded)
        if is_drawn or hopes:
            parts = (coded.payload, *coded.front.values())
            loss = self._price() * self._error(tile, latent)
            cost = 8.0 * sum(map(len, parts)) + _CHUNK_BITS + float(loss.sum())
            chosen, saved = patching.choose(hopes, loss, cost)
            trial = _Trial(coded, chosen, cost - saved)
        if trial.patches:  # it will be coded once more, with filters
            better = patching.packed(trial.patches, shown, self.job.effort)
            trial = replace(trial, patches=better)
        else:
            trial = replace(trial, coded=self._filtered(tile, coded, latent))
        if is_drawn:
            exact = lossless.pack(pixels, transparency, effort=1)
            trial = replace(trial, lossless_cost=8.0 * len(exact) + _CHUNK_BITS)
        self._advance()
        return trial

    @torch.inference_mode()
    def _again(self, job: tuple[int, Tile]) -> TileData:
        """Code a tile that sees something else than before, or is to be refined."""
        tile, window = self.layout.grid[job[0]], self._window(*job)
        if self.job.refiner is not None:
            return self._refined(self.job.refiner, tile, window)
        return self._filtered(tile, *self._code(tile, window, self._source(window), self.job.tally))

    def _refined(self, refiner: Refiner, tile: Tile, window: Window) -> TileData:
        """A tile's bytes: refined, or as they would be without where that is no cheaper.

        Each with the filters that pay for it.
        """
        job = self.job
        view = TileView(self.networks, self.seen, window, job.gain, is_grey=self.header.is_grey)
        best: tuple[float, TileSource, TileData] | None = None
        for latent in (view.latent, refiner.refined(view, self._advance)):
            source = source_of(latent, job.rate)
            coded, y_hat = self._code(tile, window, source)
            coded = self._filtered(tile, coded, y_hat)
            packed = coded.filters or b""
            found = filters.unpack(packed, 1 if self.header.is_grey else 3)
            cost = 8.0 * (len(coded.payload) + len(packed))
            cost += view.price * view.exact_error(y_hat, found)
            if best is None or cost < best[0]:
                best = cost, source, coded
        assert best is not None
        _, source, coded = best
        if job.tally is not None:
            self._code(tile, window, source, job.tally)
        return coded

    def _source(self, window: Window) -> TileSource:
        return self.networks.source(self.seen, window, self.job.gain, self.job.rate)

    def _code(
        self, tile: Tile, window: Window, source: TileSource, tally: Tally | None = None
    ) -> tuple[TileData, Tensor]:
        """A tile's bytes without filters, and its latent in units of 2^-8 cells."""
        encoder = Encoder()
        quality_bin = quality_bin_of(self.model, self.job.gain)
        coder = TileCoder(self.model, encoder, quality_bin, window.size, source, tally)
        latent, crc = coder.run()
        transparency = area_of(self.picture, tile)[1]
        packed = None if transparency is None else alpha.pack_alpha(transparency)
        return TileData(crc, encoder.finish(), packed), latent

    def _filtered(self, tile: Tile, coded: TileData, latent: Tensor) -> TileData:
        """A coded tile's bytes with the filters that pay."""
        if not self.job.is_filtered:
            return coded
        return replace(coded, filters=filters.pack(self.search.run(tile, latent)))

    def _error(self, tile: Tile, latent: Tensor) -> NDArray[np.float64]:
        """Squared error of a tile's pixels `[height, width]`, mean of the channels, not filtered.

        Its neighbours are not known here, and what blocks at its border share with them is
        missing; so those are taken to be like the rest.
        """
        alone = self.networks.window(tile, tile)
        is_grey = self.header.is_grey
        cells = latent.float() * 2.0**-GRID_BITS
        decoded = self.networks.pixels(cells, alone, self.job.gain, is_grey=is_grey)
        decoded = decoded[: tile.height, : tile.width]
        error = np.square(decoded.astype(np.int32) - seen_pixels(self.seen, alone)).mean(axis=2)
        transparency = area_of(self.seen, tile)[1]
        if transparency is not None:
            error = np.where(transparency > 0, error, 0)
        is_inside = np.zeros(error.shape, np.bool_)
        is_inside[
            _EDGE * (tile.y > 0) : tile.height - _EDGE * (tile.y + tile.height < self.whole.height),
            _EDGE * (tile.x > 0) : tile.width - _EDGE * (tile.x + tile.width < self.whole.width),
        ] = True
        return np.where(is_inside, error, error[is_inside].mean())

    def _price(self) -> float:
        """What a squared error of one 8-bit step of one pixel is worth in bits."""
        return lambda_of(self.model.config.scale.log_gain(self.job.gain))

    def _window(self, index: int, region: Tile) -> Window:
        return self.networks.window(self.layout.grid[index], region)

    def _advance(self, steps: int = 1) -> None:
        self._done += steps
        if steps and self.job.progress is not None:
            self.job.progress(self._done, len(self.layout.grid) * (1 + self.job.rounds))
