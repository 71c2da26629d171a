"""Pictures <-> bytes: the face of the codec.

`encoder` and `decoder` do the work, tile by tile; this room knows qualities, efforts and models.
Knows nothing of files on disk, nor of the command line.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from numbers import Integral
from pathlib import Path

import torch

from diveqcodec import zoo
from diveqcodec.container import bitstream, pixelfile
from diveqcodec.container.canvas import Crop
from diveqcodec.container.entropy import Decoder
from diveqcodec.container.salvage import read_what_is_whole
from diveqcodec.decoder import PictureDecoder, Wish
from diveqcodec.device import device_of
from diveqcodec.encoder import CodingJob, PictureEncoder
from diveqcodec.errors import ConfigError, ModelError
from diveqcodec.exact.tile import Tally, TileCoder
from diveqcodec.exact.weights import CodingModel, check_training
from diveqcodec.image import Picture
from diveqcodec.model.dvq import DvqModel
from diveqcodec.model.layers import fast_dtype
from diveqcodec.parallel import Progress
from diveqcodec.quality import (
    DEFAULT_QUALITY,
    GAIN_STEPS,
    RATE,
    Lossless,
    gain_index,
    lossless_of,
)
from diveqcodec.refinement import Refiner, trainable
from diveqcodec.windows import Networks, quality_bin_of

# effort -> multiplier of the bits in the assignment
EFFORTS = {1: 0.0, 3: RATE, 5: RATE, 7: RATE, 9: RATE}
MIRROR = 5  # the effort from which networks see the mirror image too, when decoding as well
ROUNDS = {7: 2, 9: 12}  # in which an effort refines every tile
DEFAULT_EFFORT = 5


def check_request(
    quality: float, effort: int, lossless: Lossless | bool | None
) -> tuple[int, Lossless]:
    """The gain index, and what is asked of lossless coding, of what `Codec.compress` takes.

    Raises:
        ConfigError: one of the three is not what it may be.
    """
    _check_effort(effort)
    return gain_index(quality), lossless_of(lossless)


def _check_effort(effort: object) -> None:
    if not isinstance(effort, Integral) or effort not in EFFORTS:
        raise ConfigError(f"effort {effort!r}: use one of {', '.join(map(str, EFFORTS))}")


def _check_gain(gain: object) -> None:
    if not isinstance(gain, Integral) or not 0 <= int(gain) <= GAIN_STEPS:
        raise ConfigError(f"gain {gain!r}: must be a whole number from 0 to {GAIN_STEPS}")


def check_picture(picture: object) -> None:
    """Refuse what is no `Picture`, such as a path, which only `diveqcodec.compress` takes.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(picture, Picture):
        raise ConfigError(
            f"a codec compresses a Picture, not a {type(picture).__name__}: "
            "give what diveqcodec.image.load makes of a file"
        )


def bytes_of(data: object) -> bytes:
    """The bytes of a file, in whatever Python keeps them.

    Raises:
        ConfigError: it has none.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise ConfigError(
            f"cannot decompress a {type(data).__name__}: give the bytes of a .dvq file, "
            "such as Path.read_bytes()"
        )
    return bytes(data)


class Codec:
    """Compresses and decompresses with one model.

    Any number of threads may use one codec at the same time, as with `diveqcodec.compress`. Do not
    change the attributes meanwhile.

    Args:
        model: loaded weights; their networks run where they were loaded to.
        networks: dtype of the float networks; "auto" takes bfloat16 where the processor has it.
        workers: tiles that are worked on at once; by default the number of torch's threads.
    """

    def __init__(
        self,
        model: CodingModel,
        networks: torch.dtype | None = None,
        workers: int | None = None,
    ) -> None:
        self.model = model
        self.networks = networks or fast_dtype(model.device)
        self.workers = workers or torch.get_num_threads()
        self._trained: DvqModel | None = None  # read when an effort first needs it,
        self._lock = threading.Lock()  # by one thread

    @classmethod
    def load(cls, reference: str | Path | None = None, device: str | torch.device = "cpu") -> Codec:
        """The codec of installed weights: a name, an id or a path; the default model if None.

        Raises:
            ModelError: not found, or damaged.
            ConfigError: there is no such device.
        """
        return cls(zoo.load(reference, device_of(device)))

    @property
    def device(self) -> torch.device:
        """Where the float networks run."""
        return self.model.device

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    def compress(
        self,
        picture: Picture,
        quality: float = DEFAULT_QUALITY,
        effort: int = DEFAULT_EFFORT,
        *,
        lossless: Lossless | bool | None = "auto",
        progress: Progress | None = None,
    ) -> bytes:
        """Compress a picture to the bytes of a `.dvq` file.

        Args:
            picture: pixels and what belongs to them.
            quality: 1 (smallest) to 100 (best).
            effort: 1 nearest codewords, 3 rate-aware, 5 with networks that see the mirror image
                too, also when decoding, 7 and 9 refined in a few and in more rounds.
            lossless: "auto" (or None) codes a tile without loss where that is the better bargain,
                "always" (or True) the whole picture, whatever the quality, "never" (or False) none.
            progress: told how many steps are done, and how many there are: tiles, and the rounds in
                which each is refined.

        Raises:
            ConfigError: quality, effort or `lossless` out of range, or no picture.
            ModelError: efforts above 5 with weights that lack what training left in them.
        """
        check_picture(picture)
        gain, wish = check_request(quality, effort, lossless)
        self._check_training(effort)
        if wish == "always":
            return pixelfile.compress(picture, effort)
        return self._compress(picture, self._job(gain, effort, wish, None, progress))

    def compress_at(
        self, picture: Picture, gain: int, effort: int = DEFAULT_EFFORT, tally: Tally | None = None
    ) -> bytes:
        """What the model alone makes of a picture, at a gain index 0 ... 65535.

        As `compress`, but for lossless tiles and filters; `tally` collects ideal bits by part.

        Raises:
            ConfigError, ModelError: as `compress`; or there is no such gain index.
        """
        check_picture(picture)
        _check_gain(gain)
        self.check_effort(effort)
        job = self._job(gain, effort, "never", tally)
        return self._compress(picture, replace(job, is_filtered=False))

    def check_effort(self, effort: int) -> None:
        """Refuse an effort that there is not, or not with these weights.

        Raises:
            ConfigError: there is no such effort.
            ModelError: it refines, and the weights lack what training left in them.
        """
        _check_effort(effort)
        self._check_training(effort)

    def _check_training(self, effort: int) -> None:
        if effort in ROUNDS and self._trained is None:
            check_training(self.model.path)

    def decompress(
        self,
        data: bytes | bytearray | memoryview,
        *,
        crop: Crop | None = None,
        partial: bool = False,
        progress: Progress | None = None,
    ) -> Picture:
        """Decompress the bytes of a `.dvq` file; the inverse of `compress`, but for what it lost.

        Args:
            data: all bytes of the file.
            crop: left, top, width and height of a part; only the tiles that it needs are decoded,
                to the same pixels as with all of them, and only they must be whole.
            partial: damaged tiles are grey, with a notice of the picture for each, not an error.
            progress: told how many tiles are done, and how many there are.

        Raises:
            FormatError: not a `.dvq` file, of a newer version, or damaged (`DamagedError`).
            ModelError: coded with another model.
            ConfigError: the crop leaves the picture, or `data` are no bytes.
        """
        found = read_what_is_whole(bytes_of(data), is_partial=partial or crop is not None)
        if bitstream.needs_model(found.file):
            self.check_model(found.file.header.model_id)
        networks = Networks(self.model, self.networks, found.file.header.has_mirror)
        wish = Wish(crop, partial, progress, self.workers)
        return PictureDecoder(networks, found, wish).run()

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
        """Bits of a file by part: ideal code lengths of the latents, lossless tiles, the rest."""
        file = bitstream.read(data)
        tally = Tally()
        grid = bitstream.tile_grid(file.header.width, file.header.height)
        networks = Networks(self.model, self.networks)
        quality_bin = quality_bin_of(self.model, file.header.gain_index)
        for tile, content in zip(grid, file.tiles, strict=True):
            if content is not None:
                size = networks.window(tile, tile).size
                decoder = Decoder(content.payload)
                TileCoder(self.model, decoder, quality_bin, size, tally=tally).run()
        parts = {name: round(bits) for name, bits in tally.bits.items()}
        if file.header.has_filters:
            parts["filters"] = 8 * sum(len(tile.filters or b"") for tile in file.tiles if tile)
        if file.header.has_patches:
            parts["patches"] = 8 * sum(len(tile.patches or b"") for tile in file.tiles if tile)
        if file.lossless:
            parts["lossless"] = 8 * sum(len(part.packed) for part in file.lossless)
        parts["container"] = 8 * len(data) - sum(parts.values())
        return parts

    def _job(
        self,
        gain: int,
        effort: int,
        lossless: Lossless,
        tally: Tally | None,
        progress: Progress | None = None,
    ) -> CodingJob:
        refiner = None
        if effort in ROUNDS:
            with self._lock:
                if self._trained is None:
                    self._trained = trainable(self.model)
            refiner = Refiner(self._trained, ROUNDS[effort])
        rate, workers = EFFORTS[effort], self.workers
        return CodingJob(gain, rate, effort, lossless, tally, progress, workers, refiner)

    def _compress(self, picture: Picture, job: CodingJob) -> bytes:
        networks = Networks(self.model, self.networks, job.effort >= MIRROR)
        return PictureEncoder(networks, picture, job).run()
