"""Gumbel-softmax: a random codeword in training, whose choice has a soft gradient.

It knows nothing of rates or images.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from diveqcodec.errors import ConfigError
from diveqcodec.quantize.base import Quantised, check_weights
from diveqcodec.quantize.codebook import CodebookQuantizer
from diveqcodec.quantize.step import with_value


class GumbelSoftmax(CodebookQuantizer):
    """Training draws a codeword and passes the gradient of the softmax; evaluation is a look-up.

        logit_k = -|z - c_k|^2 / scale^2,     y = softmax((logit + Gumbel noise) / temperature)
        z_q = sum_k (y_k + sg[onehot(argmax y) - y]_k) c_k
        loss = kl_weight (log K - entropy of softmax(logit)), mean over the latents, in nats

    The value is the codeword drawn. Every codeword gets a gradient through y, so none is ever quite
    dead. The index is that of the most probable codeword, which is the nearest one: nothing is
    drawn in evaluation, unlike in the official code of the DiVeQ paper. Time and memory grow
    with N K. Source of the estimator: arXiv 1611.01144; the logits are distances, so that no layer
    has to map latents to logits.

    Args:
        size: K, number of codewords.
        dim: D.
        temperature: kept in the state dict; fill the buffer to anneal it.
        kl_weight: weight of the divergence from equal probabilities.

    Raises:
        ConfigError: a size below 1, `temperature` not above 0, negative `kl_weight`.
    """

    temperature: Tensor

    def __init__(
        self, size: int, dim: int, *, temperature: float = 1.0, kl_weight: float = 5e-4
    ) -> None:
        check_weights(temperature=temperature, kl_weight=kl_weight)
        if temperature == 0:
            raise ConfigError("temperature 0: use a positive number")
        super().__init__(size, dim)
        self.kl_weight = kl_weight
        self.register_buffer("temperature", torch.tensor(float(temperature)))

    def _train_step(
        self, z: Tensor, taught: Tensor, generator: torch.Generator | None
    ) -> Quantised:
        logits = self._logits(z)
        by = logits if taught is z else self._logits(taught)
        device = z.device if generator is None else generator.device
        uniform = torch.rand(logits.shape, generator=generator, device=device).to(z.device)
        # Both logarithms stay finite for a draw of exactly 0 and of 1 - 2^-24.
        uniform.clamp_min_(torch.finfo(uniform.dtype).tiny)
        noise = uniform.log_().neg_().log_().neg_()
        soft = ((logits + noise) / self.temperature).softmax(-1)
        indices = soft.argmax(-1)
        codebook = self.codebook.to(soft)
        chosen = functional.embedding(indices, codebook)
        # The gradients of y + sg[onehot - y] times the codebook without its matrices of N K: to y
        # through the codewords as they are, to the codewords through the choice.
        with torch.autocast(z.device.type, enabled=False):
            mixed = soft @ codebook.detach() + chosen
        value = with_value(mixed, chosen.detach())
        return Quantised(value, indices, self.kl_weight * self._divergence(by))

    def _logits(self, z: Tensor) -> Tensor:
        """`[..., K]`, in units of the codebook's scale."""
        with torch.autocast(z.device.type, enabled=False):
            z, unit = z / self.scale.to(z), self.unit.to(z)
            square = z.square().sum(-1, keepdim=True) + unit.square().sum(-1)
            return 2 * (z @ unit.t()) - square

    def _divergence(self, logits: Tensor) -> Tensor:
        log_q = logits.log_softmax(-1)
        per_latent = (log_q.exp() * log_q).sum(-1) + math.log(self.size)
        return per_latent.mean() if per_latent.numel() else per_latent.sum()
