"""The scheduler of a cluster: what it is called, and Dask's client of it.

Knows nothing of what workers are given; `cluster` does.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from diveqcodec.errors import ConfigError, DiveqError, said

if TYPE_CHECKING:
    from distributed import Client

LOCAL: Final = "local"
_SCHEMES: Final = ("tcp", "tls", "ucx", "ws", "wss")
_HOST_PORT: Final = re.compile(r"([^\s:/@\[\]]+|\[[0-9a-f:.]+(?:%\w+)?\]):([0-9]{1,5})/?", re.I)
_CONNECTING: Final = 20.0  # seconds that a scheduler has to answer


def check_address(address: str) -> str:
    """What Dask calls a scheduler: `host:8786` and `dask://host:8786` -> `tcp://host:8786`.

    `local` stays, and so does the name of a scheduler file, which ends in .json.

    Raises:
        ConfigError: it is none, such as one of another engine.
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        scheme, rest = "tcp", address
    if address == LOCAL or (not separator and address.endswith(".json")):
        return address
    scheme = "tcp" if scheme == "dask" else scheme
    found = _HOST_PORT.fullmatch(rest)
    if scheme not in _SCHEMES or found is None or not 0 < int(found[2]) < 2**16:
        raise ConfigError(
            f"{address}: use local, HOST:PORT of a Dask scheduler (also tcp://, tls://, dask://), "
            "or its scheduler file, FILE.json"
        )
    return f"{scheme}://{found[1]}:{found[2]}"


def client_of(address: str) -> Client:
    """Dask's client of a scheduler.

    Raises:
        DiveqError: whatever the reason, it cannot be had.
    """
    import distributed

    where = _address_in(address) if address.endswith(".json") else address
    try:
        asyncio.run(_greet(where))
        client: Client = distributed.Client(where, timeout=_CONNECTING)
    except (OSError, TimeoutError, distributed.TimeoutError) as error:
        raise DiveqError(
            f"--cluster {address}: no scheduler answers; start one: dask scheduler"
        ) from error
    except Exception as error:  # of names, certificates, packages, versions: nobody lists them all
        text = f"--cluster {address}: no scheduler can be asked ({said(error)})"
        raise DiveqError(text) from error
    return client


async def _greet(address: str) -> None:
    """Shake hands with a scheduler: Dask's client waits for ever for one that says nothing.

    Raises:
        TimeoutError: it says nothing.
        Exception: as Dask's own.
    """
    from distributed import Security
    from distributed.comm import connect

    how = Security().get_connection_args("client")
    comm = await asyncio.wait_for(connect(address, _CONNECTING, **how), 1.5 * _CONNECTING)
    comm.abort()


def _address_in(file: str) -> str:
    """The address in a scheduler file.

    Raises:
        DiveqError: there is none.
    """
    try:
        content = json.loads(Path(file).read_bytes())
    except FileNotFoundError as error:
        text = f"--cluster {file}: no such file; is the scheduler running?"
        raise DiveqError(text) from error
    except OSError as error:
        raise DiveqError(f"--cluster {file}: cannot be read: {error.strerror}") from error
    except ValueError:  # no JSON, or not even text
        content = None
    found = content.get("address") if isinstance(content, dict) else None
    if not isinstance(found, str) or not found:
        raise DiveqError(
            f"--cluster {file}: has no address of a scheduler; name the file of "
            "dask scheduler --scheduler-file"
        )
    return found


def arguments(address: str) -> str:
    """What `dask worker` is told to find the scheduler."""
    return f"--scheduler-file {address}" if address.endswith(".json") else address
