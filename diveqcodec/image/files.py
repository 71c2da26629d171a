"""A picture file of any format, from its first byte to a `Picture`, and back, by way of Pillow.

`load` makes every mode that Pillow opens into one or three 8-bit channels that look the same, and
says in `notices` what it had to change. `save` writes them again.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final, get_args

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError, features

from diveqcodec.errors import ImageError, said
from diveqcodec.image import ends, png, tiff
from diveqcodec.image.kinds import HEAD_BYTES, sniff
from diveqcodec.image.mend import mend
from diveqcodec.image.metadata import (
    EXIF_ERRORS,
    UNREADABLE_EXIF,
    Format,
    Metadata,
    exif_of_srgb,
    read_metadata,
    save_options,
    stored_icc,
)
from diveqcodec.image.picture import Picture
from diveqcodec.image.pixels import Samples, samples_of, to_pixels
from diveqcodec.limits import MAX_METADATA, MAX_PIXELS, MAX_SIDE
from diveqcodec.store import Remote

# Pillow would start Ghostscript for the first, and the second is drawn by Windows alone.
_DRAWINGS: Final = ("EPS", "WMF")
_LIBRARIES: Final = {"AVIF": "avif", "JPEG": "jpg", "JPEG2000": "jpg_2000", "WEBP": "webp"}
# Formats that Pillow writes without transparency, and those that lose it without an error.
_OPAQUE: Final = ("jpeg", "ppm")


def load(
    source: str | Path | Remote | BinaryIO,
    *,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
    strict: bool = False,
) -> Picture:
    """Decode a picture of any format that Pillow reads, recognised by content.

    Args:
        source: A path, a place in a store, or a binary file.
        name: What messages call it; by default the path.
        max_pixels: Width times height above which a picture is refused before it is decoded.
        strict: Refuse files with damage that leaves the picture whole, which is a notice otherwise.

    Raises:
        ImageError: It cannot be opened or decoded, or is too large.
    """
    name = name or str(source if isinstance(source, str | Path | Remote) else "<stream>")
    file = _file(source, name)
    try:
        seekable = file if file.seekable() else BytesIO(file.read())
        with _pillow_limits():
            return _load(seekable, _Asked(name, max_pixels, strict))
    except OSError as error:
        raise ImageError(f"{name}: cannot be read ({error.strerror or error})") from error
    finally:
        if file is not source:
            file.close()


def read_file(source: Path | Remote) -> bytes:
    """All bytes of a picture's file, for those who must know what `load` decodes.

    Raises:
        ImageError: as `load`, if it cannot be opened or read.
    """
    try:
        with _file(source, str(source)) as file:
            return file.read()
    except OSError as error:
        raise ImageError(f"{source}: cannot be read ({error.strerror or error})") from error


def _file(source: str | Path | Remote | BinaryIO, name: str) -> BinaryIO:
    try:
        if isinstance(source, Remote):
            return BytesIO(source.read_bytes())  # a store takes as long for every single read
        return open(source, "rb") if isinstance(source, str | Path) else source
    except ValueError as error:
        raise ImageError(f"{name!r}: is no name of a file ({said(error)})") from error
    except OSError as error:
        text = error.strerror or str(error)
        reason = "no such file" if isinstance(error, FileNotFoundError) else text
        raise ImageError(f"{name}: {str(reason).lower()}") from error


def of_image(image: Image.Image, samples: Samples | None = None) -> Picture:
    """The picture of an image that a program has, which is loaded and not turned.

    Args:
        image: Of any of Pillow's modes.
        samples: What is known of its samples, by default what it says itself.

    Raises:
        ImageError: It cannot be loaded, is too large, or its values have no known range.
    """
    name, notices = "image", list[str]()
    _check_size(image, name, MAX_PIXELS)
    try:
        with _pillow_limits():
            return _decode(image, samples or samples_of(image), name, notices, is_ours=False)
    except ImageError:
        raise
    except Exception as error:  # as in `_load`
        raise ImageError(f"{name}: cannot be read ({said(error)})") from error


def save(
    picture: Picture, target: str | Path | BinaryIO, format: Format, *, workers: int = 1
) -> tuple[str, ...]:
    """Write a picture; lossless except as JPEG (quality 95, no chroma subsampling).

    Metadata go with it where the format holds them. JPEG and PPM cannot hold transparency, which
    is an error rather than a guess at the background: `flatten` first.

    Args:
        picture: Pixels and what belongs to them.
        target: A path or a binary file.
        format: Whatever the path ends in.
        workers: Threads that work on a large PNG; its bytes are the same for any number.

    Returns:
        Notices of metadata that the format could not hold.

    Raises:
        ImageError: The format cannot hold the picture, or writing fails.
    """
    if format not in get_args(Format):
        raise ImageError(f"unknown format {format}; use one of {', '.join(get_args(Format))}")
    if picture.alpha is not None and format in _OPAQUE:
        raise ImageError(
            f"{format} cannot hold transparency; use png, webp or tiff, or give a background"
        )
    options, notices = save_options(
        Metadata(picture.icc, picture.exif, picture.xmp), picture.pixels.shape[2], format
    )
    if format == "jpeg":
        options |= {"quality": 95, "subsampling": 0}
    elif format == "webp":
        options |= {"lossless": True, "exact": True}
    elif format == "tiff" and picture.exif is None:
        options |= {"compression": "tiff_adobe_deflate"}  # libtiff cannot write EXIF directories
    try:
        if format == "png" and png.is_large(picture.pixels):
            with _writable(target) as file:
                png.write(file, picture.pixels, picture.alpha, options, workers)
        else:
            _image_of(picture).save(target, format, **options)
    except Exception as error:  # as for reading
        raise ImageError(f"cannot be written as {format} ({error})") from error
    return notices


@contextmanager
def _writable(target: str | Path | BinaryIO) -> Iterator[BinaryIO]:
    """Something to write to; as with Pillow, a file that is new is removed after an error."""
    if not isinstance(target, str | Path):
        yield target
        return
    is_new = not Path(target).exists()
    with open(target, "wb") as file:
        try:
            yield file
        except BaseException:
            if is_new:
                Path(os.path.realpath(target)).unlink(missing_ok=True)  # a link stays
            raise


def _image_of(picture: Picture) -> Image.Image:
    planes = picture.pixels
    if picture.alpha is not None:
        planes = np.concatenate([planes, picture.alpha[..., None]], axis=2)
    return Image.fromarray(planes[..., 0] if planes.shape[2] == 1 else planes)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the caller of `load` asked for."""

    name: str
    max_pixels: int
    is_strict: bool


def _load(file: BinaryIO, asked: _Asked) -> Picture:
    """Decode a seekable file, or what can be read in its stead."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    kind = sniff(head)
    if kind is not None and kind.is_raw:
        raise ImageError(f"{asked.name}: {kind.remedy}")
    if kind is not None and kind.module is not None:
        kind.enable()
    notices: list[str] = []
    count: int | None = None
    if kind is not None and kind.name == "TIFF":
        choice = tiff.choose(file, asked.name, is_strict=asked.is_strict)
        if choice is not None:
            file, count = choice.file, choice.count
            notices += choice.notices
        elif asked.is_strict:
            raise ImageError(f"{asked.name}: {tiff.CUT}")
        else:
            notices.append(tiff.CUT)
    try:
        return _opened(file, asked, notices, count)
    except ImageError:
        raise
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
        failure = error
    mended = mend(file, failure)
    if mended is not None and not (mended.is_damage and asked.is_strict):
        try:
            return _opened(mended.file, asked, [mended.notice], None)
        except ImageError:
            raise
        except Exception as error:  # as above
            failure = error
    raise ImageError(f"{asked.name}: {_why(file, head, failure)}") from failure


def _opened(file: BinaryIO, asked: _Asked, notices: list[str], count: int | None) -> Picture:
    """Decode a file that Pillow reads; `count` is that of its frames, None if it shall tell."""
    file.seek(0)
    with Image.open(file) as image:
        _check(image, asked)
        if count is None:
            try:
                count = getattr(image, "n_frames", 1)
            except Exception as error:  # of a frame that nobody asked for
                if asked.is_strict:
                    raise ImageError(f"{asked.name}: damaged: {said(error)}") from error
                notices.append("damaged: a frame after the first cannot be read")
        if count is not None:
            if count > 1:
                notices.append(f"the first of {count} frames coded")
            if ends.is_cut(image):
                if asked.is_strict:
                    raise ImageError(f"{asked.name}: {ends.CUT}")
                notices.append(ends.CUT)
            return _decode(image, samples_of(image), asked.name, notices)
    return _opened(file, asked, notices, 1)  # anew, for Pillow is lost among its frames


def _check(image: Image.Image, asked: _Asked) -> None:
    _check_size(image, asked.name, asked.max_pixels)
    if image.format in _DRAWINGS:
        raise ImageError(f"{asked.name}: a drawing ({image.format}); convert it to PNG first")


def _check_size(image: Image.Image, name: str, limit: int) -> None:
    width, height = image.size
    if width * height > limit or max(width, height) > MAX_SIDE:
        told = f"{limit // 1_000_000} million" if limit >= 1_000_000 else limit
        side = f", {MAX_SIDE} a side" if max(width, height) > MAX_SIDE else ""
        raise ImageError(f"{name}: {width}x{height} pixels; the limit is {told}{side}")


def _why(file: BinaryIO, head: bytes, failure: Exception) -> str:
    """Why a file cannot be read."""
    kind = sniff(head)
    if kind is not None and _is_lacking(kind.name):
        return kind.remedy
    if not isinstance(failure, UnidentifiedImageError):
        return f"cannot be decoded ({said(failure)})"
    if not head:
        return "not an image that Pillow can read: it is empty"
    if kind is None:
        return "not an image that Pillow can read"
    Image.init()
    if kind.name not in Image.OPEN:
        return kind.remedy
    try:
        file.seek(0)
        Image.OPEN[kind.name][0](file, "")  # `Image.open` keeps what plugins say to itself
    except Exception as error:  # as in `_load`
        return f"a {kind.name} file that cannot be read ({said(error)})"
    return f"a {kind.name} file that cannot be read"


def _is_lacking(name: str) -> bool:
    """Whether this Pillow was built without the library that reads a format."""
    Image.init()
    return name in Image.OPEN and name in _LIBRARIES and not features.check(_LIBRARIES[name])


def _decode(
    image: Image.Image, samples: Samples, name: str, notices: list[str], *, is_ours: bool = True
) -> Picture:
    """The picture of an image that was opened; what else there is to say is added to `notices`.

    Args:
        image: What Pillow made of a file, or a program of its own.
        samples: What is known of it.
        name: What messages call it.
        notices: What there is to say already.
        is_ours: It may be turned upright in place, for there is memory for few copies.
    """
    if samples.doubt is not None:
        raise ImageError(f"{name}: {samples.doubt}")
    image.load()
    samples.settle(image)
    metadata = read_metadata(image, notices)
    exif = metadata.exif
    try:  # a block cut short may still say what is up
        if is_ours:
            ImageOps.exif_transpose(image, in_place=True)
        else:
            image = ImageOps.exif_transpose(image)
    except EXIF_ERRORS:
        exif = None
        if UNREADABLE_EXIF not in notices:
            notices.append(UNREADABLE_EXIF)
    # PNG's cICP wins over a profile.
    icc = metadata.icc if samples.colours.encoding is None else None
    pixels, alpha = to_pixels(image, samples, icc, name, notices)
    if icc is not None:
        icc = stored_icc(icc, image.mode, pixels.shape[2], notices)
    if alpha is not None and alpha.min() == 255:
        alpha = None
    if icc is None:
        exif = exif_of_srgb(exif)
    return Picture(pixels, alpha, icc, exif, metadata.xmp, tuple(notices))


class _Limits:
    """Pillow's own limits, put aside while any thread is in `load`.

    It warns at 89 and refuses at 179 million pixels, below our limit, and refuses PNGs with more
    than a megabyte of metadata. These are variables of the whole process: the first to enter saves
    them, the last to leave restores them.
    """

    lock = threading.Lock()
    users = 0
    saved: tuple[Any, Any] = (None, None)


@contextmanager
def _pillow_limits() -> Iterator[None]:
    with _Limits.lock:
        if not _Limits.users:
            _Limits.saved = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
            Image.MAX_IMAGE_PIXELS = None
            PngImagePlugin.MAX_TEXT_CHUNK = MAX_METADATA
        _Limits.users += 1
    try:
        yield
    finally:
        with _Limits.lock:
            _Limits.users -= 1
            if not _Limits.users:
                Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = _Limits.saved
