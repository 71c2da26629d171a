"""Codewords as moving averages of the latents that chose them: k-means while the encoder trains.

It knows nothing of rates or images.
"""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from diveqcodec.errors import ConfigError
from diveqcodec.quantize.base import Quantised, check_weights, mean_square
from diveqcodec.quantize.codebook import CodebookQuantizer
from diveqcodec.quantize.processes import from_first_process, sum_over_processes
from diveqcodec.quantize.step import with_value


class EMA(CodebookQuantizer):
    """Nearest codeword, straight-through gradient, codebook by exponential moving average.

        N_k <- gamma N_k + (1 - gamma) n_k,   m_k <- gamma m_k + (1 - gamma) sum of its latents,
        c_k = m_k / N~_k,                     N~ = (N + eps) / (sum N + K eps) * sum N
        z_q = z + sg[c - z],                  loss = beta |z - sg[c]|^2

    The codebook is no parameter; its state (`counts`, `sums`, float32 at least, also in a model
    that is `half()`) is in the state dict, and sums run over all processes of torch.distributed.
    The update follows the selection of a training forward, so a latent is quantized with the
    codewords from before it. A codeword that no latent selects keeps its place at first and,
    through eps, shrinks toward the origin once its count has decayed to about eps. Source: arXiv
    1711.00937, appendix A.1.

    Args:
        size: K, number of codewords.
        dim: D.
        decay: gamma, in [0, 1).
        commitment: beta.
        epsilon: eps, in latents.

    Raises:
        ConfigError: a size below 1, `decay` outside [0, 1), negative `commitment`, `epsilon` not
            above 0.
    """

    counts: Tensor
    sums: Tensor

    def __init__(
        self,
        size: int,
        dim: int,
        *,
        decay: float = 0.99,
        commitment: float = 0.25,
        epsilon: float = 1e-5,
    ) -> None:
        check_weights(commitment=commitment, epsilon=epsilon)
        if not 0 <= decay < 1 or epsilon == 0:
            raise ConfigError(f"EMA of decay {decay}, epsilon {epsilon}: use [0, 1) and above 0")
        super().__init__(size, dim, is_trained=False)
        self.decay = decay
        self.commitment = commitment
        self.epsilon = epsilon
        wide = torch.promote_types(torch.float32, self.unit.dtype)
        self.register_buffer("counts", torch.ones(size, dtype=wide))
        self.register_buffer("sums", self.unit.to(wide, copy=True))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """As torch's, but `half()` leaves counts and sums in float32: halves end at 65504."""
        before = self.counts, self.sums
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        device, dtype = self.sums.device, self.sums.dtype
        wide = torch.promote_types(torch.float32, dtype)
        if dtype != wide:
            self.counts, self.sums = (tensor.to(device, wide) for tensor in before)
        return self

    def set_codebook(self, codewords: Tensor, scale: Tensor) -> None:
        """Replaces the codewords `[K, D]`, each with the weight of one latent, in place.

        Raises:
            ConfigError: the codewords do not have the shape of the codebook.
        """
        super().set_codebook(codewords, scale)
        self.counts.fill_(1.0)
        self.sums.copy_(self.unit)

    def _train_step(
        self, z: Tensor, taught: Tensor, generator: torch.Generator | None
    ) -> Quantised:
        point, indices = self.select(z)
        loss = self.commitment * mean_square(taught, point)
        self._update(z.detach(), indices)
        return Quantised(with_value(z, point), indices, loss)

    @torch.no_grad()
    def _update(self, z: Tensor, indices: Tensor) -> None:
        flat = indices.flatten()
        # In one tensor, so that the processes exchange one message: [K, 1 + D].
        rows = functional.pad(z.reshape(-1, self.dim) / self.scale, (1, 0), value=1.0)
        new = rows.new_zeros(self.size, 1 + self.dim).index_add(0, flat, rows)
        new = sum_over_processes(new).to(self.sums.dtype)
        if not bool(new[:, 0].any()):
            return  # an empty batch is no news
        self.counts.lerp_(new[:, 0], 1 - self.decay)
        self.sums.lerp_(new[:, 1:], 1 - self.decay)
        total = self.counts.sum()
        smooth = (self.counts + self.epsilon) / (total + self.size * self.epsilon) * total
        self.unit.copy_(self.sums / smooth[:, None])
        # Sums of floats may differ by their order: all take the first process's.
        from_first_process(self.counts, self.sums, self.unit)
