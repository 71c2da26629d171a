"""Where networks run: names of devices -> devices that are there."""

from __future__ import annotations

import torch

from diveqcodec.errors import ConfigError, said


def device_of(name: str | torch.device) -> torch.device:
    """The device of a name, such as cpu, cuda or cuda:1, tried with an empty tensor.

    Raises:
        ConfigError: there is no such device here.
    """
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"device {name}: is none of torch's, such as cpu or cuda:0") from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise ConfigError(f"device {name}: no CUDA device is available; use cpu")
        if (device.index or 0) >= count:
            raise ConfigError(f"device {name}: there are {count} CUDA devices, the first is cuda:0")
    try:
        torch.empty(0, device=device)
    except Exception as error:  # of whichever backend
        raise ConfigError(f"device {name}: cannot be used ({said(error)}); use cpu") from error
    return device
