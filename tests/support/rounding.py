"""A codec one can check by hand, for tests of what measures codecs."""

from dataclasses import dataclass, field

import numpy as np

from diveqcodec.errors import DiveqError
from diveqcodec.image import Picture


@dataclass
class Rounding:
    """Pixels rounded down to multiples of the quality."""

    name: str = "rounding"
    suffix: str = ".rnd"
    description: str = ""
    calls: list[str] = field(default_factory=list)

    def compress(self, picture: Picture, quality: float) -> bytes:
        self.calls.append("compress")
        height, width, channels = picture.pixels.shape
        rounded = picture.pixels // int(quality) * int(quality)
        return bytes([height, width, channels]) + rounded.tobytes()

    def decompress(self, data: bytes) -> Picture:
        self.calls.append("decompress")
        height, width, channels = data[:3]
        pixels = np.frombuffer(data, np.uint8, height * width * channels, offset=3)
        return Picture(pixels.reshape(height, width, channels).copy())

    def parts(self, data: bytes) -> dict[str, int]:
        return {"header": 24, "pixels": 8 * (len(data) - 3)}


class Picky(Rounding):
    """Takes no picture of 40 rows at quality 1, and has coded it at other qualities before."""

    def compress(self, picture: Picture, quality: float) -> bytes:
        if picture.pixels.shape[0] == 40 and quality == 1:
            raise DiveqError("picky: too high")
        return super().compress(picture, quality)


class Dying(Rounding):
    """Ends its process, as the system does when memory runs out."""

    def compress(self, picture: Picture, quality: float) -> bytes:
        import os

        os._exit(9)
