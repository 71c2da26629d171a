"""Indices: whether each is in its range, and how often codewords occur.

It knows nothing of what an index stands for.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from diveqcodec.errors import ConfigError

# What a quantizer in warm-up returns as index: the latent went through unquantized.
NOT_QUANTIZED = -1


def check_indices(indices: Tensor, sizes: Sequence[int], *, least: int = 0) -> None:
    """Raises ConfigError unless indices `[..., n]` are integers from `least` on, below the n sizes.

    Indices of one codebook may be `[...]`. On a GPU this waits for them, so it is for those that
    come from outside. Nothing is checked in a graph that torch compiles or exports: what it will be
    given is not known.
    """
    if indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
        kind = str(indices.dtype).removeprefix("torch.")
        raise ConfigError(f"indices {kind} {list(indices.shape)}: give integers")
    if torch.compiler.is_compiling() or not indices.numel():
        return
    ends = torch.stack(indices.detach().long().reshape(-1, len(sizes)).aminmax(dim=0))
    for number, (low, high, size) in enumerate(zip(*ends.tolist(), sizes, strict=True)):
        if low < least or high >= size:
            place = f" of codebook {number}" if len(sizes) > 1 else ""
            hint = " (-1: a warm-up let the latent through)" if low == NOT_QUANTIZED < least else ""
            wrong = low if low < least else high
            raise ConfigError(f"index {wrong}{place}: use {least} to {size - 1}{hint}")


def index_counts(indices: Tensor, size: int) -> Tensor:
    """How often each of `size` codewords occurs; -1 (not quantized) is left out. int64 `[size]`.

    Raises:
        ConfigError: an index that is neither -1 nor below `size`, or a size below 1.
    """
    if size < 1:
        raise ConfigError(f"indices of {size} codewords: use 1 or more")
    flat = indices.detach().flatten()
    check_indices(indices, (size,), least=NOT_QUANTIZED)
    return torch.bincount(flat[flat != NOT_QUANTIZED], minlength=size)


def usage(indices: Tensor, size: int) -> float:
    """Share of the `size` codewords that occur at all, in [0, 1].

    Raises:
        ConfigError: as of `index_counts`.
    """
    return (index_counts(indices, size) > 0).sum().item() / size


def perplexity(indices: Tensor, size: int) -> float:
    """2 to the entropy of the indices, in [1, size]; 0 if there are none.

    >>> perplexity(torch.tensor([0, 0, 3, 3]), 4)
    2.0

    Raises:
        ConfigError: as of `index_counts`.
    """
    counts = index_counts(indices, size).double()
    if not counts.sum() > 0:
        return 0.0
    p = counts[counts > 0] / counts.sum()
    return math.exp2(-(p * p.log2()).sum().item())
