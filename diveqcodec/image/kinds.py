"""What kind of picture some bytes or a name claim to be, and what would read those we cannot.

Told by the first bytes and by suffixes; nothing is decoded. Knows no pixels.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HEAD_BYTES: Final = 64  # of a file that are enough for `sniff`

# Beginnings of formats that Pillow reads -> what Pillow calls them. Those that plain text might
# begin with (BM, P5) are left to Pillow.
_PILLOW: Final = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"8BPS\0\x01", "PSD"),
    (b"DDS |\0\0\0", "DDS"),
    (b"qoif", "QOI"),
    (b"icns", "ICNS"),
)
_READ: Final = frozenset((*(name for _, name in _PILLOW), "WEBP", "AVIF"))
_JXL: Final = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
_RAW: Final = (
    (b"FUJIFILMCCD-RAW", "Fujifilm"),
    (b"IIRO", "Olympus"),
    (b"IIRS", "Olympus"),
    (b"MMOR", "Olympus"),
    (b"IIU\0", "Panasonic"),
    (b"FOVb", "Sigma"),
    (b"\0MRM", "Minolta"),
    (b"II\x1a\0\0\0HEAPCCDR", "Canon"),
)
_DVQ: Final = b"\x8bDVQ"  # bitstream.MAGIC: a test compares them, for neither may import the other
_HEIC_BRANDS: Final = (
    *(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"),
    *(b"mif1", b"msf1", b"mif2"),
)
_AVIF_BRANDS: Final = (b"avif", b"avis")

# Suffixes of files that claim to be pictures: of formats that Pillow reads, and of others.
_OF_PILLOW: Final = (
    "apng avif avifs bmp bw dds dib gif icns ico j2c j2k jfif jp2 jpc jpe jpeg jpf jpg jpx mpo pbm "
    "pcx pfm pgm png pnm ppm psd qoi ras rgb rgba sgi tga tif tiff webp xbm xpm"
)
_OF_OTHERS: Final = (
    "3fr arw cr2 cr3 crw dng erf heic heif hif iiq jxl kdc mef mos mrw nef nrw orf pef raf raw rw2 "
    "rwl sr2 srf srw x3f"
)
SUFFIXES: Final = frozenset(f".{name}" for name in f"{_OF_PILLOW} {_OF_OTHERS}".split())


@dataclass(frozen=True, slots=True)
class PictureKind:
    """A kind of picture.

    Attributes:
        name: As messages call it; for formats of Pillow's also what Pillow calls it.
        package: What to install for Pillow to read it, if it cannot by itself.
        module: Of that package: importing it, and calling its `register`, makes Pillow able to.
        register: A function of the module, or None where the import does it.
        is_raw: A camera's raw file, which no Pillow plugin shows as the camera does.
    """

    name: str
    package: str | None = None
    module: str | None = None
    register: str | None = None
    is_raw: bool = False

    def enable(self) -> bool:
        """Make Pillow able to read this kind, if the package is installed; whether it is."""
        if self.module is None:
            return False
        try:
            plugin = importlib.import_module(self.module)
            if self.register is not None:
                getattr(plugin, self.register)()
        except (ImportError, AttributeError):
            return False
        return True

    @property
    def remedy(self) -> str:
        """What to do about a picture that cannot be read."""
        if self.is_raw:
            return f"{self.name}, not developed; make a TIFF or PNG of it first, such as with rawpy"
        if self.package is not None:
            return f"{self.name}, which Pillow cannot read by itself; pip install {self.package}"
        if self.name in _READ:
            wheel = "pip install --force-reinstall 'pillow>=11.3'"
            return f"{self.name}, which this Pillow was built without; its wheel has it: {wheel}"
        return self.name


HEIC: Final = PictureKind("a HEIC picture", "pillow-heif", "pillow_heif", "register_heif_opener")
JXL: Final = PictureKind("a JPEG XL picture", "pillow-jxl-plugin", "pillow_jxl")
DVQ: Final = PictureKind("a .dvq file already")


def sniff(head: bytes) -> PictureKind | None:
    """The kind of picture that begins like this, or None; `head` is `HEAD_BYTES` long or more."""
    if head.startswith(_DVQ):
        return DVQ
    for start, maker in _RAW:
        if head.startswith(start):
            return raw(maker)
    if head[:4] in (b"II*\0", b"MM\0*") and head[8:10] == b"CR":
        return raw("Canon")
    if head.startswith(_JXL):
        return JXL
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return PictureKind("WEBP")
    if head[4:8] == b"ftyp":
        return _boxed({head[8:12], *(head[i : i + 4] for i in range(16, len(head) - 3, 4))})
    return next((PictureKind(name) for start, name in _PILLOW if head.startswith(start)), None)


def raw(maker: str) -> PictureKind:
    """The kind of a camera's raw file."""
    return PictureKind(f"a camera's raw file ({maker})", is_raw=True)


def claims_to_be_a_picture(path: Path) -> bool:
    """Whether a file is named like a picture, or begins like one.

    Raises:
        OSError: it cannot be read.
    """
    if path.suffix.lower() in SUFFIXES:
        return True
    with path.open("rb") as file:
        return sniff(file.read(HEAD_BYTES)) not in (None, DVQ)


def _boxed(brands: set[bytes]) -> PictureKind | None:
    """The kind of a file of ISO's base media format, by its brands."""
    if brands & set(_AVIF_BRANDS):
        return PictureKind("AVIF")
    if b"crx " in brands:
        return raw("Canon")
    return HEIC if brands & set(_HEIC_BRANDS) else None
