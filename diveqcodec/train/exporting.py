"""From a run to a weights file, and the proof that it does what was trained.

The only module of training that knows the codec: the loop does not import it, so that training
needs no entropy coder. Knows nothing of how the run was trained.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diveqcodec.atomic import replacing
from diveqcodec.codec import DEFAULT_EFFORT, MIRROR, Codec
from diveqcodec.config import from_dict
from diveqcodec.errors import ConfigError, ModelError, TrainingError, said
from diveqcodec.exact import weights
from diveqcodec.exact.tile import Tally
from diveqcodec.image import Picture
from diveqcodec.model.dvq import STRIDE, DvqModel
from diveqcodec.psnr import psnr
from diveqcodec.quality import gain_index, lambda_of
from diveqcodec.train import checkpoint, data
from diveqcodec.train.config import TrainConfig

_QUALITIES = (20, 50, 80)
_BITS_PER_DECIBEL = 0.2  # relative: 0.16 to 0.26 along the curve of a photograph
_HIGHEST_PSNR = 100.0  # dB: so that the mean of pictures with one that is equal stays finite
_SIDE = 512  # pixels: the check codes centre crops of at most this


@dataclass(frozen=True, slots=True)
class Check:
    """Float model against exported integers: means over pictures, at a quality from 1 to 100.

    Bits are ideal code lengths a pixel, container left out; PSNR in dB between 8-bit pictures.
    """

    quality: float
    float_bpp: float
    fixed_bpp: float
    float_psnr: float
    fixed_psnr: float

    @property
    def more_bits(self) -> float:
        """Relative difference of the bits of exported and trained model, as it is printed."""
        return self.fixed_bpp / max(self.float_bpp, 1e-9) - 1

    @property
    def excess(self) -> float:
        """The same at equal PSNR: decibels gained count as bits saved."""
        return self.more_bits - _BITS_PER_DECIBEL * (self.fixed_psnr - self.float_psnr)


@dataclass(frozen=True, slots=True)
class Exported:
    """The exported model, and one check a quality (none if no pictures were given)."""

    path: Path
    model_id: bytes
    steps: int
    pictures: int
    checks: tuple[Check, ...]


def export(
    run: Path,
    target: Path,
    *,
    check: Path | None = None,
    licence: str = "",
    limit: int = 6,
) -> Exported:
    """Write the averaged weights of `run` as a weights file.

    Args:
        run: folder of a run, or a checkpoint in it.
        target: the weights file.
        check: folder of pictures that the float model and the exported one are compared on.
        licence: note on the licences of weights and pictures, kept in the file.
        limit: number of pictures the comparison stops at.

    Raises:
        TrainingError: `run` is neither of these, or there are no pictures to check with.
        ModelError: the file cannot be written, or does not read back.
    """
    model, info = load_averaged(run)
    pictures = None
    if check is not None:
        pictures = data.load(check, STRIDE, torch.device("cpu"), limit=limit)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(f"{target}: weights not written ({error})") from error
    origin = provenance(info, licence)
    checks: tuple[Check, ...] = ()
    count = 0
    try:
        with replacing(target) as temporary:
            try:
                weights.save(model, temporary, origin)
                coding = weights.load(temporary)  # proves that it reads back
                if check is not None and pictures is not None:
                    crops = [_crop(tensor) for tensor in pictures.tensors]
                    count = len(crops)
                    codec = Codec(coding, networks=torch.float32)
                    checks = tuple(compare(model, codec, crops, quality) for quality in _QUALITIES)
                    origin["measured"] = _measured(checks, f"{count} centre crops of {check.name}")
                    weights.save(model, temporary, origin)  # the id does not cover the provenance
            except ModelError as error:  # which names the file as it is called so far
                raise ModelError(str(error).replace(str(temporary), str(target))) from error
    except OSError as error:
        why = error.strerror or said(error)
        raise ModelError(f"{target}: weights not written ({why})") from error
    return Exported(target, coding.model_id, int(info["step"]), count, checks)


def load_averaged(run: Path) -> tuple[DvqModel, dict[str, Any]]:
    """The model of a run with its averaged weights, and what the checkpoint says of itself.

    Raises:
        TrainingError: `run` is not a run, or is damaged.
    """
    tensors, info = checkpoint.load_average(run)
    try:
        # of the model alone: the rest may have numbers that training took once and takes no more
        config = from_dict(TrainConfig, {"model": info["config"]["model"]})
        model = DvqModel(config.model)
        model.load_state_dict(tensors)
    except (ConfigError, KeyError, RuntimeError) as error:
        raise TrainingError(f"{run}: its weights do not fit its configuration") from error
    model.refresh()
    return model.eval(), info


def provenance(info: dict[str, Any], licence: str) -> dict[str, Any]:
    """Where weights come from, for their metadata."""
    return {
        "config": {k: v for k, v in info["config"].items() if k != "model"},
        "steps": info["step"],
        "seconds": info.get("seconds"),
        "dataset": info.get("dataset"),
        "history": info["history"],
        "licence": licence,
    }


def _measured(checks: tuple[Check, ...], what: str) -> str:
    """The checks in a sentence, for `diveq models`."""
    figures = (f"q{c.quality:g} {c.fixed_bpp:.3f} bpp {c.fixed_psnr:.2f} dB" for c in checks)
    return f"{', '.join(figures)} ({what})"


def compare(model: DvqModel, codec: Codec, crops: list[Tensor], quality: float) -> Check:
    """Code uint8 crops `[3, H, W]`, sides multiples of 16, with the float and the exact model.

    The networks of both see the mirror image if they do so at the default effort, whatever `model`
    was trained with.
    """
    model.rules = replace(model.rules, mirror=DEFAULT_EFFORT >= MIRROR)
    gain = gain_index(quality)
    lam = lambda_of(model.config.scale.log_gain(gain))
    rows = []
    for crop in crops:
        original = crop.permute(1, 2, 0).contiguous().numpy()
        pixels = crop.shape[1] * crop.shape[2]
        with torch.inference_mode():
            output = model(crop[None].float() / 255, torch.tensor([lam]))
        decoded = (output.x_hat[0].clamp(0, 1) * 255).round().to(torch.uint8)
        bits = float(output.bits)
        tally = Tally()
        file = codec.compress_at(Picture(original, None, None, None, None), gain, tally=tally)
        exact = codec.decompress(file).pixels
        rows.append(
            (
                bits / pixels,
                sum(tally.bits.values()) / pixels,
                min(psnr(original, decoded.permute(1, 2, 0).numpy()), _HIGHEST_PSNR),
                min(psnr(original, exact), _HIGHEST_PSNR),
            )
        )
    return Check(quality, *(float(np.mean(column)) for column in zip(*rows, strict=True)))


def _crop(pixels: Tensor) -> Tensor:
    """The centre of uint8 `[3, H, W]`, sides multiples of 16."""
    height, width = (min(_SIDE, side // STRIDE * STRIDE) for side in pixels.shape[1:])
    top, left = (pixels.shape[1] - height) // 2, (pixels.shape[2] - width) // 2
    return pixels[:, top : top + height, left : left + width]
