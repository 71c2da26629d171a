"""Distortion between two 8-bit pictures: PSNR and MS-SSIM.

Works on `pixels` (uint8 arrays); knows nothing of files, rates or codecs. A grey picture counts as
a colour picture with three equal channels, so a grey original may be compared with its decoded
colour version.
"""

import numpy as np
import numpy.typing as npt
import torch

from diveqcodec import ssim
from diveqcodec.errors import DiveqError
from diveqcodec.psnr import psnr as of_pixels

Pixels = npt.NDArray[np.uint8]


def psnr(original: Pixels, decoded: Pixels) -> float:
    """PSNR in dB over all channels together; infinite if they are equal.

    Args:
        original: uint8 `[H, W, 1 or 3]`.
        decoded: uint8 of the same height and width.

    Raises:
        DiveqError: The pictures differ in size or are not 8-bit grey or colour.
    """
    return of_pixels(*_as_colour(original, decoded))


def ms_ssim(original: Pixels, decoded: Pixels) -> float | None:
    """MS-SSIM in [0, 1] of Wang, Simoncelli and Bovik (2003), mean of the colour channels.

    Args:
        original: uint8 `[H, W, 1 or 3]`.
        decoded: uint8 of the same height and width.

    Returns:
        None if a side is below 161 pixels, where five scales do not fit.

    Raises:
        DiveqError: As `psnr`.
    """
    first, second = _as_colour(original, decoded)
    if min(first.shape[:2]) < ssim.SMALLEST_SIDE:
        return None
    x, y = (
        torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)[None]
        for pixels in (first, second)
    )
    with torch.no_grad():
        return float(ssim.ms_ssim(x, y, floor=0))


def _as_colour(original: Pixels, decoded: Pixels) -> tuple[Pixels, Pixels]:
    """Both as uint8 `[H, W, 3]` of the same size."""
    for pixels in (original, decoded):
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
            raise DiveqError(
                f"distortion is measured on 8-bit pixels [H, W, 1 or 3], "
                f"not on {pixels.dtype} {list(pixels.shape)}"
            )
    if original.shape[:2] != decoded.shape[:2]:
        raise DiveqError(
            f"the decoded picture has {decoded.shape[1]}x{decoded.shape[0]} pixels, "
            f"the original {original.shape[1]}x{original.shape[0]}"
        )
    height, width = original.shape[:2]
    shape = (height, width, 3)
    return np.broadcast_to(original, shape), np.broadcast_to(decoded, shape)
