"""DiVeQ with a codebook of its own, the quantizer of arXiv 2509.26469, section 3.1.

Owns the codebook and picks the nearest codeword; the mathematics is in `step`. It knows nothing of
rates, of images, or of how dead codewords are revived (`replacement`).
"""

from diveqcodec.quantize.base import RHO, Stepping
from diveqcodec.quantize.codebook import CodebookQuantizer
from diveqcodec.quantize.step import Noise, diveq_step, nearest, step_toward, with_value

__all__ = ["DiVeQ", "Noise", "diveq_step", "nearest", "step_toward", "with_value"]


class DiVeQ(CodebookQuantizer, Stepping):
    """Nearest codeword, DiVeQ's gradient; evaluation is a plain look-up.

        z_q = z + |c - z| sg[u],  u = (v + c - z) / |v + c - z|,  v ~ N(0, sigma^2 I)

    No auxiliary loss. A codeword that no latent selects gets no gradient and stays where it is
    (`replace_unused` revives it). Source: arXiv 2509.26469, section 3.1.

    >>> DiVeQ(size=256, dim=8).sizes
    (256,)

    Args:
        size: K, number of codewords.
        dim: D.
        rho: noise relative to the error, see `diveq_step`.
        noise: "forward", "gradient" or "none", see `diveq_step`.
        sigma: a fixed standard deviation instead of `rho`.

    Raises:
        ConfigError: a size below 1, unknown `noise`, negative `rho` or `sigma`.
    """

    def __init__(
        self,
        size: int,
        dim: int,
        *,
        rho: float = RHO,
        noise: Noise = "gradient",
        sigma: float | None = None,
    ) -> None:
        CodebookQuantizer.__init__(self, size, dim)
        self.set_noise(rho=rho, noise=noise, sigma=sigma)
