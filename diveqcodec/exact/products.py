"""Exact sums of products of integers: by float64 everywhere, by 8-bit digits where that is faster.

Processors with instructions for 8-bit integers multiply them ten times as fast as float64. So a
number is split into digits of base 256, and their products, which are sums of int32 below 2^31, are
put together again in float64. Both ways give the integers that there are, not an approximation of
them; which one a machine takes is its own business. `arithmetic` lets them compete once, on numbers
that would show an instruction that saturates.

Knows nothing of what the numbers mean.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Protocol

import torch
from torch import Tensor

NUMBER_BOUND: Final = 1 << 22  # numbers are below it in magnitude; weights may be anything

_MOST_INPUTS: Final = 1 << 16  # of a matrix: sums of as many products of digits are below 2^31
_TWO_DIGITS: Final = 127 * 256 + 127  # the largest number of two digits
_FEW: Final = 1 << 21  # products for which splitting numbers into digits is not worth its time


class Arithmetic(Protocol):
    """How sums of products below 2^53 are found. Numbers are integers below `NUMBER_BOUND`.

    What `matrix`, `memory` and `take` give is an implementation's own and goes back to it alone.
    """

    def matrix(self, weight: Tensor) -> Any:
        """A matrix from integers `[outputs, inputs]`, float64."""

    def memory(self, rows: int, columns: int) -> Any:
        """Zeros `[rows, columns]` to be filled in."""

    def put(self, memory: Any, rows: Tensor, first: int, values: Tensor) -> None:
        """Write float64 `[M, c]` into rows `[M]`, from column `first` on."""

    def take(self, memory: Any, index: Tensor, columns: int) -> Any:
        """The first `columns` of rows `[M, T]`, side by side: numbers `[M, T * columns]`."""

    def sums(self, numbers: Any, matrix: Any) -> Tensor:
        """Numbers `[M, inputs]`, of `take` or float64, times the matrix: float64 `[M, outputs]`."""


class Doubles:
    """By float64, which is exact up to 2^53."""

    def matrix(self, weight: Tensor) -> Tensor:
        """See `Arithmetic`."""
        return weight.T.contiguous()

    def memory(self, rows: int, columns: int) -> Tensor:
        """See `Arithmetic`."""
        return torch.zeros(rows, columns, dtype=torch.float64)

    def put(self, memory: Tensor, rows: Tensor, first: int, values: Tensor) -> None:
        """See `Arithmetic`."""
        memory[rows, first : first + values.shape[1]] = values

    def take(self, memory: Tensor, index: Tensor, columns: int) -> Tensor:
        """See `Arithmetic`."""
        return _taken(memory, index, columns)

    def sums(self, numbers: Tensor, matrix: Tensor) -> Tensor:
        """See `Arithmetic`."""
        return numbers @ matrix


@dataclass(slots=True)
class _Split:
    """Numbers `[M, n]` as low + 256 middle + 65536 high, int8 each.

    Attributes:
        both: Low digits, then middle ones: `[2 M, n]`.
        high: Of the rows `tall`; no other row has any.
        tall: int64.
    """

    both: Tensor
    high: Tensor
    tall: Tensor

    @classmethod
    def of(cls, values: Tensor) -> _Split:
        """Of float64."""
        rest, low = _digit(values.to(torch.int32))
        high, middle = _digit(rest)
        tall = high.any(1).nonzero()[:, 0]
        return cls(torch.cat([low, middle]), high[tall].to(torch.int8), tall)

    def columns(self, chosen: Tensor) -> Tensor:
        """Some columns, float64."""
        low, middle = self.both[:, chosen].double().chunk(2)
        total = low + 256 * middle
        return total.index_add_(0, self.tall, self.high[:, chosen].double(), alpha=65536)


class _Memory:
    """Rows of digits that are filled in one after another; see `_Split`."""

    def __init__(self, rows: int, columns: int) -> None:
        self.rows = rows
        self.both = torch.zeros(2 * rows, columns, dtype=torch.int8)
        self.high: Tensor | None = None  # made when it is first needed
        self.is_tall = torch.zeros(rows, dtype=torch.bool)

    def put(self, rows: Tensor, first: int, values: Tensor) -> None:
        """Write float64 `[M, c]` into rows, from column `first` on."""
        part, columns = _Split.of(values), slice(first, first + values.shape[1])
        low, middle = part.both.chunk(2)
        self.both[rows, columns] = low
        self.both[rows + self.rows, columns] = middle
        if self.high is not None:
            self.high[rows, columns] = 0
        if len(part.tall):
            if self.high is None:
                self.high = torch.zeros(self.rows, self.both.shape[1], dtype=torch.int8)
            self.high[rows[part.tall], columns] = part.high
            self.is_tall[rows[part.tall]] = True

    def take(self, index: Tensor, columns: int) -> _Split:
        """See `Arithmetic`."""
        twice = torch.cat([index, index + self.rows])
        both = _taken(self.both, twice, columns)
        if self.high is None:
            nothing = index.new_zeros(0)
            return _Split(both, both[nothing], nothing)
        tall = self.is_tall[index].any(1).nonzero()[:, 0]
        return _Split(both, _taken(self.high, index[tall], columns), tall)


@dataclass(frozen=True, slots=True)
class _Matrix:
    """A matrix as float64 `[inputs, outputs]`, and the digits of it.

    Attributes:
        whole: All of it.
        digits: int8 `[inputs, 2 * outputs]`: low digits, then high ones.
        rest: Of some inputs, what two digits leave of weights that are too large: float64
            `[some inputs, some outputs]`.
        inputs: Which they are.
        outputs: And which outputs.
    """

    whole: Tensor
    digits: Tensor
    rest: Tensor
    inputs: Tensor
    outputs: Tensor


class Digits:
    """By 8-bit digits."""

    def matrix(self, weight: Tensor) -> _Matrix:
        """See `Arithmetic`."""
        whole = weight.T.contiguous()
        if len(whole) > _MOST_INPUTS:
            raise ValueError(f"{len(whole)} inputs of a matrix; the limit is {_MOST_INPUTS}")
        most = whole.clamp(-_TWO_DIGITS, _TWO_DIGITS)
        high, low = _digit(most.to(torch.int32))
        rest = whole - most
        inputs, outputs = (rest.any(axis).nonzero()[:, 0] for axis in (1, 0))
        digits = torch.cat([low, high.to(torch.int8)], dim=1)
        return _Matrix(whole, digits, rest[inputs][:, outputs], inputs, outputs)

    def memory(self, rows: int, columns: int) -> _Memory:
        """See `Arithmetic`."""
        return _Memory(rows, columns)

    def put(self, memory: _Memory, rows: Tensor, first: int, values: Tensor) -> None:
        """See `Arithmetic`."""
        memory.put(rows, first, values)

    def take(self, memory: _Memory, index: Tensor, columns: int) -> _Split:
        """See `Arithmetic`."""
        return memory.take(index, columns)

    def sums(self, numbers: _Split | Tensor, matrix: _Matrix) -> Tensor:
        """See `Arithmetic`."""
        if isinstance(numbers, Tensor):
            if len(numbers) * matrix.whole.numel() < _FEW:
                return numbers @ matrix.whole
            numbers = _Split.of(numbers)
        count = matrix.whole.shape[1]
        low, middle = torch._int_mm(numbers.both, matrix.digits).chunk(2)
        total = middle[:, count:].double()
        total.mul_(256).add_(low[:, count:] + middle[:, :count])
        total.mul_(256).add_(low[:, :count])
        if len(numbers.tall):
            product = torch._int_mm(numbers.high, matrix.digits).double()
            large = product[:, :count].add_(product[:, count:], alpha=256)
            total.index_add_(0, numbers.tall, large, alpha=65536)
        if len(matrix.inputs):
            total[:, matrix.outputs] += numbers.columns(matrix.inputs) @ matrix.rest
        return total


@lru_cache(maxsize=1)
def arithmetic() -> Arithmetic:
    """The faster one on this processor, of those that pass the test."""
    doubles, digits = Doubles(), Digits()
    return digits if usable() and _seconds(digits) < _seconds(doubles) else doubles


def usable() -> bool:
    """Whether `Digits` is right on this processor."""
    return _has_instructions() and _is_right(Digits())


def _has_instructions() -> bool:
    """Whether the processor sums up products of 8-bit integers in 32 bits.

    Older ones do so in 16 bits on the way, which may saturate.
    """
    has = getattr(torch.cpu, "_is_vnni_supported", None)
    return hasattr(torch, "_int_mm") and has is not None and bool(has())


def _is_right(tried: Arithmetic) -> bool:
    """Whether extreme and random numbers give what float64 gives."""
    random = torch.Generator().manual_seed(0)
    for inputs, outputs, rows in ((1, 1, 1), (37, 5, 3), (2600, 18, 20)):
        weights = torch.randint(-32767, 32768, (outputs, inputs), generator=random)
        numbers = torch.randint(-(1 << 17), (1 << 17) + 1, (rows, inputs), generator=random)
        cases = [(numbers, weights)]
        for x, w in ((-32896, -32767), (-32896, 32639), (32639, 32639), (127, 127), (255, -128)):
            cases.append((torch.full_like(numbers, x), torch.full_like(weights, w)))
        for values, weight in cases:
            expected = values.double() @ weight.double().T
            memory = tried.memory(rows, inputs)
            tried.put(memory, torch.arange(rows), 0, values.double())
            taken = tried.take(memory, torch.arange(rows)[:, None], inputs)
            if not torch.equal(tried.sums(taken, tried.matrix(weight.double())), expected):
                return False
    return True


def _seconds(tried: Arithmetic) -> float:
    """The least of a few times that a product of ordinary size takes."""
    random = torch.Generator().manual_seed(1)
    matrix = tried.matrix(torch.randint(-999, 999, (256, 256), generator=random).double())
    memory = tried.memory(256, 256)
    rows = torch.arange(256)
    values = torch.randint(-9999, 9999, (256, 256), generator=random).double()
    tried.put(memory, rows, 0, values)
    return min(_timed(lambda: tried.sums(tried.take(memory, rows[:, None], 256), matrix))
               for _ in range(3))  # fmt: skip


def _timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _digit(whole: Tensor) -> tuple[Tensor, Tensor]:
    """What is left of int32 numbers, and their last digit of base 256, -128 ... 127, int8."""
    rest = (whole + 128) >> 8
    return rest, (whole - (rest << 8)).to(torch.int8)


def _taken(rows: Tensor, index: Tensor, columns: int) -> Tensor:
    found = rows[:, :columns].index_select(0, index.flatten())
    return found.view(len(index), -1)
