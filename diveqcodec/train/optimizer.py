"""What a step does with gradients: AdamW, and Muon for the kernels of networks of pixels.

Knows tensors and groups of parameters only: nothing of models, schedules or files.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diveqcodec.train.processes import Processes

# Odd polynomials p(s) = a s + b s^3 + c s^5, one after another, that take every singular value
# from .003 to 1 into .7 ... 1.2 (those of Jordan et al., found by search, five times).
_POLYNOMIAL, _ROUNDS = (3.4445, -4.7750, 2.0315), 5
_RMS = 0.2  # root mean square of an update at rate 1: about that of Adam's
_MOST_ROWS = 192  # larger matrices are made orthogonal in parts, in a fraction of the time


class Muon(torch.optim.Optimizer):
    """Steps along the momentum of a matrix, made orthogonal: all its directions learn alike.

    Muon (Jordan, "Muon: An optimizer for hidden layers in neural networks", 2024) with the scale of
    Liu et al. ("Muon is scalable for LLM training", arXiv 2502.16982, eq. 4), so that a learning
    rate means what it means to Adam. A kernel `[O, I, 3, 3]` is a matrix `[O, 9 I]`; with more than
    192 rows it is treated as several of equal height. With several processes each does a share of
    the kernels, and the updates are exchanged, since one on its own needs a tenth of a step.

    Args:
        groups: of parameters of two dimensions or more, every one with its `lr`.
        momentum: how much of it stays from one step to the next.
        processes: who shares the work.
        exchange: type of updates on their way between processes.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        momentum: float,
        processes: Processes,
        exchange: torch.dtype = torch.bfloat16,
    ) -> None:
        super().__init__(groups, {"lr": 0.0})
        self._momentum, self._processes, self._exchange = momentum, processes, exchange
        self._turns = self._share([p for g in self.param_groups for p in g["params"]])

    def _share(self, parameters: list[Tensor]) -> dict[Tensor, int]:
        """Which process makes the update of every kernel: the largest first, to who has least."""
        costs = [0.0] * self._processes.count
        turns = {}
        for parameter in sorted(parameters, key=_cost, reverse=True):
            turns[parameter] = costs.index(min(costs))
            costs[turns[parameter]] += _cost(parameter)
        return turns

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Make a step; every process must, with equal gradients."""
        parameters = [(p, g["lr"]) for g in self.param_groups for p in g["params"]]
        if not parameters:
            return
        updates = torch.zeros(
            sum(p.numel() for p, _ in parameters),
            dtype=self._exchange if self._processes.count > 1 else torch.float32,
            device=parameters[0][0].device,
        )
        parts = updates.split([p.numel() for p, _ in parameters])
        for (parameter, _), part in zip(parameters, parts, strict=True):
            state = self.state[parameter]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
            momentum = state["momentum"].lerp_(parameter.grad, 1 - self._momentum)
            if self._turns[parameter] == self._processes.rank:
                ahead = parameter.grad.lerp(momentum, self._momentum)
                part.copy_(update(ahead).flatten())
        if self._processes.count > 1:
            self._processes.sum_(updates)
        for (parameter, rate), part in zip(parameters, parts, strict=True):
            parameter.add_(part.view(parameter.shape), alpha=-rate)


class Optimizers:
    """AdamW and Muon as one.

    Args:
        adamw: of what is not a kernel.
        muon: of kernels.
    """

    def __init__(self, adamw: torch.optim.AdamW, muon: Muon) -> None:
        self.adamw, self.muon = adamw, muon
        self.param_groups = [*adamw.param_groups, *muon.param_groups]
        self._kernels = {p for group in muon.param_groups for p in group["params"]}

    def step(self) -> None:
        """Make a step of both."""
        self.adamw.step()
        self.muon.step()

    def state_of(self, parameter: Tensor) -> dict[str, Any]:
        """What is kept of a parameter from step to step, to read and to change."""
        kept: dict[str, Any] = self._of(parameter).state[parameter]
        return kept

    def kept(self, parameter: Tensor) -> dict[str, Tensor]:
        """Names of what is kept of a parameter, and tensors of the same shape, type and layout."""
        if parameter in self._kernels:
            return {"momentum": parameter}
        step = torch.zeros((), device=parameter.device)
        return {"step": step, "exp_avg": parameter, "exp_avg_sq": parameter}

    def _of(self, parameter: Tensor) -> torch.optim.Optimizer:
        return self.muon if parameter in self._kernels else self.adamw


def update(direction: Tensor) -> Tensor:
    """What Muon adds, times minus the rate, for a kernel's `direction`; float32, its shape.

    Its root mean square is 0.2 where the larger side has as many independent directions.
    """
    matrix = direction.flatten(1)
    rows = matrix.shape[0]
    count = next(n for n in range(1, rows + 1) if rows % n == 0 and rows // n <= _MOST_ROWS)
    scale = _RMS * max(rows // count, matrix.shape[1]) ** 0.5
    parts = [orthogonal(part) for part in matrix.chunk(count)]
    return scale * torch.cat(parts).view(direction.shape)


def orthogonal(matrix: Tensor) -> Tensor:
    """About U Vᵀ of the singular value decomposition U S Vᵀ, by Newton-Schulz; float32.

    Singular values come out between .7 and 1.2; a zero matrix stays zero.
    """
    x = matrix.bfloat16()
    if matrix.shape[0] > matrix.shape[1]:
        x = x.T
    x = x / x.norm().clamp_min(1e-20)
    a, b, c = _POLYNOMIAL
    for _ in range(_ROUNDS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return (x.T if matrix.shape[0] > matrix.shape[1] else x).float()


def _cost(kernel: Tensor) -> float:
    rows, columns = kernel.shape[0], kernel[0].numel()
    return min(rows, columns, _MOST_ROWS) * kernel.numel()
