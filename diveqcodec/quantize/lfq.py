"""Lookup-free quantization: one bit a dimension, plain (LFQ) or on the unit sphere (BSQ).

It knows nothing of rates or images.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from diveqcodec.errors import ConfigError
from diveqcodec.quantize.base import Quantised, Quantizer, check_weights, mean_square, positive
from diveqcodec.quantize.processes import from_first_process
from diveqcodec.quantize.step import as_float, with_value

# LFQ's entropy over all 2^D codewords holds the mean choice, 2^D numbers.
_MOST_BITS = 16


class LFQ(Quantizer):
    """The sign of every dimension; K = 2^D.

        z_q = scale sign(z)   (straight-through: dL/dz = g),   sign(0) = -1
        loss = w (mean of H(q(.|z)) - gamma H(mean of q(.|z))) + beta |z / scale - sign(z)|^2

    with q(c|z) = softmax over the corners c of 2 t c.z / scale, entropies in nats. The loss wants
    sure decisions and equal use of all codewords; no codeword is stored, so none can die, but a bit
    may stick. Index: the first dimension is the highest bit. The batch entropy is that of one
    process. Source: arXiv 2310.05737, section 3.1.

    >>> LFQ(dim=8).sizes
    (256,)

    Args:
        dim: D, at most 16 (BSQ: 62).
        entropy_weight: w.
        diversity: gamma.
        commitment: beta.
        inverse_temperature: t.

    Raises:
        ConfigError: `dim` out of range, a negative weight.
    """

    scale: Tensor
    most_bits = _MOST_BITS

    def __init__(
        self,
        dim: int,
        *,
        entropy_weight: float = 0.1,
        diversity: float = 1.0,
        commitment: float = 0.25,
        inverse_temperature: float = 100.0,
    ) -> None:
        check_weights(
            entropy_weight=entropy_weight,
            diversity=diversity,
            commitment=commitment,
            inverse_temperature=inverse_temperature,
        )
        if not 1 <= dim <= self.most_bits:
            raise ConfigError(
                f"{type(self).__name__} of {dim} bits: use 1 to {self.most_bits}, or a product"
            )
        super().__init__(dim, (1 << dim,))
        self.entropy_weight = entropy_weight
        self.diversity = diversity
        self.commitment = commitment
        self.inverse_temperature = inverse_temperature
        self.register_buffer("scale", torch.ones(()))
        # Also says in the state dict how many bits there are.
        self.register_buffer("shifts", torch.arange(dim - 1, -1, -1))

    shifts: Tensor

    @property
    def dtype(self) -> torch.dtype:
        """That of `scale`, and of the points that `lookup` gives."""
        return self.scale.dtype

    def initialise(self, latents: Tensor, generator: torch.Generator | None = None) -> None:
        """Sets the scale to the one of least squared error on `latents` `[N, D]`.

        Args:
            latents: `[N, D]`, N >= 1.
            generator: not used.

        Raises:
            TrainingError: NaN among the latents.
            ConfigError: the latents do not have `dim` columns, or there are none.
        """
        latents = self._some(latents)
        magnitude = latents.abs().mean() / self._corner
        with torch.no_grad():
            self.scale.copy_(positive(magnitude, self.dtype))
            from_first_process(self.scale)

    @property
    def _corner(self) -> float:
        """The magnitude of an entry of a codeword at scale 1."""
        return 1.0

    def _normal(self, z: Tensor) -> Tensor:
        """Latents in units of the codewords."""
        return z / self.scale.to(z)

    def _corners(self, bits: Tensor) -> Tensor:
        return (2.0 * bits - 1.0) * self._corner

    def _encode(self, z: Tensor) -> Tensor:
        return ((z > 0).long() << self.shifts).sum(-1)

    def _lookup(self, indices: Tensor) -> Tensor:
        return as_float(self.scale)[0] * self._corners(indices[..., None] >> self.shifts & 1)

    def _train_step(
        self, z: Tensor, taught: Tensor, generator: torch.Generator | None
    ) -> Quantised:
        indices = self._encode(z.detach())
        corners = self._corners((z.detach() > 0).to(z))
        value = with_value(self.scale.to(z) * self._normal(z), self._lookup(indices).to(z))
        normal = self._normal(taught)
        loss = self.commitment * mean_square(normal, corners)
        if self.entropy_weight and normal.numel():
            sure, equal = self._entropies(normal.reshape(-1, self.dim))
            loss = loss + self.entropy_weight * (sure - self.diversity * equal)
        return Quantised(value, indices, loss)

    def _entropies(self, normal: Tensor) -> tuple[Tensor, Tensor]:
        """Mean entropy of a latent's choice, and entropy of the mean choice; nats."""
        logits = 4 * self.inverse_temperature * self._corner * normal  # of every bit being 1
        sure = _bit_entropy(logits).sum(-1).mean()
        # q of a codeword is the product over its bits, hence of its first half and its second: the
        # mean over N latents is one product of matrices, and no [N, 2^D] is ever made.
        half = self.dim // 2
        first, second = _choices(logits[:, :half]), _choices(logits[:, half:])
        with torch.autocast(logits.device.type, enabled=False):
            mean = first.t() @ second / len(logits)  # [2^half, 2^(D - half)]
        return sure, torch.special.entr(mean.clamp_min(torch.finfo(mean.dtype).tiny)).sum()


class BSQ(LFQ):
    """Binary spherical quantization: the latent is put on the unit sphere first.

        u = z / |z|,    z_q = scale sign(u) / sqrt(D),    dL/dz = scale (g - u (u.g)) / |z|

    Loss as for LFQ with u for z / scale and corners sign(u) / sqrt(D), but the entropy of the mean
    choice is that of independent bits, an upper bound that costs N D instead of N 2^D. Source:
    arXiv 2406.07548.

    >>> BSQ(dim=18).sizes
    (262144,)
    """

    most_bits = 62

    @property
    def _corner(self) -> float:
        return 1 / math.sqrt(self.dim)

    def _normal(self, z: Tensor) -> Tensor:
        return functional.normalize(z, dim=-1)

    def _entropies(self, normal: Tensor) -> tuple[Tensor, Tensor]:
        logits = 4 * self.inverse_temperature * self._corner * normal
        # A bit that is always the same has no slope here, rather than an infinite one.
        mean = logits.sigmoid().mean(0).clamp(1e-7, 1 - 1e-7)
        equal = torch.special.entr(mean) + torch.special.entr(1 - mean)
        return _bit_entropy(logits).sum(-1).mean(), equal.sum()


def _choices(logits: Tensor) -> Tensor:
    """Probabilities `[N, 2^n]` of all values of n bits, from the logits `[N, n]` of a 1."""
    on, off = functional.logsigmoid(logits), functional.logsigmoid(-logits)
    log_q = logits.new_zeros(len(logits), 1)
    for bit in range(logits.shape[1]):
        pair = torch.stack([off[:, bit], on[:, bit]], dim=-1)
        log_q = (log_q[:, :, None] + pair[:, None, :]).flatten(1)
    return log_q.exp()


def _bit_entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of a bit that is 1 with probability sigmoid(logit)."""
    return functional.softplus(logits) - logits * logits.sigmoid()
