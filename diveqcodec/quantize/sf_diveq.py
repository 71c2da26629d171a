"""SF-DiVeQ: quantization on the polyline through the codewords, made a finite-rate quantizer.

Codewords c_0 ... c_{K-1} in index order are the corners of a curve; a latent is quantized on a
*segment* (c_k, c_{k+1}). As published, the decoder is given the real-valued position on the curve,
which no number of bits can carry; here the curve is cut into L steps a segment and the table of
`(K-1) * L + 1` points (`expand`) is an ordinary codebook. It knows nothing of rates or images.

Source: arXiv 2509.26469, section 3.2:

    z_q = z + |c_s - z| * sg[(1 - tau) u_1] + |c_{s+1} - z| * sg[tau u_2]

with u_1, u_2 the noisy unit directions to both ends, of independent noises.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from diveqcodec.errors import ConfigError, TrainingError
from diveqcodec.quantize.base import RHO, Quantised, Stepping, under
from diveqcodec.quantize.codebook import CodebookQuantizer
from diveqcodec.quantize.indices import check_indices
from diveqcodec.quantize.step import (
    Noise,
    as_float,
    check_noise,
    nearest,
    step_toward,
    with_value,
)

# Latents that a warm-up keeps for each codeword; the mean of so many is near the latents' own mean,
# and the curve unfolds from there.
_WARMUP_LATENTS = 64


class SFDiVeQ(CodebookQuantizer, Stepping):
    """SF-DiVeQ, whose indices are rows of the expanded table.

    In training, each forward draws one coordinate tau a segment and every latent goes to the
    nearest of these K-1 points; the index is segment * L + step (with tau="uniform" the row nearest
    to the point drawn). In evaluation a latent goes to the nearest row of the table. The first
    `warmup` training forwards pass latents through unquantized (index -1) and then set the
    codewords to the means of consecutive chunks of the most recent ones. Until then these are in
    the state dict, and a warm-up goes on where it was saved; then they are dropped. A state that
    was saved after a warm-up, or without one, ends that of the quantizer which loads it. A codeword
    is moved by whoever uses one of its two segments, so few are ever dead.

    >>> SFDiVeQ(size=64, dim=8, steps=4).sizes  # segment * 4 + step
    (253,)

    Args:
        size: K, corners of the curve, at least 2.
        dim: D.
        steps: L, points a segment; the table has (K-1) * L + 1 rows.
        tau: "grid" draws from the L steps (the value is then a row of the table, bit for bit),
            "uniform" from [0, 1) as in the paper.
        warmup: training forwards before quantization; 0 for none (then call `initialise`).
        rho: see `sf_diveq_step`.
        noise: see `sf_diveq_step`.
        sigma: see `sf_diveq_step`.

    Raises:
        ConfigError: fewer than two codewords, less than one step, negative warm-up, unknown tau.
    """

    seen: Tensor
    recent: Tensor
    filled: Tensor

    def __init__(
        self,
        size: int,
        dim: int,
        *,
        steps: int = 4,
        tau: Literal["grid", "uniform"] = "grid",
        warmup: int = 0,
        rho: float = RHO,
        noise: Noise = "gradient",
        sigma: float | None = None,
    ) -> None:
        if size < 2 or steps < 1 or warmup < 0 or tau not in ("grid", "uniform"):
            raise ConfigError(
                f"SF-DiVeQ of {size} codewords, {steps} steps, tau {tau!r}, warm-up {warmup}: use "
                "at least 2 codewords and 1 step, tau grid or uniform, and no negative warm-up"
            )
        points = (size - 1) * steps + 1
        super().__init__(size, dim, points=points)
        self.set_noise(rho=rho, noise=noise, sigma=sigma)
        self.steps = steps
        self.tau = tau
        self.warmup = warmup
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        # The newest last; without rows once there is nothing to warm up.
        self.register_buffer("recent", torch.zeros(self._capacity if warmup else 0, dim))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    @property
    def table(self) -> Tensor:
        """The expanded table `[(K-1) * L + 1, D]`, differentiable with respect to `unit`."""
        return expand(self.codebook, self.steps)

    @property
    def is_warming_up(self) -> bool:
        """Whether the next training forward lets latents through unquantized."""
        return len(self.recent) > 0

    def set_codebook(self, codewords: Tensor, scale: Tensor) -> None:
        """Replaces the codewords `[K, D]`, in place; ends a warm-up.

        Raises:
            ConfigError: the codewords do not have the shape of the codebook.
        """
        super().set_codebook(codewords, scale)
        self.seen.fill_(self.warmup)
        self.filled.zero_()
        self.recent = self.recent.new_zeros(0, self.dim)

    def initialise(self, latents: Tensor, generator: torch.Generator | None = None) -> None:
        """Sets the codewords to means of consecutive chunks of `latents`; ends a warm-up.

        Args:
            latents: `[N, D]`, N >= K.
            generator: not used; the order of the latents decides.

        Raises:
            TrainingError: fewer latents than codewords, or NaN among them.
        """
        latents = self._samples(latents)
        means = torch.stack([chunk.mean(0) for chunk in latents.tensor_split(self.size)])
        self.set_codebook(means, latents.square().mean().sqrt())

    def observe(self, z: Tensor) -> None:
        """Keeps the most recent latents; the last forward of the warm-up sets the codewords."""
        if not self.is_warming_up:
            return
        latents = z.detach().reshape(-1, self.dim).to(self.recent)
        capacity = self._capacity
        self.recent.copy_(torch.cat([self.recent, latents])[-capacity:])
        self.filled.add_(len(latents)).clamp_(max=capacity)
        self.seen.add_(1)
        if int(self.seen) >= self.warmup:
            if int(self.filled) < self.size:
                raise TrainingError(
                    f"{int(self.filled)} latents for {self.size} codewords: warm up longer"
                )
            self.initialise(self.recent[capacity - int(self.filled) :])

    def select(self, z: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """The nearest of the points drawn on the segments, with gradient to both ends."""
        segment, tau, indices = self._draw(z, generator)
        c0, c1 = functional.embedding(torch.stack([segment, segment + 1]), self.codebook)
        return interpolate(c0, c1, tau.to(c0.dtype)), indices

    @property
    def _capacity(self) -> int:
        """How many latents a warm-up keeps."""
        return _WARMUP_LATENTS * self.size

    def _misfit(self, given: Mapping[str, Tensor]) -> str:
        wrong = super()._misfit({key: given[key] for key in given if key != "recent"})
        if wrong or "recent" not in given:
            return wrong
        if given["recent"].shape not in ((0, self.dim), (self._capacity, self.dim)):
            return super()._misfit(given)
        seen = int(given.get("seen", self.seen))
        if self._is_over(given) or seen < self.warmup:
            return ""
        return (
            f"recent is of a warm-up that was saved after {seen} forwards, this one has "
            f"{self.warmup}; build the quantizer with the warmup it was saved with"
        )

    def _is_over(self, given: Mapping[str, Tensor]) -> bool:
        """Whether a state is of a quantizer that has nothing to warm up."""
        # States used to keep the latents for ever; the scale is 1 until codewords are set.
        return len(given["recent"]) == 0 or bool(given.get("scale", self.scale) != 1)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        given = under(prefix, state_dict)
        if "recent" in given and not self._misfit(given):
            is_over = self._is_over(given)
            self.recent = self.recent.new_zeros(0 if is_over else self._capacity, self.dim)
            if is_over:
                state_dict = {**state_dict, prefix + "recent": given["recent"][:0]}
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _train_step(
        self, z: Tensor, taught: Tensor, generator: torch.Generator | None
    ) -> Quantised:
        segment, tau, indices = self._draw(z, generator)
        c0, c1 = functional.embedding(torch.stack([segment, segment + 1]), self.codebook)
        value = sf_diveq_step(
            z, c0, c1, tau, rho=self.rho, noise=self.noise, sigma=self.sigma, generator=generator
        )
        return Quantised(value, indices, z.new_zeros(()))

    def _draw(self, z: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        """Segment `[...]`, tau `[..., 1]` and index `[...]` of the drawn point nearest to z."""
        codebook = self.codebook.detach()
        device = codebook.device if generator is None else generator.device
        drawn = torch.rand(self.size - 1, 1, generator=generator, device=device)
        drawn = drawn.to(codebook.device, codebook.dtype)
        if self.tau == "grid":
            # The last segment has the end of the curve as well.
            choices = torch.full_like(drawn, self.steps)
            choices[-1] += 1
            drawn = (drawn * choices).floor().minimum(choices - 1) / self.steps
        points = interpolate(codebook[:-1], codebook[1:], drawn)
        segment = nearest(z.reshape(-1, self.dim), points).reshape(z.shape[:-1])
        tau = drawn[segment]
        indices = segment * self.steps + (tau.squeeze(-1) * self.steps).round().long()
        return segment, tau, indices


def sf_diveq_step(
    z: Tensor,
    c0: Tensor,
    c1: Tensor,
    tau: Tensor,
    *,
    rho: float = 1.0,
    noise: Noise = "gradient",
    sigma: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Moves `z` onto the point `(1-tau) c0 + tau c1`, with SF-DiVeQ's gradient to z and both ends.

    Args:
        z: latents `[..., D]`.
        c0: the start of the segment chosen for each, same shape.
        c1: its end, same shape.
        tau: coordinate in the segment, in [0, 1], broadcastable to z: `[..., 1]`, or `[..., D]`
            where z joins several groups that each have a segment of their own. No gradient.
        rho: noise relative to the distance of each end point, as in `diveq_step`.
        noise: as in `diveq_step`; with "gradient" and "none" the value is exactly
            `interpolate(c0, c1, tau)`, hence for tau = j/L exactly a row of `expand`.
        sigma: a fixed standard deviation instead of `rho`.
        generator: source of both noises, that of c0 drawn first.

    Returns:
        `[..., D]`, float32 (float64 if an input is), also under autocast.

    Raises:
        ConfigError: unknown `noise`, or negative `rho` or `sigma`.
    """
    check_noise(noise, rho, sigma)
    z, c0, c1 = as_float(z, c0, c1)
    tau = tau.detach().to(z.dtype)
    stepped = z
    for end, share in ((c0, 1.0 - tau), (c1, tau)):
        stepped = stepped + step_toward(
            z, end, rho=rho, noise=noise, sigma=sigma, generator=generator, share=share
        )
    return stepped if noise == "forward" else with_value(stepped, interpolate(c0, c1, tau))


def interpolate(c0: Tensor, c1: Tensor, tau: Tensor) -> Tensor:
    """The point of the segment at `tau`; exact at both ends.

    Two products and a sum, not `lerp`, whose rounding differs between its vector and scalar loops:
    the table and the step must give the same bits.
    """
    return (1.0 - tau) * c0 + tau * c1


def expand(codebook: Tensor, steps: int) -> Tensor:
    """The finite-rate table of the curve: L = `steps` points a segment, and the last codeword.

    Row `segment * L + step` is `interpolate(c_segment, c_segment+1, step / L)`; differentiable with
    respect to the codebook.

    >>> expand(torch.tensor([[0.0], [4.0], [6.0]]), 2).flatten().tolist()
    [0.0, 2.0, 4.0, 5.0, 6.0]

    Args:
        codebook: `[K, D]`, K >= 2.
        steps: L >= 1; 1 gives the codebook itself.

    Returns:
        `[(K-1) * L + 1, D]`.

    Raises:
        ConfigError: fewer than two codewords or less than one step.
    """
    if codebook.ndim != 2 or len(codebook) < 2 or steps < 1:
        raise ConfigError(
            f"curve of codebook {list(codebook.shape)} with {steps} steps a segment: "
            "it needs at least 2 codewords [K, D] and 1 step"
        )
    tau = torch.arange(steps, device=codebook.device, dtype=codebook.dtype) / steps
    points = interpolate(codebook[:-1, None], codebook[1:, None], tau[:, None])  # [K-1, L, D]
    return torch.cat([points.flatten(0, 1), codebook[-1:]])


def split_index(indices: Tensor, size: int, steps: int) -> tuple[Tensor, Tensor]:
    """Segment and coordinate of rows of the expanded table: the inverse of `segment * L + step`.

    The last row, the end of the curve, is (K-2, 1.0), so that `segment + 1` is always a codeword.

    Args:
        indices: integers in `[0, (K-1) * L]`, any shape.
        size: K.
        steps: L.

    Returns:
        segment (int64) and tau (float32), both of the shape of `indices`.

    Raises:
        ConfigError: an index out of range.
    """
    check_indices(indices, ((size - 1) * steps + 1,))
    segment = (indices // steps).clamp(max=size - 2)
    return segment, (indices - segment * steps).float() / steps
