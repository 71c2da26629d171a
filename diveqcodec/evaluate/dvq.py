"""The project's own codec as `diveqcodec.evaluate.run` wants it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diveqcodec.codec import Codec
    from diveqcodec.image import Picture


class DvqCodec:
    """A codec with suffix and description."""

    suffix = ".dvq"

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self.name = codec.name
        self.description = f"diveq, model {codec.model.model_id.hex()}, {codec.device}"

    def compress(self, picture: Picture, quality: float) -> bytes:
        """The file's bytes, when the device has finished."""
        return self._codec.compress(picture, quality)

    def decompress(self, data: bytes) -> Picture:
        """The picture of a file's bytes."""
        return self._codec.decompress(data)


class DvqCodecByPart(DvqCodec):
    """The same with bits by part, for which every file is decoded once more."""

    def parts(self, data: bytes) -> dict[str, int]:
        """Bits of the hyper latent, of every slice, and of the rest."""
        return self._codec.parts(data)
