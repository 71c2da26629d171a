"""TIFF files made by hand: directories with any tags, in a chain and below each other."""

import struct
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

CODES = {1: "B", 2: "B", 3: "H", 4: "I", 11: "f", 16: "Q"}


@dataclass
class Directory:
    """Tags as tag -> (type, values), the pixels of one strip, and sub-directories."""

    tags: dict[int, tuple[int, tuple[float, ...]]]
    strip: bytes = b""
    below: list["Directory"] = field(default_factory=list)


def page(pixels: NDArray[np.generic], photometric: int = 1, **tags: int) -> Directory:
    """A directory for pixels `[H, W]` or `[H, W, 3]`, with more tags as `t254=1`."""
    height, width = pixels.shape[:2]
    samples = 1 if pixels.ndim == 2 else pixels.shape[2]
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    found: dict[int, tuple[int, tuple[float, ...]]] = {
        256: (4, (width,)),
        257: (4, (height,)),
        258: (3, (pixels.dtype.itemsize * 8,) * samples),
        259: (3, (1,)),
        262: (3, (photometric,)),
        277: (3, (samples,)),
        278: (4, (height,)),
        339: (3, (kind,) * samples),
    }
    found |= {int(name[1:]): (4, (value,)) for name, value in tags.items()}
    return Directory(found, pixels.tobytes())


def tiff(chain: list[Directory], order: str = "<", is_big: bool = False) -> bytes:
    """A file of these directories; pixels are written as they are, so `order` should be theirs."""
    head = 16 if is_big else 8
    data = bytearray(head)
    pointer = order + ("Q" if is_big else "I")
    struct.pack_into(order + "2sH", data, 0, b"II" if order == "<" else b"MM", 43 if is_big else 42)
    if is_big:
        struct.pack_into(order + "HH", data, 4, 8, 0)
    where = head - struct.calcsize(pointer)
    for directory in chain:
        offset, following = _append(data, directory, order, is_big)
        struct.pack_into(pointer, data, where, offset)
        where = following
    return bytes(data)


def _append(data: bytearray, directory: Directory, order: str, is_big: bool) -> tuple[int, int]:
    """Add a directory; its offset, and that of its pointer to the next one."""
    tags = dict(directory.tags)
    if directory.below:
        tags[330] = (4, tuple(_append(data, one, order, is_big)[0] for one in directory.below))
    tags[273] = (4, (len(data),))
    tags[279] = (4, (len(directory.strip),))
    data += directory.strip + bytes(len(directory.strip) % 2)
    pointer, width = order + ("Q" if is_big else "I"), 8 if is_big else 4
    entries = b""
    for tag, (kind, values) in sorted(tags.items()):
        content = struct.pack(f"{order}{len(values)}{CODES[kind]}", *values)
        if len(content) > width:
            start = len(data)
            data += content + bytes(len(content) % 2)
            content = struct.pack(pointer, start)
        entries += struct.pack(order + "HH", tag, kind) + struct.pack(pointer, len(values))
        entries += content.ljust(width, b"\0")
    offset = len(data)
    data += struct.pack(order + ("Q" if is_big else "H"), len(tags)) + entries + bytes(width)
    return offset, len(data) - width


def raw_like(preview: NDArray[np.uint8], photometric: int = 32803, **tags: int) -> Directory:
    """A preview with a mosaic of sensor values below it, as cameras write."""
    first = page(preview, 2, t254=1, **tags)
    first.tags[271] = (2, tuple(b"EXAMPLE\0"))
    values = np.random.default_rng(0).integers(0, 4096, (24, 32), dtype=np.uint16)
    first.below = [page(values, photometric, t254=0)]
    return first
