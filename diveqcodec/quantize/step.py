"""The step of DiVeQ and the search for the nearest codeword, as functions.

DiVeQ quantizes with a gradient that goes through the length of the error. This file knows nothing
of modules, rates, images, or of how a codebook is kept alive in training (`replacement`).

Source: arXiv 2509.26469, "DiVeQ: Differentiable Vector Quantization Using the Reparameterization
Trick", section 3.1. With `z` the latent, `c` its codeword, `d = c - z`, `r = |d|`,

    z_q = z + r * sg[u],    u = (v + d) / |v + d|,    v ~ N(0, sigma^2 I)

so that, for an upstream gradient g and d^ = d / r, `dL/dz = g - d^ (u.g)` and `dL/dc = d^ (u.g)`:
the gradient is split between the two, it is not copied.
"""

import math
from collections.abc import Iterable
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from diveqcodec.errors import ConfigError

Noise = Literal["forward", "gradient", "none"]

# Entries of one block of the distance matrix: 1 MiB of float32 stays in a core's L2 cache; a GPU
# wants fewer, larger launches.
_BLOCK_CPU = 1 << 18
_BLOCK_GPU = 1 << 25


def diveq_step(
    z: Tensor,
    c: Tensor,
    *,
    rho: float = 1.0,
    noise: Noise = "gradient",
    sigma: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Moves `z` onto its codeword `c`, with DiVeQ's gradient to both.

    Args:
        z: latents `[..., D]`.
        c: the codeword chosen for each, same shape (or broadcastable); any rule may have chosen it.
        rho: noise relative to the error: `sigma = rho * sg(r) / sqrt(D)`, so that |v| is about
            `rho * r` at every rate. 0 makes the direction exact, as `noise="none"` does; infinity
            makes it uniform on the sphere, whatever the codeword (NSVQ's).
        noise: "forward": the paper's form, the noisy point is the value (it is off the codebook and
            leaks z); "gradient": the value is exactly `c`, bit for bit, and the noise lives in the
            gradient only; "none": the detach variant, no noise at all, value exactly `c`.
        sigma: a fixed standard deviation instead of `rho` (the official code's 1e-3).
        generator: source of the noise; may live on the CPU while `z` does not.

    Returns:
        `[..., D]`, float32 (float64 if an input is), also under autocast. Where `c == z` the
        gradient to z is the identity and the one to c is zero.

    Raises:
        ConfigError: unknown `noise`, or negative `rho` or `sigma`.
    """
    check_noise(noise, rho, sigma)
    z, c = as_float(z, c)
    stepped = z + step_toward(z, c, rho=rho, noise=noise, sigma=sigma, generator=generator)
    return stepped if noise == "forward" else with_value(stepped, c)


def step_toward(
    z: Tensor,
    c: Tensor,
    *,
    rho: float,
    noise: Noise,
    sigma: float | None,
    generator: torch.Generator | None,
    share: Tensor | None = None,
) -> Tensor:
    """The vector `|c - z| * sg[share * u]`, the part of a step that one end point gives.

    `diveq_step` is `z` plus this; SF-DiVeQ adds two. Useful alone where `z` and `c` are to get
    their gradients by different rules: detach the one that is to get nothing.

    Args:
        z: latents `[..., D]`, float32 or float64.
        c: the end point, same shape and dtype.
        rho: as in `diveq_step`.
        noise: "none" makes u exact, the others noisy; the value is the noisy one in both.
        sigma: as in `diveq_step`.
        generator: as in `diveq_step`.
        share: weight of the direction, broadcastable to z; no gradient.

    Returns:
        `[..., D]`.
    """
    # The norm's subgradient at 0 is 0, so r = 0 leaves identity for z and nothing for c.
    r = torch.linalg.vector_norm(c - z, dim=-1, keepdim=True)
    with torch.no_grad():
        u = c - z
        if noise != "none" and sigma is None and math.isinf(rho):
            u = normal_like(u, generator)
        elif noise != "none":
            scale = r * (rho / math.sqrt(z.shape[-1])) if sigma is None else sigma
            u = u + scale * normal_like(u, generator)
        length = torch.linalg.vector_norm(u, dim=-1, keepdim=True)
        u = u / length.clamp_min(torch.finfo(u.dtype).tiny)
        if share is not None:
            u = u * share
    vector: Tensor = r * u
    return vector


def with_value(surrogate: Tensor, value: Tensor) -> Tensor:
    """A tensor that *is* `value`, bit for bit, and has the gradient of `surrogate`.

    `surrogate + sg(value - surrogate)` would be off by a rounding error, which puts a latent beside
    the fixed-point grid that the decoder stands on.
    """
    result: Tensor = _WithValue.apply(surrogate, value)  # type: ignore[no-untyped-call]
    return result


def reaching(value: Tensor, parameters: Iterable[Tensor]) -> Tensor:
    """`value` and its gradient, on a graph that reaches `parameters` too, with nothing for them.

    DistributedDataParallel waits for every parameter that is trained. In one process their
    gradients stay None: Adam would count steps of zeros, and decay weights in them.
    """
    result: Tensor = _Reaching.apply(value, *parameters)  # type: ignore[no-untyped-call]
    return result


def nearest(z: Tensor, codebook: Tensor) -> Tensor:
    """Index of the codeword nearest to each latent; no gradient.

    Args:
        z: `[N, D]`.
        codebook: `[K, D]`.

    Returns:
        int64 `[N]`. Distances in float32 even under autocast; which of two equally near codewords
        wins is not specified.

    Raises:
        ConfigError: the shapes do not fit.
    """
    if z.ndim != 2 or codebook.ndim != 2 or z.shape[1] != codebook.shape[1] or not len(codebook):
        raise ConfigError(
            f"nearest: latents {list(z.shape)} and codebook {list(codebook.shape)} do not fit; "
            "give [N, D] and [K, D] with K >= 1"
        )
    with torch.no_grad(), torch.autocast(z.device.type, enabled=False):
        table = codebook.detach().float()
        bias = table.square().sum(1)  # |z|^2 is the same for every codeword: left out
        rows = max(1, (_BLOCK_CPU if z.device.type == "cpu" else _BLOCK_GPU) // len(table))
        blocks = [
            # min, not argmin: several times faster on the CPU.
            torch.addmm(bias, block.float(), table.T, alpha=-2.0).min(1).indices
            for block in z.detach().split(rows)
        ]
        return torch.cat(blocks)


def check_noise(noise: str, rho: float, sigma: float | None) -> None:
    """Raises ConfigError unless the noise settings of a step make sense."""
    if noise not in get_args(Noise):
        raise ConfigError(f"noise {noise!r}: use one of {', '.join(get_args(Noise))}")
    if not rho >= 0 or (sigma is not None and not sigma >= 0):
        raise ConfigError(f"noise of rho {rho}, sigma {sigma}: neither may be negative")


class _WithValue(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, surrogate: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class _Reaching(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, *parameters: Tensor) -> Tensor:
        ctx.count = len(parameters)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return gradients[0], *[None] * ctx.count


def as_float(*tensors: Tensor) -> list[Tensor]:
    """All in one dtype, float32 at least, and one shape."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return [t.to(dtype) for t in torch.broadcast_tensors(*tensors)]


def normal_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise of the shape of x, drawn where the generator lives."""
    device = x.device if generator is None else generator.device
    return torch.randn(x.shape, dtype=x.dtype, device=device, generator=generator).to(x.device)
