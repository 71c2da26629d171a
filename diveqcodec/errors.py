"""The errors that diveqcodec raises.

Every error a user can cause is a `DiveqError` whose message is one line naming the file or value
and the remedy. The library raises them; only the command line prints them.
"""


class DiveqError(Exception):
    """Base of every error that diveqcodec raises on purpose."""


class ImageError(DiveqError):
    """A picture cannot be read, is too large, or cannot be represented."""


class FormatError(DiveqError):
    """The bytes are not a `.dvq` file this program can read."""


class DamagedError(FormatError):
    """The bytes are a `.dvq` file, but a checksum or a limit says that it was damaged."""


class ModelError(DiveqError):
    """Weights are missing, unreadable, or do not fit what was asked of them."""


class ConfigError(DiveqError):
    """A configuration key or value is not valid."""


class TrainingError(DiveqError):
    """Training cannot start or go on."""


def said(error: BaseException) -> str:
    """What an error of another package says, in one line; its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
