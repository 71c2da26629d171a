"""The face of the package: pictures to bytes and back in one call each.

Weights are loaded once and kept, those of the last few models. Any number of threads may call at
the same time. Knows no files but those it is given to read.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from diveqcodec import image, zoo
from diveqcodec.codec import DEFAULT_EFFORT, Codec, bytes_of, check_request
from diveqcodec.container import bitstream, pixelfile
from diveqcodec.device import device_of
from diveqcodec.errors import ConfigError, ImageError, ModelError
from diveqcodec.image import Picture
from diveqcodec.image.files import of_image
from diveqcodec.quality import DEFAULT_QUALITY

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from diveqcodec.container.canvas import Crop
    from diveqcodec.image.pixels import Samples
    from diveqcodec.quality import Lossless

log = logging.getLogger(__name__)

_MOST = 4  # codecs that are kept loaded

_codecs: dict[tuple[Path, str, str], Codec] = {}  # by weights, their id, and the device
_lock = threading.Lock()


def compress(
    source: str | Path | Image.Image | NDArray[np.uint8] | Picture,
    quality: float = DEFAULT_QUALITY,
    *,
    effort: int = DEFAULT_EFFORT,
    lossless: Lossless | bool | None = "auto",
    model: str | Path | None = None,
    device: str | torch.device = "cpu",
) -> bytes:
    """Compress a picture to the bytes of a `.dvq` file.

    Threads may call this and `decompress` at the same time, with whatever models. Each call gives
    what it gives alone where torch has one thread; else cores are shared with what runs beside it,
    and floats may be rounded otherwise, as on another machine (see README.md, "Limits").
    What had to be changed of a picture, its `notices`, is logged as INFO.

    Args:
        source: path of a picture file, an image of Pillow's, pixels uint8 `[H, W]` or
            `[H, W, 1, 3 or 4]` (sRGB, the fourth one transparency), or a `Picture`.
        quality: 1 (smallest) to 100 (best).
        effort: as `Codec.compress`.
        lossless: as `Codec.compress`.
        model: name, id or path of weights; the default model if None.
        device: where networks run.

    Raises:
        DiveqError: one line that says what is wrong and what to do.
    """
    _, wish = check_request(quality, effort, lossless)
    is_coded = wish != "always"
    entry = zoo.find(model) if is_coded or model is not None else None
    picture = _picture(source)
    for notice in picture.notices:
        log.info("%s", notice)
    if entry is None or not is_coded:
        return pixelfile.compress(picture, effort)
    return _codec(entry, device).compress(picture, quality, effort, lossless=wish)


def decompress(
    data: bytes | bytearray | memoryview,
    *,
    crop: Crop | None = None,
    partial: bool = False,
    device: str | torch.device = "cpu",
) -> Picture:
    """Decompress the bytes of a `.dvq` file with the model that it names.

    Threads may call this and `compress` at the same time.

    Args:
        data: all bytes of the file.
        crop: left, top, width and height of a part; only the tiles that it needs are decoded, and
            only they must be whole.
        partial: damaged tiles are grey, with a notice of the picture for each, not an error.
        device: where networks run.

    Raises:
        DiveqError: damaged, or coded with a model that is not installed.
    """
    data = bytes_of(data)
    model_id = bitstream.read_header(data).model_id
    if model_id == bitstream.NO_MODEL:
        return pixelfile.decompress(data, crop, is_partial=partial)
    entry = zoo.by_id(model_id)
    if entry is None:
        raise ModelError(
            f"needs model {model_id.hex()}, which is not installed; install it with: "
            "diveq models --import PATH"
        )
    return _codec(entry, device).decompress(data, crop=crop, partial=partial)


def _codec(entry: zoo.Entry, device: str | torch.device) -> Codec:
    """The codec of a weights file, loaded once, and again when other weights are in its place."""
    key = entry.path.resolve(), entry.model_id, str(device)
    with _lock:
        if key not in _codecs:
            place = device_of(device)
            if len(_codecs) == _MOST:
                del _codecs[next(iter(_codecs))]
            _codecs[key] = Codec(zoo.load_entry(entry, place))
        return _codecs[key]


def _picture(source: Any) -> Picture:
    if isinstance(source, Picture):
        return source
    if isinstance(source, (str, Path)):
        return image.load(Path(source))
    if isinstance(source, np.ndarray):
        source = _image_of(source)
    if not isinstance(source, Image.Image):
        raise ConfigError(
            f"cannot compress a {type(source).__name__}: give a path, an image of Pillow's, "
            "or an array of pixels"
        )
    return from_pillow(source)


def from_pillow(source: Image.Image, samples: Samples | None = None) -> Picture:
    """An image of Pillow's with its colour profile, EXIF and XMP, upright.

    It becomes what its file would, whatever its mode: gamma, primaries and Adobe RGB become sRGB
    too, and white is what TIFF's tags say. Of PNG's cICP an image knows only until it is loaded,
    and of tags and Adobe RGB only as it was opened, not as a copy.

    Args:
        source: The image.
        samples: What is known of its samples; by default what `source` says itself.

    Raises:
        ImageError: it cannot be loaded, or its values have no known range.
    """
    if 0 in source.size:
        raise ImageError(
            f"image: {source.width}x{source.height} pixels; a picture has at least one"
        )
    return of_image(source, samples)


def _image_of(pixels: NDArray[Any]) -> Image.Image:
    shape = pixels.shape
    fits = pixels.dtype == np.uint8 and 0 not in shape
    if not fits or not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4))):
        raise ConfigError(
            f"pixels of type {pixels.dtype} and shape {list(shape)}: must be uint8 [H, W] or "
            "[H, W, 1, 3 or 4]"
        )
    return Image.fromarray(pixels[:, :, 0] if len(shape) == 3 and shape[2] == 1 else pixels)
