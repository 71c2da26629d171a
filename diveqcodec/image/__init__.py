"""Any picture file <-> 8-bit pixels, transparency and metadata, by way of Pillow.

    picture = load("photo.jpg")
    save(flatten(picture, (255, 255, 255)), "photo.png", "png")

| module | what it knows |
|---|---|
| `picture` | a `Picture` in memory; on a background |
| `files` | `load` and `save`: a file from its first byte to a `Picture` |
| `kinds` | which format some bytes or a name claim to be; no pixels |
| `tiff` | which page of a TIFF file is the picture; no pixels |
| `ends` | whether a file goes on behind the picture as it should; no pixels |
| `frames` | whether a file that was written here is all there; no pixels |
| `png` | large PNG files, written by several threads |
| `mend` | damage that leaves every pixel as it was |
| `pixels` | every mode of Pillow's to 8 bits a channel |
| `colour`, `grey` | colours told by numbers instead of a profile; grey of more than 8 bits |
| `metadata` | colour profile, EXIF and XMP |

The names load on first use, so that `kinds` costs neither numpy nor Pillow. Nothing here knows
models, the `.dvq` container, or who prints.
"""

from typing import TYPE_CHECKING

from diveqcodec.lazy import loader

if TYPE_CHECKING:
    from diveqcodec.image.files import load, save
    from diveqcodec.image.metadata import Format
    from diveqcodec.image.picture import Picture, Pixels, flatten
    from diveqcodec.limits import MAX_PIXELS

__all__ = ["MAX_PIXELS", "Format", "Picture", "Pixels", "flatten", "load", "save"]

__getattr__, __dir__ = loader(
    __name__,
    {
        "Format": "diveqcodec.image.metadata",
        "MAX_PIXELS": "diveqcodec.limits",
        "Picture": "diveqcodec.image.picture",
        "Pixels": "diveqcodec.image.picture",
        "flatten": "diveqcodec.image.picture",
        "load": "diveqcodec.image.files",
        "save": "diveqcodec.image.files",
    },
)
