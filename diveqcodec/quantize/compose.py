"""Product and residual forms: several quantizers that stand for one latent together.

Parts of DiVeQ and SF-DiVeQ only *select* a point; DiVeQ's step is then taken once, from the whole
latent to the whole point, as the authors' code does (arXiv 2509.26469). A step a part would be a
different method: its gradients see the error of the part alone. If any part is of another method,
every part follows its own rule on what it is given, and the losses add up. It knows nothing of
rates or images.

With `d^` and `u` of the joint error and g the upstream gradient, the latent gets `g - d^ (u.g)`,
and every part gets its share of `d^ (u.g)`: a product part its own channels of it, each residual
layer all of it, since the point is the sum of the layers. That is the joint step.
"""

from collections.abc import Sequence
from functools import reduce
from itertools import accumulate
from typing import cast

import torch
from torch import Tensor, nn

from diveqcodec.errors import ConfigError
from diveqcodec.quantize.base import RHO, Quantised, Quantizer, Stepping
from diveqcodec.quantize.step import Noise


class _Composed(Stepping):
    """Parts that are given one after another; indices `[..., n]` in the order of the parts.

    Under the joint step a part's own noise settings are not used, else those given here are not. A
    part may itself be composed; its indices are then several consecutive ones.
    """

    def __init__(
        self,
        quantizers: Sequence[Quantizer],
        dim: int,
        *,
        rho: float,
        noise: Noise,
        sigma: float | None,
    ) -> None:
        sizes = tuple(size for quantizer in quantizers for size in quantizer.sizes)
        super().__init__(dim, sizes)
        self.set_noise(rho=rho, noise=noise, sigma=sigma)
        self.quantizers = nn.ModuleList(quantizers)

    @property
    def parts(self) -> list[Quantizer]:
        """The quantizers, typed."""
        return cast(list[Quantizer], list(self.quantizers))

    @property
    def dtype(self) -> torch.dtype:
        """The widest of the parts', and that of the points that `lookup` gives."""
        return reduce(torch.promote_types, (part.dtype for part in self.parts))

    @property
    def steps_jointly(self) -> bool:
        """Whether every part is of DiVeQ or SF-DiVeQ."""
        return all(part.steps_jointly for part in self.parts)

    def _train_step(
        self, z: Tensor, taught: Tensor, generator: torch.Generator | None
    ) -> Quantised:
        if self.steps_jointly:
            return super()._train_step(z, taught, generator)
        return self._step_by_parts(z, taught, generator)

    def _step_by_parts(
        self, z: Tensor, taught: Tensor, generator: torch.Generator | None
    ) -> Quantised:
        """A step of every part by its own rule."""
        raise NotImplementedError

    @property
    def index_shape(self) -> tuple[int, ...]:
        """One index a codebook: `(n,)`."""
        return (len(self.sizes),)

    @property
    def is_warming_up(self) -> bool:
        """Whether any part is: latents pass through until the last is ready."""
        return any(part.is_warming_up for part in self.parts)

    def _split_indices(self, indices: Tensor) -> list[Tensor]:
        """Each part's indices, in the shape that the part itself uses."""
        pieces = indices.split([len(part.sizes) for part in self.parts], dim=-1)
        return [
            piece if part.index_shape else piece.squeeze(-1)
            for part, piece in zip(self.parts, pieces, strict=True)
        ]

    def _join_indices(self, pieces: Sequence[Tensor]) -> Tensor:
        """The inverse of `_split_indices`."""
        return torch.cat(
            [
                piece if part.index_shape else piece.unsqueeze(-1)
                for part, piece in zip(self.parts, pieces, strict=True)
            ],
            dim=-1,
        )


class Product(_Composed):
    """Cuts the latent into consecutive runs of channels and quantizes each with its own part.

    >>> from diveqcodec.quantize import DiVeQ
    >>> Product([DiVeQ(16, 2), DiVeQ(8, 4)]).dim
    6

    Args:
        quantizers: the parts; part i takes the next `quantizers[i].dim` channels.
        rho: see `diveq_step`; relative to the joint error. Used where every part is of DiVeQ.
        noise: see `diveq_step`.
        sigma: see `diveq_step`.

    Raises:
        ConfigError: no parts, or noise settings that make no sense.
    """

    def __init__(
        self,
        quantizers: Sequence[Quantizer],
        *,
        rho: float = RHO,
        noise: Noise = "gradient",
        sigma: float | None = None,
    ) -> None:
        if not quantizers:
            raise ConfigError("product of no quantizers: give at least one")
        dim = sum(quantizer.dim for quantizer in quantizers)
        super().__init__(quantizers, dim, rho=rho, noise=noise, sigma=sigma)

    def _encode(self, z: Tensor) -> Tensor:
        pieces = zip(self.parts, self._split(z), strict=True)
        return self._join_indices([part.encode(piece) for part, piece in pieces])

    def _lookup(self, indices: Tensor) -> Tensor:
        pieces = zip(self.parts, self._split_indices(indices), strict=True)
        return torch.cat([part._lookup(piece) for part, piece in pieces], dim=-1)

    def observe(self, z: Tensor) -> None:
        """Every part that warms up sees its own channels."""
        for part, piece in zip(self.parts, self._split(z), strict=True):
            part.observe(piece)

    def select(self, z: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """The parts' training points side by side."""
        pieces = zip(self.parts, self._split(z), strict=True)
        chosen = [part.select(piece, generator) for part, piece in pieces]
        return (
            torch.cat([point for point, _ in chosen], dim=-1),
            self._join_indices([indices for _, indices in chosen]),
        )

    def initialise(self, latents: Tensor, generator: torch.Generator | None = None) -> None:
        """Initialises each part from its channels of `latents` `[N, D]`."""
        latents = self._checked(latents.detach())
        for part, piece in zip(self.parts, self._split(latents), strict=True):
            part.initialise(piece, generator)

    def _step_by_parts(
        self, z: Tensor, taught: Tensor, generator: torch.Generator | None
    ) -> Quantised:
        pieces = zip(self.parts, self._split(z), self._split(taught), strict=True)
        steps = [part._train_step(piece, by, generator) for part, piece, by in pieces]
        # A loss is a mean over the part's channels; weighted, they make the mean over all of them.
        shares = [part.dim / self.dim for part in self.parts]
        return Quantised(
            torch.cat([step.value for step in steps], dim=-1),
            self._join_indices([step.indices for step in steps]),
            torch.stack([w * step.loss for w, step in zip(shares, steps, strict=True)]).sum(),
        )

    def _split(self, z: Tensor) -> tuple[Tensor, ...]:
        return torch.split(z, [part.dim for part in self.parts], dim=-1)


class Residual(_Composed):
    """Layer after layer, each quantizing what the layers before it left; the point is their sum.

    What is left is computed without gradient: a layer's choice does not teach the layers before it.
    Layers with a warm-up (SF-DiVeQ) warm up one after another, since each needs the residual of a
    finished one; until the last is done latents pass through unquantized.

    Args:
        quantizers: the layers, coarsest first, all of the same dimension.
        rho: see `diveq_step`; relative to the error that the last layer leaves. Used where every
            layer is of DiVeQ.
        noise: see `diveq_step`.
        sigma: see `diveq_step`.

    Raises:
        ConfigError: no layers, layers of different dimensions, or noise settings without sense.
    """

    def __init__(
        self,
        quantizers: Sequence[Quantizer],
        *,
        rho: float = RHO,
        noise: Noise = "gradient",
        sigma: float | None = None,
    ) -> None:
        dims = {quantizer.dim for quantizer in quantizers}
        if len(dims) != 1:
            raise ConfigError(
                f"residual layers of dimensions {sorted(dims)}: give at least one layer, all alike"
            )
        super().__init__(quantizers, dims.pop(), rho=rho, noise=noise, sigma=sigma)

    def _encode(self, z: Tensor) -> Tensor:
        with torch.no_grad():  # greedy: each layer takes the nearest to what is left
            rest, pieces = z, []
            for layer in self.parts:
                pieces.append(layer.encode(rest))
                rest = rest - layer._lookup(pieces[-1])
            return self._join_indices(pieces)

    def _lookup(self, indices: Tensor) -> Tensor:
        pieces = zip(self.parts, self._split_indices(indices), strict=True)
        return list(accumulate(layer._lookup(piece) for layer, piece in pieces))[-1]

    def observe(self, z: Tensor) -> None:
        """The first layer that still warms up sees what the finished ones before it leave."""
        with torch.no_grad():
            rest = z
            for layer in self.parts:
                if layer.is_warming_up:
                    layer.observe(rest)
                    return
                rest = rest - layer._lookup(layer.encode(rest))

    def select(self, z: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """The sum of the layers' training points, with gradient to every layer."""
        rest = z.detach()
        points: list[Tensor] = []
        pieces: list[Tensor] = []
        for layer in self.parts:
            point, indices = layer.select(rest, generator)
            points.append(point)
            pieces.append(indices)
            rest = rest - point.detach()
        return sum(points[1:], points[0]), self._join_indices(pieces)

    def _step_by_parts(
        self, z: Tensor, taught: Tensor, generator: torch.Generator | None
    ) -> Quantised:
        # The values are chained as functions of z: under straight-through the first layer passes
        # the whole gradient and the others add nothing, while a layer's loss teaches the encoder
        # as if that layer stood alone.
        steps = []
        for layer in self.parts:
            steps.append(layer._train_step(z, taught, generator))
            z = z - steps[-1].value
            taught = taught - steps[-1].value.detach()
        return Quantised(
            list(accumulate(step.value for step in steps))[-1],
            self._join_indices([step.indices for step in steps]),
            torch.stack([step.loss for step in steps]).sum(),
        )

    def initialise(self, latents: Tensor, generator: torch.Generator | None = None) -> None:
        """Initialises the layers in order, each from what the ones before it leave."""
        with torch.no_grad():
            rest = self._checked(latents)
            for layer in self.parts:
                layer.initialise(rest, generator)
                rest = rest - layer._lookup(layer.encode(rest))
