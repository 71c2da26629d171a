"""Which page of a TIFF file is the picture.

Cameras' raw files and layered TIFFs often begin with a preview, and hold the picture in a later
directory or in a sub-directory, which Pillow does not look at. This module walks the directories
itself, because Pillow gives up a whole file for a fault in a page that nobody asked for. Source:
TIFF 6.0 (Adobe, 1992), TIFF/EP and DNG 1.4 for the tags. Knows no pixels.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import BinaryIO, Final

from diveqcodec.errors import ImageError
from diveqcodec.image.kinds import raw

# What Pillow reads of such a file may lack tags, and nobody can tell whether it is a preview.
CUT: Final = "damaged: the directory of the first page cannot be read whole"

_SUBFILE_TYPE: Final = 254
_OLD_SUBFILE_TYPE: Final = 255
_WIDTH: Final = 256
_HEIGHT: Final = 257
_PHOTOMETRIC: Final = 262
_MAKE: Final = 271
_STRIPS: Final = ((273, 279), (324, 325))  # offsets and lengths of strips, and of tiles
_SUB_DIRECTORIES: Final = 330
_DNG_VERSION: Final = 50706
_MOSAICS: Final = (32803, 34892)  # photometric interpretations: colour filter array, linear raw
_READ: Final = {
    *(_SUBFILE_TYPE, _OLD_SUBFILE_TYPE, _WIDTH, _HEIGHT, _PHOTOMETRIC, _MAKE),
    *(_SUB_DIRECTORIES, _DNG_VERSION),
}
_REDUCED: Final = 1  # bits of NewSubfileType
_MASK: Final = 4
_OLD_REDUCED: Final = 2  # a value of SubfileType

# Bytes of a value of every type.
_SIZES: Final = {
    **dict.fromkeys((1, 2, 6, 7), 1),
    **dict.fromkeys((3, 8), 2),
    **dict.fromkeys((4, 9, 11, 13), 4),
    **dict.fromkeys((5, 10, 12, 16, 17, 18), 8),
}
_INTEGERS: Final = {1: "B", 2: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_MAX_VALUES: Final = 256  # of a tag; what we ask of has fewer
_MAX_STRIPS: Final = 1 << 20
_MAX_PAGES: Final = 100_000


@dataclass(frozen=True, slots=True)
class Page:
    """A directory: where it is, where its pointer to the next one is, and the tags of `_READ`."""

    offset: int
    next_at: int
    next: int
    tags: dict[int, tuple[int, ...]]

    @property
    def is_whole(self) -> bool:
        """Neither a reduced version of another page nor a mask."""
        new = self.tags.get(_SUBFILE_TYPE, (0,))[0]
        old = self.tags.get(_OLD_SUBFILE_TYPE, (0,))[0]
        return not (new & (_REDUCED | _MASK) or old == _OLD_REDUCED)

    @property
    def area(self) -> int:
        """In pixels; 0 if the directory does not say."""
        return self.tags.get(_WIDTH, (0,))[0] * self.tags.get(_HEIGHT, (0,))[0]


@dataclass(frozen=True, slots=True)
class Tiff:
    """The directories of a file.

    Attributes:
        pages: Those of the chain that begins in the header.
        below: Sub-directories of all of these.
        is_damaged: A page after the first cannot be read.
    """

    pages: list[Page]
    below: list[Page]
    is_damaged: bool


@dataclass(frozen=True, slots=True)
class Chosen:
    """A file whose first page is the picture, how many pictures there were, and what to say."""

    file: BinaryIO
    count: int
    notices: list[str] = field(default_factory=list)


def choose(file: BinaryIO, name: str, *, is_strict: bool = False) -> Chosen | None:
    """Make the picture of a TIFF file its first page.

    Args:
        file: Seekable; its position is lost.
        name: What messages call it.
        is_strict: Refuse a file with a damaged page, even if it is not the picture's.

    Returns:
        The same file where nothing had to be done, else one in memory; None if the first directory
        cannot be read, which Pillow may say more of.

    Raises:
        ImageError: A camera's raw file, or, if strict, a damaged one.
    """
    try:
        tiff = read(file)
    except (struct.error, ValueError, OSError):
        return None
    everything = tiff.pages + tiff.below
    if any(page.tags.get(_PHOTOMETRIC, (0,))[0] in _MOSAICS for page in everything) or any(
        _DNG_VERSION in page.tags for page in tiff.pages
    ):
        make = bytes(tiff.pages[0].tags.get(_MAKE, ())).strip(b"\0 ").decode("latin-1")
        raise ImageError(f"{name}: {raw(make or 'DNG').remedy}")
    if tiff.is_damaged and is_strict:
        raise ImageError(f"{name}: damaged: a page after the first cannot be read")
    page, notices = _picture(tiff)
    if tiff.is_damaged:
        notices.append("damaged: a page after the first cannot be read")
    count = max(1, sum(one.is_whole for one in tiff.pages))
    if page is tiff.pages[0] and not tiff.is_damaged:
        file.seek(0)
        return Chosen(file, count, notices)
    return Chosen(_with_first(file, page), count, notices)


def read(file: BinaryIO) -> Tiff:
    """Walk all directories.

    Raises:
        ValueError: No TIFF header, or the first directory is damaged.
        struct.error: The file ends within either.
    """
    reader = _Reader(file)
    pages: list[Page] = []
    is_damaged = False
    seen: set[int] = set()
    offset = reader.first
    while offset and offset not in seen and len(pages) < _MAX_PAGES:
        seen.add(offset)
        try:
            page = reader.directory(offset)
            if pages and not page.area:
                raise ValueError("no dimensions")
        except (struct.error, ValueError):
            if not pages:
                raise
            is_damaged = True
            break
        pages.append(page)
        offset = page.next
    if not pages:
        raise ValueError("no directory")
    below = [page for parent in pages for page in reader.below(parent, seen)]
    return Tiff(pages, below, is_damaged)


def extent(file: BinaryIO) -> int:
    """Where the last byte lies that the first directory names: of its values and of its pixels.

    Raises:
        ValueError: No TIFF header, or no directory.
        struct.error: The file ends within either.
    """
    reader = _Reader(file)
    return reader.extent(reader.first)


def _picture(tiff: Tiff) -> tuple[Page, list[str]]:
    """The page that is the picture, and what to say of it."""
    first = tiff.pages[0]
    if first.is_whole:
        larger = [page for page in tiff.below if page.is_whole and page.area > first.area]
    else:
        larger = [page for page in tiff.pages + tiff.below if page.is_whole and page.area]
        if not larger:
            return first, ["it is marked as a preview, but there is no other page"]
    if not larger:
        return first, []
    return max(larger, key=lambda page: page.area), ["the full picture coded, not the preview"]


def _with_first(file: BinaryIO, page: Page) -> BytesIO:
    """A copy of the file with this page alone in its chain."""
    reader = _Reader(file)
    file.seek(0)
    data = bytearray(file.read())
    pointer = reader.order + ("Q" if reader.is_big else "I")
    struct.pack_into(pointer, data, 8 if reader.is_big else 4, page.offset)
    if page.next:
        struct.pack_into(pointer, data, page.next_at, 0)
    return BytesIO(bytes(data))


class _Reader:
    """Reads directories of a classic or a Big TIFF in either byte order."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        file.seek(0)
        head = file.read(16)
        orders = {b"II": "<", b"MM": ">"}
        if head[:2] not in orders:
            raise ValueError("no TIFF header")
        self.order = orders[head[:2]]
        (version,) = struct.unpack_from(self.order + "H", head, 2)
        if version not in (42, 43):
            raise ValueError("no TIFF header")
        self.is_big = version == 43
        self.first = self._unpack("Q", 8) if self.is_big else self._unpack("I", 4)

    def directory(self, offset: int) -> Page:
        """The directory at an offset."""
        entries, end = self._entries(offset)
        if not entries:
            raise ValueError("directory past the end")
        tags = {}
        for entry in entries:
            tag, kind = struct.unpack_from(self.order + "HH", entry)
            if tag in _READ and kind in _INTEGERS:
                tags[tag] = self._values(entry, kind)
        try:
            following = self._unpack("Q" if self.is_big else "I", end)
        except struct.error:
            following = 0  # some programs leave the last pointer out
        return Page(offset, end, following, {tag: value for tag, value in tags.items() if value})

    def extent(self, offset: int) -> int:
        """Where the last byte lies that a directory names, or its own, as far as can be told."""
        entries, last = self._entries(offset)
        numbers: dict[int, tuple[int, ...]] = {}
        for entry in entries:
            tag, kind = struct.unpack_from(self.order + "HH", entry)
            count, content = self._content(entry)
            size = count * _SIZES.get(kind, 0)
            if size > len(content):
                last = max(last, self._pointer(content) + size)
            if kind in _INTEGERS and any(tag in pair for pair in _STRIPS):
                numbers[tag] = self._values(entry, kind, _MAX_STRIPS)
        for offsets, lengths in _STRIPS:
            pairs = zip(numbers.get(offsets, ()), numbers.get(lengths, ()), strict=False)
            last = max([last, *(start + length for start, length in pairs)])
        return last

    def _entries(self, offset: int) -> tuple[list[bytes], int]:
        """The entries of the directory at an offset, none if it is cut off, and where they end."""
        count = self._unpack("Q" if self.is_big else "H", offset)
        start, size = offset + (8 if self.is_big else 2), (20 if self.is_big else 12)
        if not 0 < count <= 4096:
            raise ValueError("no directory")
        self._file.seek(start)
        data = self._file.read(count * size)
        end = start + count * size
        if len(data) < count * size:
            return [], end
        return [data[i : i + size] for i in range(0, len(data), size)], end

    def below(self, parent: Page, seen: set[int]) -> Iterator[Page]:
        """The sub-directories of a page that can be read, and theirs."""
        pending = [parent]
        while pending:
            for offset in pending.pop().tags.get(_SUB_DIRECTORIES, ()):
                if not offset or offset in seen or len(seen) > _MAX_PAGES:
                    continue
                seen.add(offset)
                try:
                    page = self.directory(offset)
                except (struct.error, ValueError):
                    continue
                yield page
                pending.append(page)

    def _values(self, entry: bytes, kind: int, most: int = _MAX_VALUES) -> tuple[int, ...]:
        code = _INTEGERS[kind]
        count, content = self._content(entry)
        count = min(count, most)
        size = count * _SIZES[kind]
        if size > len(content):
            self._file.seek(self._pointer(content))
            content = self._file.read(size)
            if len(content) < size:
                return ()
        return struct.unpack_from(f"{self.order}{count}{code}", content)

    def _content(self, entry: bytes) -> tuple[int, bytes]:
        """How many values an entry has, and they themselves, or where they are."""
        (count,) = struct.unpack_from(self.order + ("Q" if self.is_big else "I"), entry, 4)
        return count, entry[12:] if self.is_big else entry[8:]

    def _pointer(self, content: bytes) -> int:
        offset: int = struct.unpack(self.order + ("Q" if self.is_big else "I"), content)[0]
        return offset

    def _unpack(self, code: str, offset: int) -> int:
        self._file.seek(offset)
        code = self.order + code
        value: int = struct.unpack(code, self._file.read(struct.calcsize(code)))[0]
        return value
