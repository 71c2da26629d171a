"""The rotation trick: the gradient is turned as the latent was turned onto its codeword.

It knows nothing of rates or images.
"""

import torch
from torch import Tensor

from diveqcodec.quantize.ste import STE
from diveqcodec.quantize.step import as_float, with_value


class RotationTrick(STE):
    """Nearest codeword; the encoder's gradient is rotated and scaled.

        z_q = sg[|c| / |z| R] z,   R the rotation that takes z / |z| to c / |c|
        loss = |sg[z] - c|^2 + beta |z - sg[c]|^2

    so that dL/dz = |c| / |z| R^T g. The codebook learns from the loss alone, so a codeword that no
    latent selects stays where it is. Source: arXiv 2410.06424, sections 4.1 and 4.2.

    Arguments and errors are those of `STE`.
    """

    def _forward(self, z: Tensor, point: Tensor) -> Tensor:
        return rotate(z, point)


def rotate(z: Tensor, c: Tensor) -> Tensor:
    """A tensor that is `c` bit for bit, with the rotation trick's gradient to z and none to c.

    With a = z/|z|, b = c/|c|, h = (a + b)/|a + b| it is `|c|/|z| (z - 2 h h.z + 2 b a.z)`, all but
    the written z detached. Where b = -a no plane of rotation is given: h is taken as 0, which
    reflects. Where z = 0 there is nothing to rotate and the gradient is passed straight through.

    Args:
        z: latents `[..., D]`.
        c: their codewords, same shape.
    """
    z, c = as_float(z, c)
    with torch.no_grad():
        length = torch.linalg.vector_norm(z, dim=-1, keepdim=True)
        tiny = torch.finfo(z.dtype).tiny
        a = z / length.clamp_min(tiny)
        norm = torch.linalg.vector_norm(c, dim=-1, keepdim=True)
        b = c / norm.clamp_min(tiny)
        h = a + b
        size = torch.linalg.vector_norm(h, dim=-1, keepdim=True)
        # The sum of two nearly opposite unit vectors is rounding error, not a direction.
        h = torch.where(size > 1e-6, h / size.clamp_min(tiny), 0.0)
        is_turned = length > tiny
        ratio = torch.where(is_turned, norm / length.clamp_min(tiny), 0.0)  # not infinity
    along = (z * h).sum(-1, keepdim=True)
    forth = (z * a).sum(-1, keepdim=True)
    turned = ratio * (z - 2 * h * along + 2 * b * forth)
    return with_value(torch.where(is_turned, turned, z), c)
