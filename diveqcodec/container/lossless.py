"""The pixels of a rectangle of tiles <-> bytes, without loss. FORMAT.md, "PIXL", has the layout.

One colour costs its bytes; anything else is lossless WebP, which is good at text, windows, palettes
and dither, and whose decoder is exact on every machine: libwebp's, by way of Pillow. Knows nothing
of the container, nor of networks.
"""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diveqcodec.errors import DamagedError, FormatError

Pixels = NDArray[np.uint8]

# Of a rectangle that is not of one colour: WebP's limit of a side, and a bound of what is held.
MAX_SIDE: Final = 16_383
MAX_PIXELS: Final = 1 << 25

_CONSTANT, _WEBP = range(2)
_TRANSPARENT: Final = 0x10  # added to the kind where WebP has a fourth channel
_SIGNATURE: Final = 0x2F  # the first byte of WebP's lossless bitstream
_CONTAINER: Final = 20  # "RIFF", size, "WEBP", "VP8L", size
_HEAD: Final = 5  # signature, width - 1 and height - 1 of 14 bits, transparency, version of 3 bits

# WebP's (method, quality) that an encoder tries, from an effort on. Quality 100 looks for matches
# in the whole rectangle; method 6 with it tries everything, and takes twenty times as long.
_SETTINGS: Final = ((1, (4, 80)), (3, (5, 100)), (3, (2, 30)), (9, (6, 100)))

# What may be worth a try in a tile (see `is_drawn`).
_ROWS: Final = 64  # rows that are looked at
_EQUAL: Final = 0.5  # share of pixels that are the same as their left neighbour
_COLOURS: Final = 256
_GREYS: Final = 32


def pack(
    pixels: Pixels, alpha: Pixels | None = None, effort: int = 5, *, is_hidden_kept: bool = False
) -> bytes:
    """Code pixels without loss; the inverse of `unpack`.

    Args:
        pixels: uint8 `[h, w, 1 or 3]`; within the limits above unless of one colour.
        alpha: Transparency, uint8 `[h, w]`, coded along with them.
        effort: Of the search for small files, as the codec's.
        is_hidden_kept: Keep the colours of fully transparent pixels too.

    Raises:
        FormatError: A side or the area passes the limit.
    """
    planes = pixels if alpha is None else np.concatenate([pixels, alpha[..., None]], axis=2)
    if is_constant(planes):
        return bytes([_CONSTANT, *planes[0, 0].tolist()])
    _check_size(*pixels.shape[:2])
    image = _image(pixels, alpha)
    streams = [
        _webp(image, *setting, is_hidden_kept) for least, setting in _SETTINGS if effort >= least
    ]
    stream = min(streams, key=len)
    bits = stream[_HEAD - 1] & _TRANSPARENT
    return bytes([_WEBP | bits]) + stream[_HEAD:]


def unpack(
    data: bytes, height: int, width: int, *, is_grey: bool, has_alpha: bool
) -> tuple[Pixels, Pixels | None]:
    """The inverse of `pack`: pixels `[h, w, 1 or 3]`, and alpha `[h, w]` if the picture has one.

    Raises:
        DamagedError: The bytes do not make pixels of this size and kind.
        FormatError: Another kind than this program knows, or a rectangle past a limit.
    """
    if not data:
        raise DamagedError("damaged: lossless pixels are missing")
    kind, stream = data[0], data[1:]
    if kind == _CONSTANT:
        return _unpack_constant(stream, height, width, is_grey=is_grey, has_alpha=has_alpha)
    is_transparent = bool(kind & _TRANSPARENT)
    if kind & ~_TRANSPARENT != _WEBP:
        raise FormatError(f"lossless pixels of kind {kind}; use a newer version of this program")
    if is_transparent and not has_alpha:
        raise DamagedError("damaged: lossless transparency in a picture without")
    _check_size(height, width)
    size = (width - 1) | (height - 1) << 14 | is_transparent << 28
    planes = _decode(struct.pack("<BI", _SIGNATURE, size) + stream)
    if planes.shape != (height, width, 3 + is_transparent):
        raise DamagedError("damaged: lossless pixels cannot be decoded")
    colours = planes[..., :3]
    if is_grey:
        if (colours != colours[..., :1]).any():
            raise DamagedError("damaged: colours in a grey picture")
        colours = colours[..., :1]
    if not has_alpha:
        return colours, None
    if planes.shape[2] == 4:
        return colours, planes[..., 3]
    return colours, np.full((height, width), 255, np.uint8)


def is_constant(planes: Pixels) -> bool:
    """Whether all pixels of `[h, w, C]` are the same.

    Looks at some rows at a time, so that most others answer at once and none takes memory.
    """
    first = planes[0, 0]
    return all((planes[top : top + _ROWS] == first).all() for top in range(0, len(planes), _ROWS))


def is_drawn(pixels: Pixels) -> bool:
    """Whether lossless coding of a tile `[h, w, 1 or 3]` is worth a try.

    Looks at some of its rows: drawings and screenshots have few colours, or many pixels that are
    exactly the same as their neighbour. Photographs have noise. Costs well under a hundredth of
    what coding the tile does.
    """
    height, _, channels = pixels.shape
    step = max(1, height // _ROWS)
    rows = pixels[::step]
    equal = (rows[:, 1:] == rows[:, :-1]).all(axis=2)
    if equal.size and equal.mean() > _EQUAL:
        return True
    if channels == 1:
        return np.count_nonzero(np.bincount(rows.ravel(), minlength=256)) <= _GREYS
    codes = rows.astype(np.uint32) @ np.array([1, 256, 65536], np.uint32)
    few = codes.ravel()[:: max(1, codes.size // 4096)]
    return len(np.unique(few)) <= _COLOURS and len(np.unique(codes)) <= _COLOURS


def _check_size(height: int, width: int) -> None:
    if max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
        raise FormatError(
            f"{width}x{height} lossless pixels; the limit is {MAX_PIXELS}, {MAX_SIDE} a side"
        )


def _image(pixels: Pixels, alpha: Pixels | None) -> Image.Image:
    colours = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    if alpha is not None:
        return Image.fromarray(np.concatenate([colours, alpha[..., None]], axis=2))
    return Image.fromarray(np.ascontiguousarray(colours))


def _webp(image: Image.Image, method: int, quality: int, is_hidden_kept: bool) -> bytes:
    """WebP's lossless bitstream of an image, without the container around it."""
    stream = BytesIO()
    image.save(stream, "WEBP", lossless=True, method=method, quality=quality, exact=is_hidden_kept)
    data = stream.getvalue()
    (length,) = struct.unpack_from("<I", data, _CONTAINER - 4)
    is_known = data[12:16] == b"VP8L" and _CONTAINER + length + length % 2 == len(data)
    if not is_known or data[_CONTAINER] != _SIGNATURE or data[_CONTAINER + _HEAD - 1] >> 5:
        raise FormatError("this Pillow writes lossless WebP in a way that is not known here")
    return data[_CONTAINER : _CONTAINER + length]


def _decode(stream: bytes) -> Pixels:
    """The planes `[h, w, 3 or 4]` of WebP's lossless bitstream."""
    padded = stream + bytes(len(stream) % 2)
    chunk = b"VP8L" + struct.pack("<I", len(stream)) + padded
    data = b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk
    try:
        with Image.open(BytesIO(data), formats=("WEBP",)) as image:
            planes: Pixels = np.array(image)
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged data
        raise DamagedError("damaged: lossless pixels cannot be decoded") from error
    return planes


def _unpack_constant(
    values: bytes, height: int, width: int, *, is_grey: bool, has_alpha: bool
) -> tuple[Pixels, Pixels | None]:
    channels = 1 if is_grey else 3
    if len(values) != channels + has_alpha:
        raise DamagedError(f"damaged: one colour in {len(values)} bytes")
    colour = np.frombuffer(values, np.uint8)
    shape = (height, width)
    pixels = np.broadcast_to(colour[:channels], (*shape, channels))
    return pixels, np.broadcast_to(colour[-1], shape) if has_alpha else None
