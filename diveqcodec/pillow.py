"""Makes Pillow, and every program that uses it, read and write `.dvq` files.

    import diveqcodec.pillow

    with Image.open("cat.dvq") as image:
        image.save("small.dvq", quality=20)

Importing it is all there is to do. `Image.open` reads the header alone and loads no torch; pixels
are decoded when they are needed. Errors are those of Pillow's own plugins: SyntaxError from
opening, which `Image.open` turns into UnidentifiedImageError, OSError from loading, ValueError for
wrong options of `save`. Knows nothing of how pictures are coded.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image, ImageFile

from diveqcodec.container import bitstream
from diveqcodec.container.salvage import read_what_is_whole
from diveqcodec.errors import ConfigError, DiveqError, FormatError
from diveqcodec.image.colour import Colours
from diveqcodec.image.metadata import EXIF_PREFIX, Metadata, save_options
from diveqcodec.image.pixels import samples_of

if TYPE_CHECKING:
    from diveqcodec.image import Picture

__all__ = ["FORMAT", "MIME", "DvqImageFile"]

log = logging.getLogger(__name__)

FORMAT: Final = "DVQ"
MIME: Final = bitstream.MIME

_OPTIONS: Final = ("quality", "effort", "lossless", "model", "device")  # of `diveqcodec.compress`


class DvqImageFile(ImageFile.ImageFile):
    """A `.dvq` file that Pillow has opened: mode L, LA, RGB or RGBA, always upright.

    `info` has `icc_profile`, `exif`, `xmp` and `dpi` where the file has them; they are read,
    without decoding, on the first use of `info`. A damaged file is an OSError, unless
    `ImageFile.LOAD_TRUNCATED_IMAGES` is set: then what is whole is shown, and the rest is grey.
    """

    format = FORMAT
    format_description = "DiVeQ neural codec"

    _is_waiting = False  # pixels are still to be decoded
    _has_metadata = True  # `info` is complete

    def _open(self) -> None:
        assert self.fp is not None
        try:
            header = bitstream.read_header(self.fp.read(bitstream.HEADER_BYTES))
        except FormatError as error:
            raise SyntaxError(str(error)) from error
        self._size = header.width, header.height
        self._mode = ("L" if header.is_grey else "RGB") + "A" * header.has_alpha
        self._is_waiting, self._has_metadata = True, False

    @property
    def info(self) -> dict[str | tuple[int, int], Any]:
        """Metadata, as Pillow's other plugins name them."""
        if not self._has_metadata and self.fp is not None:
            self._has_metadata = True
            try:
                file = read_what_is_whole(self._bytes()).file
            except FormatError:  # loading will say so
                return self._info
            self._describe(Metadata(file.icc, file.exif, file.xmp))
        return self._info

    @info.setter
    def info(self, value: dict[str | tuple[int, int], Any]) -> None:
        self._info = value

    def verify(self) -> None:
        """Check every checksum, without decoding; closes the file, as all plugins do.

        Raises:
            OSError: The file is damaged.
        """
        try:
            bitstream.read(self._bytes())
        except DiveqError as error:
            raise OSError(str(error)) from error
        finally:
            super().verify()

    def load(self) -> Any:  # what it is has no public name
        """Decode the pixels, unless that has been done.

        Raises:
            OSError: The file is damaged, or needs a model that is not installed.
        """
        if self._is_waiting:
            picture = self._decoded()
            planes = picture.pixels
            if self.mode.endswith("A"):
                alpha = picture.alpha
                if alpha is None:
                    alpha = np.full(planes.shape[:2], 255, np.uint8)
                planes = np.concatenate([planes, alpha[..., None]], axis=2)
            self.load_prepare()
            self.frombytes(planes.tobytes())
            if not self._has_metadata:
                self._describe(Metadata(picture.icc, picture.exif, picture.xmp))
            self._is_waiting, self._has_metadata, self.readonly = False, True, 0
            if self._exclusive_fp and self.fp is not None:
                self.fp.close()
            self.fp = None
        return super().load()

    def _decoded(self) -> Picture:
        from diveqcodec import api  # torch takes a second

        data = self._bytes()
        try:
            picture = api.decompress(data, partial=ImageFile.LOAD_TRUNCATED_IMAGES)
        except DiveqError as error:
            raise OSError(str(error)) from error
        for notice in picture.notices:
            log.info("%s", notice)
        if picture.pixels.shape[1::-1] != self.size:
            raise OSError("the file has changed since it was opened")
        return picture

    def _bytes(self) -> bytes:
        if self.fp is None or self.fp.closed:
            raise OSError("the file of this image is closed")
        self.fp.seek(0)
        return self.fp.read()

    def _describe(self, metadata: Metadata) -> None:
        if metadata.icc is not None:
            self._info["icc_profile"] = metadata.icc
        if metadata.exif is not None:
            self._info["exif"] = EXIF_PREFIX + metadata.exif
            options, _ = save_options(Metadata(exif=metadata.exif), 3, "png")
            if "dpi" in options:
                self._info["dpi"] = options["dpi"]
        if metadata.xmp is not None:
            self._info["xmp"] = metadata.xmp


def _accept(prefix: bytes) -> bool | str:
    """Whether a file begins like one of ours; a reason where it is one of a newer version."""
    if not prefix.startswith(bitstream.MAGIC):
        return False
    version = prefix[len(bitstream.MAGIC) : len(bitstream.MAGIC) + 1]
    if version and version[0] != bitstream.VERSION:
        return (
            f"a .dvq file of bitstream version {version[0]}; this program reads {bitstream.VERSION}"
        )
    return True


def _save(image: Image.Image, file: IO[bytes], _filename: str | bytes) -> None:
    """Write an image: what `Image.save` calls.

    Of the options of `save`, `quality`, `effort`, `lossless`, `model` and `device` are those of
    `diveqcodec.compress`; `icc_profile`, by default the image's own, `exif`, `xmp` and `dpi` are
    what to keep beside the pixels. An orientation in `exif` is carried out: files hold pictures
    upright. Colours that the image's file told by gamma, primaries or EXIF become sRGB, unless an
    `icc_profile` is given.
    """
    from diveqcodec import api

    asked = image.encoderinfo
    options = {key: asked[key] for key in _OPTIONS if asked.get(key) is not None}
    try:
        samples = samples_of(image)  # a copy knows less
        if asked.get("icc_profile"):
            samples = replace(samples, colours=Colours())
        picture = api.from_pillow(_as_asked(image), samples)
        data = api.compress(picture, **options)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    except DiveqError as error:
        raise OSError(str(error)) from error
    file.write(data)


def _as_asked(image: Image.Image) -> Image.Image:
    """A copy of an image with the metadata that are to be kept, and no others.

    Raises:
        ConfigError: what was given is none.
    """
    asked, own, copy = image.encoderinfo, image.info, image.copy()
    exif = _block("exif", asked.get("exif"))
    if exif is not None and not exif.startswith(EXIF_PREFIX):
        exif = EXIF_PREFIX + exif
    wanted = {
        "icc_profile": _block("icc_profile", asked.get("icc_profile", own.get("icc_profile"))),
        "exif": exif,
        "xmp": _block("xmp", asked.get("xmp")),
        "dpi": _resolution(asked.get("dpi")),
        "transparency": own.get("transparency"),
    }
    copy.info = {key: value for key, value in wanted.items() if value is not None}
    return copy


def _block(name: str, value: Any) -> bytes | None:
    """Metadata as programs have them: bytes, an `Exif` of Pillow's, XMP also as text."""
    if isinstance(value, Image.Exif):
        value = value.tobytes()
    if name == "xmp" and isinstance(value, str):
        value = value.encode()
    if not value:
        return None
    if not isinstance(value, bytes | bytearray | memoryview):
        raise ConfigError(f"{name} of type {type(value).__name__}: must be bytes")
    return bytes(value)


def _resolution(value: Any) -> tuple[float, float] | None:
    """Dots per inch; none where they are not above 0, as programs write what they do not know."""
    if value is None:
        return None
    try:
        x, y = (float(one) for one in value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"dpi {value!r}: must be two numbers") from error
    return x, y


Image.register_open(FORMAT, DvqImageFile, _accept)
Image.register_save(FORMAT, _save)
Image.register_extension(FORMAT, bitstream.SUFFIX)
Image.register_mime(FORMAT, MIME)
