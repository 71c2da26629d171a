"""What quantizers with a codebook have in common: how it is stored, initialised and looked up.

It knows nothing of the rules that train it, of rates, or of images.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from diveqcodec.errors import ConfigError, TrainingError
from diveqcodec.quantize.base import Quantizer, positive
from diveqcodec.quantize.processes import from_first_process
from diveqcodec.quantize.step import as_float, nearest


class CodebookQuantizer(Quantizer):
    """A quantizer that owns one codebook, stored as `scale * unit`.

    The optimizer sees `unit`, whose entries are of order 1 whatever the latents' magnitude: a step
    of Adam has the size of the learning rate, and would destroy a codebook of small numbers.

    Args:
        size: K, number of codewords.
        dim: D.
        points: rows of the table that indices refer to; the codebook itself by default.
        is_trained: whether an optimizer moves `unit`; if not it is a buffer.

    Attributes:
        unit: `[K, D]`, standard normal until initialised.
        scale: buffer, scalar.

    Raises:
        ConfigError: a size below 1.
    """

    unit: Tensor
    scale: Tensor

    def __init__(
        self, size: int, dim: int, *, points: int | None = None, is_trained: bool = True
    ) -> None:
        if size < 1 or dim < 1:
            raise ConfigError(f"codebook of {size} codewords in {dim} dimensions: use 1 or more")
        super().__init__(dim, (size if points is None else points,))
        self.size = size
        unit = torch.randn(size, dim)
        if is_trained:
            self.unit = nn.Parameter(unit)
        else:
            self.register_buffer("unit", unit)
        self.register_buffer("scale", torch.ones(()))

    @property
    def dtype(self) -> torch.dtype:
        """That of `unit`, and of the points that `lookup` gives."""
        return self.unit.dtype

    @property
    def codebook(self) -> Tensor:
        """The codewords `[K, D]`, float32 at least, differentiable with respect to `unit`."""
        scale, unit = as_float(self.scale, self.unit)
        return scale * unit

    @property
    def table(self) -> Tensor:
        """What indices refer to, `[sizes[0], D]`."""
        return self.codebook

    def set_codebook(self, codewords: Tensor, scale: Tensor) -> None:
        """Replaces the codewords `[K, D]`, in place, given the latents' magnitude as the scale.

        Where several processes train together all take those of the first.

        Raises:
            ConfigError: the codewords do not have the shape of the codebook.
        """
        if codewords.shape != self.unit.shape:
            raise ConfigError(
                f"codewords {list(codewords.shape)}: the codebook is {list(self.unit.shape)}"
            )
        with torch.no_grad():
            self.scale.copy_(positive(scale, self.scale.dtype))
            self.unit.copy_(codewords / self.scale)
            from_first_process(self.scale, self.unit)

    def initialise(self, latents: Tensor, generator: torch.Generator | None = None) -> None:
        """Sets the codewords to K different rows of `latents`, chosen at random.

        Args:
            latents: `[N, D]`, N >= K.
            generator: source of the choice; on any device.

        Raises:
            TrainingError: fewer latents than codewords, or NaN among them.
            ConfigError: the latents do not have `dim` columns.
        """
        latents = self._samples(latents)
        device = latents.device if generator is None else generator.device
        chosen = torch.randperm(len(latents), generator=generator, device=device)[: self.size]
        self.set_codebook(latents[chosen.to(latents.device)], latents.square().mean().sqrt())

    def _lookup(self, indices: Tensor) -> Tensor:
        return functional.embedding(indices, self.table)

    def _encode(self, z: Tensor) -> Tensor:
        return nearest(z.reshape(-1, self.dim), self.table).reshape(z.shape[:-1])

    def _samples(self, latents: Tensor) -> Tensor:
        """Latents `[N, D]` to initialise from, checked, detached, float32 at least."""
        latents = self._checked(latents.detach()).reshape(-1, self.dim)
        if len(latents) < self.size:
            raise TrainingError(
                f"{len(latents)} latents for {self.size} codewords: give more latents"
            )
        return latents
