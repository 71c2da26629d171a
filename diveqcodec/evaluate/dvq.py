"""The project's own codec as `diveqcodec.evaluate.run` wants it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diveqcodec.container import bitstream
from diveqcodec.quality import HIGHEST, LOWEST

if TYPE_CHECKING:
    from diveqcodec.codec import Codec
    from diveqcodec.image import Picture
    from diveqcodec.zoo import Entry


def codec_name(model: str, effort: int | None) -> str:
    """What results call a model at an effort that was asked for: diveq-5, 9 -> diveq-5-e9."""
    return model if effort is None else f"{model}-e{effort}"


class DvqCodec:
    """A codec at one effort, with suffix and description.

    Args:
        codec: What does the work.
        effort: As in `Codec.compress`; it is then part of the name. None for the codec's default.

    Raises:
        ConfigError: The codec has no such effort.
        ModelError: Its weights cannot refine, as the effort asks.
    """

    suffix = bitstream.SUFFIX
    bounds = (LOWEST, HIGHEST)

    def __init__(self, codec: Codec, effort: int | None = None) -> None:
        from diveqcodec.codec import DEFAULT_EFFORT

        if effort is not None:
            codec.check_effort(effort)
        self._codec = codec
        self._effort = DEFAULT_EFFORT if effort is None else effort
        self.name = codec_name(codec.name, effort)
        self.description = (
            f"diveq, model {codec.model.model_id.hex()}, effort {self._effort}, {codec.device}"
        )

    def basis(self, _quality: float) -> str:
        """How exact the networks compute, which depends on the processor."""
        return str(self._codec.networks)

    def compress(self, picture: Picture, quality: float) -> bytes:
        """The file's bytes, when the device has finished."""
        return self._codec.compress(picture, quality, self._effort)

    def decompress(self, data: bytes) -> Picture:
        """The picture of a file's bytes."""
        return self._codec.decompress(data)


class DvqCodecByPart(DvqCodec):
    """The same with bits by part, for which every file is decoded once more."""

    def parts(self, data: bytes) -> dict[str, int]:
        """Bits of every slice, of lossless tiles, and of the rest."""
        return self._codec.parts(data)


def load(entry: Entry, device: str, effort: int | None, by_part: bool) -> DvqCodec:
    """The codec of some weights, in a process that has none yet.

    Raises:
        ModelError: they are not here, or cannot be read, or cannot refine.
        ConfigError: the codec has no such effort.
    """
    from diveqcodec import zoo
    from diveqcodec.codec import Codec
    from diveqcodec.device import device_of

    codec = Codec(zoo.load_entry(entry, device_of(device)))
    return (DvqCodecByPart if by_part else DvqCodec)(codec, effort)
