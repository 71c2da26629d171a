"""A quantizer between two linear maps, for methods whose dimension is not the latents' own.

FSQ, LFQ and BSQ have as many dimensions as their number of codewords asks for. It knows nothing of
rates or images.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from diveqcodec.errors import ConfigError
from diveqcodec.quantize.base import Quantised, Quantizer
from diveqcodec.quantize.processes import from_first_process
from diveqcodec.quantize.step import as_float


class Projected(Quantizer):
    """`z_q = out(inner(into(z)))` with linear maps that are trained; indices are the inner one's.

    >>> from diveqcodec.quantize import FSQ
    >>> Projected(FSQ((8, 6, 5)), dim=64).sizes
    (240,)

    Args:
        inner: the quantizer, of any dimension n.
        dim: D of the latents.

    Raises:
        ConfigError: `dim` below 1.
    """

    def __init__(self, inner: Quantizer, dim: int) -> None:
        if dim < 1:
            raise ConfigError(f"projection from {dim} dimensions: use 1 or more")
        super().__init__(dim, inner.sizes)
        self.inner = inner
        self.into = nn.Linear(dim, inner.dim)
        self.out = nn.Linear(inner.dim, dim)

    @property
    def dtype(self) -> torch.dtype:
        """That of `out`, and of the points that `lookup` gives."""
        return self.out.weight.dtype

    @property
    def index_shape(self) -> tuple[int, ...]:
        """That of the inner quantizer."""
        return self.inner.index_shape

    @property
    def is_warming_up(self) -> bool:
        """Whether the inner quantizer is."""
        return self.inner.is_warming_up

    def observe(self, z: Tensor) -> None:
        """The inner quantizer collects projected latents."""
        self.inner.observe(_affine(self.into, z))

    def initialise(self, latents: Tensor, generator: torch.Generator | None = None) -> None:
        """Into: the leading principal components at unit variance. Out: least squares.

        An inner quantizer of more dimensions than the latents gets random directions besides.

        Args:
            latents: `[N, D]`, N >= 1.
            generator: source of those directions and of the inner quantizer's choices.

        Raises:
            TrainingError: NaN among the latents, or too few for the inner quantizer.
            ConfigError: the latents do not have `dim` columns, or there are none.
        """
        latents = self._some(latents)
        mean = latents.mean(0)
        centred = latents - mean
        variances, axes = torch.linalg.eigh(centred.t() @ centred / len(latents))
        white = (axes / variances.clamp_min(1e-12 * variances[-1].clamp_min(1e-30)).sqrt()).flip(1)
        count = self.inner.dim - self.dim
        if count > 0:
            device = white.device if generator is None else generator.device
            more = torch.randn(self.dim, count, generator=generator, device=device).to(white)
            white = torch.cat([white, white @ functional.normalize(more, dim=0)], dim=1)
        rows = white[:, : self.inner.dim].t()
        with torch.no_grad():
            self.into.weight.copy_(rows)
            self.into.bias.copy_(-rows @ mean)
            self.inner.initialise(_affine(self.into, latents), generator)
            points = self.inner._lookup(self.inner.encode(_affine(self.into, latents)))
            inputs = functional.pad(points, (0, 1), value=1.0)
            # Normal equations with a little on the diagonal: a dimension may be constant.
            gram = inputs.t() @ inputs / len(inputs)
            gram = gram + 1e-6 * gram.diagonal().mean() * torch.eye(len(gram)).to(gram)
            fit = torch.linalg.solve(gram, inputs.t() @ latents / len(inputs))
            self.out.weight.copy_(fit[:-1].t())
            self.out.bias.copy_(fit[-1])
            from_first_process(*self.into.parameters(), *self.out.parameters())

    def _encode(self, z: Tensor) -> Tensor:
        return self.inner.encode(_affine(self.into, z))

    def _lookup(self, indices: Tensor) -> Tensor:
        return _affine(self.out, self.inner._lookup(indices))

    def _train_step(
        self, z: Tensor, taught: Tensor, generator: torch.Generator | None
    ) -> Quantised:
        into, by = _affine(self.into, z), _affine(self.into, taught)
        value, indices, loss = self.inner._train_step(into, by, generator)
        return Quantised(_affine(self.out, value), indices, loss)


def _affine(layer: nn.Linear, x: Tensor) -> Tensor:
    """The layer in float32 at least, whatever autocast and its weights say."""
    with torch.autocast(x.device.type, enabled=False):
        weight, bias = as_float(layer.weight)[0], as_float(layer.bias)[0]
        return functional.linear(x.to(weight.dtype) if x.dtype != weight.dtype else x, weight, bias)
