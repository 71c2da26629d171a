"""What a picture and its metadata may be at most, to be read as to be written. Knows nothing else.

They are limits of the format (FORMAT.md), so that whatever can be loaded can be coded; everything
is held against them before memory is taken for it.
"""

from typing import Final

MAX_PIXELS: Final = 1 << 28
MAX_SIDE: Final = 1 << 18
MAX_METADATA: Final = 16 << 20  # bytes of a profile, of EXIF data, of XMP data
