"""What every quantizer of the paper has in common: train with a step, evaluate by look-up.

Holds the abstract quantizer, the one that owns a codebook, and the statistics of indices. It knows
nothing of the steps themselves, of rates, or of images.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from diveqcodec.errors import ConfigError
from diveqcodec.quantize.step import Noise, as_float, check_noise, diveq_step, nearest

# What a quantizer in warm-up returns as index: the latent went through unquantized.
NOT_QUANTIZED = -1


class Quantizer(nn.Module, ABC):
    """Latents `[..., dim]` to points of a table and back from their indices.

    In training mode `forward` takes DiVeQ's step to the selected point. In evaluation mode it is
    `lookup(encode(z))` and nothing else: no noise, so that what is measured is what a decoder that
    has only the indices would see.

    Args:
        dim: D, dimensions of a latent.
        sizes: how many values each index of a latent can take.
        rho: noise relative to the error, see `diveq_step`.
        noise: where the noise goes, see `diveq_step`.
        sigma: a fixed standard deviation instead of `rho`.

    Raises:
        ConfigError: unknown `noise`, negative `rho` or `sigma`, `dim` or a size below 1.
    """

    def __init__(
        self,
        dim: int,
        sizes: tuple[int, ...],
        *,
        rho: float,
        noise: Noise,
        sigma: float | None,
    ) -> None:
        super().__init__()
        check_noise(noise, rho, sigma)
        if dim < 1 or min(sizes, default=0) < 1:
            raise ConfigError(f"quantizer of {dim} dimensions and sizes {sizes}: use 1 or more")
        self.dim = dim
        self.sizes = sizes
        self.rho = rho
        self.noise: Noise = noise
        self.sigma = sigma

    def forward(self, z: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Quantizes.

        Args:
            z: `[..., dim]`.
            generator: source of all randomness in training; unused in evaluation.

        Returns:
            z_q `[..., dim]` and int64 indices: `[...]` for one codebook, `[..., n]` for composed
            quantizers; -1 where a warm-up let the latent through.

        Raises:
            ConfigError: the last dimension of z is not `dim`.
        """
        if z.shape[-1] != self.dim:
            raise ConfigError(f"latents {list(z.shape)}: the quantizer takes [..., {self.dim}]")
        if not self.training:
            indices = self.encode(z)
            return self.lookup(indices), indices
        if self.is_warming_up:
            self.observe(z)
            shape = z.shape[:-1] + self.index_shape
            return as_float(z)[0], torch.full(shape, NOT_QUANTIZED, device=z.device)
        return self._train_step(z, generator)

    @property
    def index_shape(self) -> tuple[int, ...]:
        """What follows the latents' own shape in that of their indices."""
        return ()

    @property
    def is_warming_up(self) -> bool:
        """Whether the next training forward lets latents through unquantized."""
        return False

    def observe(self, z: Tensor) -> None:  # noqa: B027 - most quantizers have no warm-up
        """One forward of the warm-up: collects latents `[..., dim]`, quantizes nothing."""

    @abstractmethod
    def encode(self, z: Tensor) -> Tensor:
        """The indices of the points that stand for z `[..., dim]`; deterministic, no gradient."""

    @abstractmethod
    def lookup(self, indices: Tensor) -> Tensor:
        """The points `[..., dim]` that indices stand for: the inverse of `encode`."""

    @abstractmethod
    def select(self, z: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """The training point of each latent, with its gradient to the codebook, and the index."""

    @abstractmethod
    def initialise(self, latents: Tensor, generator: torch.Generator | None = None) -> None:
        """Sets codebook and scale from sample latents `[N, dim]`, in place."""

    def _train_step(self, z: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        point, indices = self.select(z, generator)
        z_q = diveq_step(
            z, point, rho=self.rho, noise=self.noise, sigma=self.sigma, generator=generator
        )
        return z_q, indices


class CodebookQuantizer(Quantizer):
    """A quantizer that owns one codebook, stored as `scale * unit`.

    The optimizer sees `unit`, whose entries are of order 1 whatever the latents' magnitude: a step
    of Adam has the size of the learning rate, and would destroy a codebook of small numbers.

    Args:
        size: K, number of codewords.
        dim: D.
        rho: see `diveq_step`.
        noise: see `diveq_step`.
        sigma: see `diveq_step`.
        points: rows of the table that indices refer to; the codebook itself by default.

    Attributes:
        unit: parameter `[K, D]`, standard normal until initialised.
        scale: buffer, scalar.
    """

    scale: Tensor

    def __init__(
        self,
        size: int,
        dim: int,
        *,
        rho: float,
        noise: Noise,
        sigma: float | None,
        points: int | None = None,
    ) -> None:
        super().__init__(
            dim, (size if points is None else points,), rho=rho, noise=noise, sigma=sigma
        )
        if size < 1:
            raise ConfigError(f"codebook of {size} codewords: use 1 or more")
        self.size = size
        self.unit = nn.Parameter(torch.randn(size, dim))
        self.register_buffer("scale", torch.ones(()))

    @property
    def codebook(self) -> Tensor:
        """The codewords `[K, D]`, differentiable with respect to `unit`."""
        return self.scale * self.unit

    @property
    def table(self) -> Tensor:
        """What indices refer to, `[sizes[0], D]`."""
        return self.codebook

    def set_codebook(self, codewords: Tensor, scale: Tensor) -> None:
        """Replaces the codewords `[K, D]`, in place, given the latents' magnitude as the scale.

        Raises:
            ConfigError: the codewords do not have the shape of the codebook.
        """
        if codewords.shape != self.unit.shape:
            raise ConfigError(
                f"codewords {list(codewords.shape)}: the codebook is {list(self.unit.shape)}"
            )
        with torch.no_grad():
            self.scale.copy_(scale.clamp_min(torch.finfo(scale.dtype).tiny))
            self.unit.copy_(codewords / self.scale)

    def encode(self, z: Tensor) -> Tensor:
        """Index of the nearest point of the table, int64 `[...]`; deterministic, no gradient."""
        return nearest(z.reshape(-1, self.dim), self.table).reshape(z.shape[:-1])

    def lookup(self, indices: Tensor) -> Tensor:
        """The points `[..., D]` of indices `[...]`: the inverse of `encode`."""
        return functional.embedding(indices, self.table)


def index_counts(indices: Tensor, size: int) -> Tensor:
    """How often each of `size` codewords occurs; -1 (not quantized) is left out. int64 `[size]`."""
    flat = indices.detach().flatten()
    return torch.bincount(flat[flat != NOT_QUANTIZED], minlength=size)


def usage(indices: Tensor, size: int) -> float:
    """Share of the `size` codewords that occur at all, in [0, 1]."""
    return (index_counts(indices, size) > 0).sum().item() / size


def perplexity(indices: Tensor, size: int) -> float:
    """2 to the entropy of the indices, in [1, size]; 0 if there are none.

    >>> perplexity(torch.tensor([0, 0, 3, 3]), 4)
    2.0
    """
    counts = index_counts(indices, size).double()
    if not counts.sum() > 0:
        return 0.0
    p = counts[counts > 0] / counts.sum()
    return math.exp2(-(p * p.log2()).sum().item())
