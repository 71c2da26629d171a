"""Installed weights: a name, an id or a path -> a weights file.

Looked through in order: the folders of the environment variable DIVEQ_MODELS, the user's own folder
(where `diveq models --import` puts weights), and the weights shipped with the package. What is
found is recognised by the metadata of the file; no tensor is read, and torch is not imported
before `load`. Nothing is ever downloaded.

Knows nothing of pictures or of the command line.
"""

from __future__ import annotations

import contextlib
import importlib.resources
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from diveqcodec.errors import ConfigError, ModelError, said
from diveqcodec.exact.metadata import read_info
from diveqcodec.folders import home

if TYPE_CHECKING:
    import torch

    from diveqcodec.exact.weights import CodingModel

log = logging.getLogger(__name__)

DEFAULT: Final = "diveq-5"  # the model that codes when none is named
VARIABLE: Final = "DIVEQ_MODELS"
SUFFIX: Final = ".safetensors"

_MIN_ID: Final = 4  # hex digits of an abbreviated id
_REMEDY: Final = "give weights with -m PATH, or install them with: diveq models --import PATH"


@dataclass(frozen=True, slots=True)
class Entry:
    """One weights file.

    Attributes:
        name: The file's name without suffix.
        model_id: The 16 hex digits by which a `.dvq` file names its model.
        path: Where it lies.
        size: In bytes.
        provenance: What the export noted: training, data, measured quality.
    """

    name: str
    model_id: str
    path: Path
    size: int
    provenance: dict[str, Any]

    @property
    def is_default(self) -> bool:
        """Whether it has the name of the default model."""
        return self.name == DEFAULT


def load(reference: str | Path | None = None, device: torch.device | None = None) -> CodingModel:
    """Load the default weights, or those that `reference` names (see `find`).

    Raises:
        ModelError: not found, or the file is damaged.
    """
    from diveqcodec.exact import weights  # torch takes a second

    return weights.load(find(reference).path, device)


def load_entry(entry: Entry, device: torch.device | None = None) -> CodingModel:
    """Load weights that were found, perhaps on another machine: there they may lie elsewhere.

    Raises:
        ModelError: they are not here, or others are in their place.
    """
    from diveqcodec.exact import weights

    path = entry.path
    if not path.is_file():
        own = by_id(bytes.fromhex(entry.model_id))
        if own is None:
            raise ModelError(
                f"{path}: no such file here; put the weights where all machines see them, "
                "or install them on each"
            )
        path = own.path
    model = weights.load(path, device)
    if model.model_id.hex() != entry.model_id:
        raise ModelError(
            f"{path}: is model {model.model_id.hex()} here, not {entry.model_id}; "
            "install the same weights on all machines"
        )
    return model


def find(reference: str | Path | None = None) -> Entry:
    """The weights that a path, a name, or an id (abbreviated to 4 digits or more) means.

    Args:
        reference: None for the default model. A path wins over a name, a name over an id.

    Raises:
        ModelError: there are none, or an abbreviated id fits several.
        ConfigError: `reference` is no text and no path.
    """
    if reference is None:
        reference = DEFAULT
    elif not isinstance(reference, str | Path):
        raise ConfigError(f"model {reference!r}: must be the name, id or path of weights")
    elif _is_file(reference):
        return read_entry(Path(reference))
    wanted = str(reference)
    if wanted.endswith(SUFFIX) or Path(wanted).name != wanted:
        raise ModelError(f"{wanted}: no such file")
    entries = installed()
    if not entries:
        raise ModelError(f"no weights are installed; {_REMEDY}")
    named = [entry for entry in entries if entry.name == wanted]
    if named:
        return named[0]
    fitting = [entry for entry in entries if _fits(wanted, entry.model_id)]
    if len(fitting) == 1:
        return fitting[0]
    known = ", ".join(f"{entry.name} ({entry.model_id})" for entry in fitting or entries)
    if fitting:
        raise ModelError(f"{wanted}: fits several models: {known}; give more digits")
    raise ModelError(f"{wanted}: no such model; installed: {known}")


def by_id(model_id: bytes) -> Entry | None:
    """The installed weights with this id, or None."""
    wanted = model_id.hex()
    return next((entry for entry in installed() if entry.model_id == wanted), None)


def installed() -> list[Entry]:
    """All weights found, each id once, those that are found first in front.

    A file that is not weights of diveq is left out, with a warning in the log.
    """
    entries: dict[str, Entry] = {}
    for path in _files():
        try:
            entry = read_entry(path)
        except ModelError as error:
            log.warning("left out %s", error)
            continue
        entries.setdefault(entry.model_id, entry)
    return list(entries.values())


def read_entry(path: Path) -> Entry:
    """What a weights file says of itself; reads no tensors.

    Raises:
        ModelError: missing, of another version, or not weights of diveq.
    """
    info = read_info(path)
    try:
        size = path.stat().st_size
    except OSError as error:  # gone in the meantime
        raise ModelError(f"{path}: not a weights file ({error})") from error
    return Entry(path.stem, info["id"], path, size, info["provenance"])


def folders() -> list[Path]:
    """Where weights are looked for, in order; not all need exist."""
    named = os.environ.get(VARIABLE, "").split(os.pathsep)
    found = [Path(name) for name in named if name]
    with contextlib.suppress(ModelError):  # a user without a folder
        found.append(user_folder())
    return [*found, shipped_folder()]


def user_folder() -> Path:
    """The user's own folder of weights, which need not exist.

    Raises:
        ModelError: the user has no folder at all.
    """
    variable, below = "XDG_DATA_HOME", Path(".local", "share")
    if os.name == "nt":
        variable, below = "LOCALAPPDATA", Path("AppData", "Local")
    if base := os.environ.get(variable):
        return Path(base) / "diveq" / "models"
    if (own := home()) is None:
        raise ModelError(f"this user has no home folder; set HOME, or {variable}")
    return own / below / "diveq" / "models"


def shipped_folder() -> Path:
    """The weights that come with the package: models/ in a source tree that is not installed."""
    try:
        return Path(str(importlib.resources.files("diveqcodec.models")))
    except ModuleNotFoundError:
        return Path(__file__).resolve().parent.parent / "models"


def _files() -> Iterator[Path]:
    for folder in folders():
        yield from sorted(folder.glob("*" + SUFFIX))


def _is_file(reference: str | Path) -> bool:
    try:
        return Path(reference).is_file()
    except OSError as error:  # a name that is too long, or a folder that may not be looked into
        raise ModelError(
            f"{reference}: cannot be read ({error.strerror or said(error)})"
        ) from error


def _fits(wanted: str, model_id: str) -> bool:
    return len(wanted) >= _MIN_ID and model_id.startswith(wanted.lower())
