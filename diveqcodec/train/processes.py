"""Several processes that make one step together: what `torchrun` starts, gloo or nccl between them.

Each process takes its share of the crops of a step and the gradients are averaged, so that a step
of two processes is one of the joined batch. Knows nothing of models, losses or files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from diveqcodec.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Processes:
    """This process, number `rank` of `count`."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes files and reports."""
        return self.rank == 0

    def share(self, batch: int) -> range:
        """Which crops of a step this process takes.

        Raises:
            ConfigError: they cannot be shared evenly.
        """
        if batch % self.count:
            raise ConfigError(
                f"data.batch: {batch} crops cannot be shared by {self.count} processes"
            )
        size = batch // self.count
        return range(self.rank * size, (self.rank + 1) * size)

    def sum_(self, values: Tensor) -> None:
        """Replace `values` by their sum over all processes."""
        if self.count > 1:
            distributed.all_reduce(values)


def join(device: torch.device) -> Processes:
    """The group that `torchrun` started this process in, or a single one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes()
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Processes(distributed.get_rank(), distributed.get_world_size())


class Gradients:
    """All gradients in one tensor, of which those of the parameters are views.

    Parameters that took no part in a step have zero gradients, not none, whatever the others do.

    Args:
        parameters: those without `requires_grad` are left alone.
        exchange: type that gradients have on their way between processes.
    """

    def __init__(self, parameters: Iterable[Tensor], exchange: torch.dtype) -> None:
        self._exchange = exchange
        self.parameters = [p for p in parameters if p.requires_grad]
        count = sum(p.numel() for p in self.parameters)
        self._all = torch.zeros(count, device=self.parameters[0].device)
        start = 0
        for parameter in self.parameters:
            # In the memory layout of the parameter: fused optimizers take that for granted.
            parameter.grad = self._all.as_strided(parameter.shape, parameter.stride(), start)
            start += parameter.numel()

    def clear(self) -> None:
        """Start a step."""
        self._all.zero_()

    def average(self, processes: Processes, wants_to_stop: bool, steps: int) -> tuple[bool, int]:
        """Average over all processes.

        Returns:
            whether one of them wants to stop, and how many `steps` the first one wants.
        """
        if processes.count == 1:
            return wants_to_stop, steps
        agreed = torch.tensor(
            [int(wants_to_stop), steps if processes.is_first else 0], device=self._all.device
        )
        processes.sum_(agreed)
        sent = self._all.to(self._exchange)
        processes.sum_(sent)
        self._all.copy_(sent).div_(processes.count)
        return bool(agreed[0] > 0), int(agreed[1])

    def clip(self, most: float) -> Tensor:
        """Scale down to a norm of at most `most`; returns the norm before."""
        norm = self._all.norm()
        self._all.mul_((most / norm.clamp_min(1e-6)).clamp_max(1.0))
        return norm
