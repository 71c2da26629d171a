"""What every quantizer has in common: one interface, training by a rule, evaluation by look-up.

Holds the abstract quantizer, the settings of DiVeQ's step, and what several methods need.
It knows nothing of codebooks, of the rules themselves, of rates, or of images.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from diveqcodec.errors import ConfigError, ModelError, TrainingError
from diveqcodec.quantize.indices import NOT_QUANTIZED, check_indices
from diveqcodec.quantize.step import (
    Noise,
    as_float,
    check_noise,
    diveq_step,
    reaching,
)

# Noise of the modules' step unless told otherwise. The authors' is about as small. Noise that lives
# in the gradient alone hands the encoder what pushes latents away from their codewords, and at 1,
# under nearest assignment, two of three small networks ran away (docs/quantizers.md).
RHO = 0.1


class Quantised(NamedTuple):
    """What a quantizer makes of latents `[..., D]`.

    `value` `[..., D]` is what a decoder is trained on, `indices` (int64, `[...]`, or `[..., n]`
    from n codebooks) are what is sent, and `loss` (a scalar, 0 where the method has none and
    always in evaluation) is to be added to the loss of the task.
    """

    value: Tensor
    indices: Tensor
    loss: Tensor


class Quantizer(nn.Module, ABC):
    """Latents `[..., dim]` to points of a table and back from their indices.

    In training mode `forward` follows the rule of the method. In evaluation mode it is
    `lookup(encode(z))` and nothing else: nothing is drawn, so that what is measured is what a
    decoder that has only the indices would see. All arithmetic is float32 (float64 if an input
    is), also on latents of 16 bits and under autocast; values and points then get the dtype that a
    sum of latents and weights would have: 16 bits in a model that is `half()`, float32 under
    autocast. A loss is float32 at least.

    Args:
        dim: D, dimensions of a latent.
        sizes: how many values each index of a latent can take.

    Raises:
        ConfigError: `dim` or a size below 1.
    """

    def __init__(self, dim: int, sizes: tuple[int, ...]) -> None:
        super().__init__()
        if dim < 1 or min(sizes, default=0) < 1:
            raise ConfigError(f"quantizer of {dim} dimensions and sizes {sizes}: use 1 or more")
        self.dim = dim
        self.sizes = sizes

    def forward(self, z: Tensor, generator: torch.Generator | None = None) -> Quantised:
        """Quantizes.

        Args:
            z: `[..., dim]`; `[0, dim]` is an empty batch, with loss 0.
            generator: source of all randomness in training; unused in evaluation.

        Returns:
            value, indices and loss; the indices are -1 where a warm-up let the latent through. Of
            latents of 16 bits the value is float32 unless the weights have 16 bits too.

        Raises:
            ConfigError: the last dimension of z is not `dim`, or z is complex.
            TrainingError: z holds NaN or infinity.
        """
        dtype = torch.promote_types(z.dtype, self.dtype)
        z = self._checked(z)
        nothing = z.new_zeros(())
        if not self.training:
            indices = self._encode(z.detach())
            point = self._lookup(indices).to(self.dtype)
            return Quantised(point.to(dtype), indices, nothing)
        if self.is_warming_up:
            self.observe(z)
            shape = z.shape[:-1] + self.index_shape
            indices = torch.full(shape, NOT_QUANTIZED, device=z.device)
            return Quantised(reaching(z.to(dtype), self.parameters()), indices, nothing)
        value, indices, loss = self._train_step(z, z, generator)
        return Quantised(value.to(dtype), indices, loss)

    def encode(self, z: Tensor) -> Tensor:
        """The indices of the points that stand for z `[..., dim]`; deterministic, no gradient.

        Raises:
            ConfigError: the last dimension of z is not `dim`, or z is complex.
            TrainingError: z holds NaN or infinity.
        """
        with torch.no_grad():
            return self._encode(self._checked(z))

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """That of the weights, and of the points that `lookup` gives."""

    @property
    def steps_jointly(self) -> bool:
        """Whether a product or residual of such parts takes DiVeQ's step, once, on the whole."""
        return False

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

    def lookup(self, indices: Tensor) -> Tensor:
        """The points `[..., dim]` that indices stand for, in `dtype`: the inverse of `encode`.

        Raises:
            ConfigError: an index out of its range (as is -1, a warm-up's), or not one for each
                codebook.
        """
        if self.index_shape and indices.shape[-1:] != self.index_shape:
            raise ConfigError(
                f"indices {list(indices.shape)}: the quantizer takes [..., {len(self.sizes)}]"
            )
        check_indices(indices, self.sizes)
        return self._lookup(indices.long()).to(self.dtype)

    def select(self, z: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """The training point of each latent, with its gradient to the codebook, and the index.

        This one draws nothing: it takes the point that evaluation would take.
        """
        indices = self.encode(z)
        return self._lookup(indices), indices

    @abstractmethod
    def initialise(self, latents: Tensor, generator: torch.Generator | None = None) -> None:
        """Sets codebook and scale from sample latents `[N, dim]`, in place.

        Where several processes train together all of them must call it, and all end with what the
        first one computed.
        """

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As torch's, but a state of another quantizer is refused before anything is touched.

        Raises:
            ModelError: a shape (or FSQ's levels) differs, or with `strict` a key is missing or
                unknown. As part of a model, whose own function does not come here, a quantizer
                refuses differences by the same error, and stays as it was; a key that is missing or
                unknown is torch's RuntimeError there.
        """
        own = self.state_dict()
        for key in sorted(own.keys() ^ state_dict.keys()) if strict else ():
            whose = "the state lacks" if key in own else "the state has an unknown"
            raise ModelError(f"{type(self).__name__}: {whose} {key!r}; load that of an equal one")
        return super().load_state_dict(state_dict, strict, assign)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Torch comes here in a model too, and to a quantizer before it comes to its parts.
        for path, part in self.named_modules(remove_duplicate=False):
            name = f"{prefix}{path}." if path else prefix
            given = under(name, state_dict)
            wrong = part._misfit(given) if isinstance(part, Quantizer) else misfit(part, given)
            if wrong:
                raise ModelError(f"{type(self).__name__}: {name}{wrong}")
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _misfit(self, given: Mapping[str, Tensor]) -> str:
        """Which of this quantizer's own tensors a state does not fit, and a remedy; or nothing."""
        return misfit(self, given)

    @abstractmethod
    def _encode(self, z: Tensor) -> Tensor:
        """`encode` of latents that were checked."""

    @abstractmethod
    def _lookup(self, indices: Tensor) -> Tensor:
        """`lookup` of indices that are known to be in range, float32 at least."""

    @abstractmethod
    def _train_step(
        self, z: Tensor, taught: Tensor, generator: torch.Generator | None
    ) -> Quantised:
        """`forward` in training, of latents that were checked.

        `taught` is z as the loss sees it: the same values, and except for the layers of a residual
        form the same tensor.
        """

    def _some(self, latents: Tensor) -> Tensor:
        """At least one latent to begin with: `[N, D]` without gradients, or ConfigError."""
        latents = self._checked(latents.detach()).reshape(-1, self.dim)
        if not len(latents):
            raise ConfigError("no latents: give at least one")
        return latents

    def _checked(self, z: Tensor) -> Tensor:
        """The latents in float32 at least."""
        if z.ndim == 0 or z.shape[-1] != self.dim or z.is_complex():
            kind = f"{str(z.dtype).removeprefix('torch.')} {list(z.shape)}"
            raise ConfigError(f"latents {kind}: the quantizer takes real [..., {self.dim}]")
        if not bool(torch.isfinite(z.detach()).all()):
            raise TrainingError(
                f"latents {list(z.shape)} hold NaN or infinity: lower the learning rate, or look "
                "at what the encoder was given"
            )
        return as_float(z)[0]


class Stepping(Quantizer):
    """A quantizer that trains with DiVeQ's step; `set_noise` belongs into its constructor.

    Attributes:
        rho: noise relative to the error, see `diveq_step`; `RHO` by default.
        noise: where the noise goes, see `diveq_step`.
        sigma: a fixed standard deviation instead of `rho`, or None.
    """

    rho: float
    noise: Noise
    sigma: float | None

    @property
    def steps_jointly(self) -> bool:
        """Yes: one step, from the whole latent to the whole point."""
        return True

    def set_noise(self, *, rho: float, noise: Noise, sigma: float | None) -> None:
        """Settings of the step.

        Raises:
            ConfigError: unknown `noise`, negative `rho` or `sigma`.
        """
        check_noise(noise, rho, sigma)
        self.rho, self.noise, self.sigma = rho, noise, sigma

    def _train_step(
        self, z: Tensor, taught: Tensor, generator: torch.Generator | None
    ) -> Quantised:
        point, indices = self.select(z, generator)
        value = diveq_step(
            z, point, rho=self.rho, noise=self.noise, sigma=self.sigma, generator=generator
        )
        return Quantised(value, indices, z.new_zeros(()))


def under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a state whose keys have a prefix, without it."""
    return {key.removeprefix(prefix): t for key, t in state.items() if key.startswith(prefix)}


def misfit(module: nn.Module, given: Mapping[str, Tensor]) -> str:
    """Which of a module's own tensors has another size in a state, and a remedy; or nothing."""
    own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    for key, mine in sorted(own):
        if key in given and mine.shape != given[key].shape:
            return (
                f"{key} is {list(mine.shape)}, the state's {list(given[key].shape)}; build the "
                "quantizer with the sizes it was saved with"
            )
    return ""


def positive(scale: Tensor, dtype: torch.dtype) -> Tensor:
    """A magnitude in another dtype, in which it is to be neither 0 nor infinite."""
    kind = torch.finfo(dtype)
    return scale.to(dtype).clamp(kind.tiny, kind.max)


def mean_square(a: Tensor, b: Tensor) -> Tensor:
    """The mean squared difference of two tensors of one shape, a scalar; 0 if they are empty."""
    square = (a - b).square()
    return square.mean() if square.numel() else square.sum()


def commitment_loss(z: Tensor, point: Tensor, weight: float) -> Tensor:
    """VQ-VAE's `|sg[z] - c|^2 + weight |z - sg[c]|^2`, means over all entries; a scalar.

    The first term moves the codewords, the second the encoder. Source: arXiv 1711.00937,
    equation 3.
    """
    return mean_square(z.detach(), point) + weight * mean_square(z, point.detach())


def check_weights(**weights: float) -> None:
    """Raises ConfigError unless every weight is a finite number that is not negative."""
    for name, weight in weights.items():
        if not (weight >= 0 and math.isfinite(weight)):
            raise ConfigError(f"{name} {weight}: use a finite number, 0 or more")
