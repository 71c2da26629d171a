"""Reading `.dvq` files for the commands: the header first, the rest only if it is worth reading.

Knows no model; imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from diveqcodec.cli.batch import hint_output
from diveqcodec.cli.files import read_remote, read_stdin
from diveqcodec.cli.jobs import Source
from diveqcodec.container import bitstream
from diveqcodec.container.bitstream import HEADER_BYTES, Header
from diveqcodec.errors import DiveqError
from diveqcodec.store import Remote


def read(
    source: Source, inputs: Sequence[str], output_suffixes: Sequence[str] = ()
) -> tuple[bytes, Header]:
    """All bytes of a `.dvq` file and its header.

    Args:
        source: What to read.
        inputs: All inputs of the command; the last may be an output without its `-o`.
        output_suffixes: By which such an output is recognised.

    Raises:
        FormatError: not a `.dvq` file, of a newer version, past a limit, or its header is damaged.
        DiveqError: it cannot be read.
    """
    if source.path is None:
        data = read_stdin()
        return data, bitstream.read_header(data)
    if isinstance(source.path, Remote):
        data = read_remote(source.path)
        return data, bitstream.read_header(data)
    try:
        with source.path.open("rb") as file:
            head = file.read(HEADER_BYTES)
            header = bitstream.read_header(head)
            return head + file.read(), header
    except FileNotFoundError as error:
        hint = hint_output(inputs, source, output_suffixes)
        raise DiveqError(f"{source.name}: no such file{hint}") from error
