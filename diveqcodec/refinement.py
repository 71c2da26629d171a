"""Efforts 7 and 9: a tile's latent worked over for some rounds, by what its pixels become.

A tile is refined by itself: the networks behind the latent see around it what the analysis finds
there, not what its neighbours make of it. So memory is bounded by a tile's, and a tile's bytes
depend on its pixels and those around it alone. Knows nothing of bytes or files, but for weights,
whose float prior it reads: coding itself does without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diveqcodec.container import wiener
from diveqcodec.container.filters import Filters
from diveqcodec.errors import ModelError
from diveqcodec.exact.weights import CodingModel, check_training, load_for_training, read_info
from diveqcodec.image import Picture
from diveqcodec.model.candidates import GRID_BITS
from diveqcodec.model.dvq import STRIDE, DvqModel
from diveqcodec.model.refine import refine
from diveqcodec.quality import lambda_of
from diveqcodec.windows import Networks, Window, seen_pixels, with_halo

_RIM = 1  # blocks around a tile whose pixels it has a part in


def trainable(model: CodingModel) -> DvqModel:
    """The model that a codec's weights were exported from, on the device of its networks.

    Raises:
        ModelError: training left nothing in them, they are gone, or others are in their place.
    """
    check_training(model.path)
    found = read_info(model.path)["id"]
    if found != model.model_id.hex():
        raise ModelError(f"{model.path}: is model {found} now, not {model.model_id.hex()}")
    with torch.inference_mode(False):  # gradients are to go through it
        trained, _ = load_for_training(model.path)
    return trained.eval().requires_grad_(False).to(model.device)


@dataclass(frozen=True, slots=True)
class Refiner:
    """The trainable model of a codec's weights, and for how many rounds it is to look."""

    model: DvqModel
    rounds: int

    def refined(self, view: TileView, progress: Callable[[], None]) -> Tensor:
        """A latent of the tile, in cells `[1, C, h, w]`: cheaper to code, if one was found."""
        scale = self.model.config.scale
        log_gain = torch.tensor([scale.log_gain(view.gain)], device=view.latent.device)

        def distortion(y_hat: Tensor) -> Tensor:
            return view.price * view.error(y_hat)

        return refine(self.model, view.latent, log_gain, distortion, self.rounds, progress)


class TileView:
    """What becomes of a tile's pixels when its latent changes.

    Args:
        networks: of the codec.
        picture: all of it.
        window: of the tile.
        gain: the gain index.
        is_grey: whether pixels are the mean of three channels.
    """

    def __init__(
        self, networks: Networks, picture: Picture, window: Window, gain: int, *, is_grey: bool
    ) -> None:
        self.networks, self.window, self.gain, self.is_grey = networks, window, gain, is_grey
        # what a squared error of one 8-bit step of one pixel is worth in bits
        self.price = lambda_of(networks.model.config.scale.log_gain(gain))
        with torch.inference_mode(False), torch.no_grad():
            self._around = networks.analysed(picture, window, gain)
            height, width = self._around.shape[2:]
            self._area = tuple(
                slice(max(s.start - _RIM, 0) * STRIDE, min(s.stop + _RIM, end) * STRIDE)
                for s, end in zip(window.inner, (height, width), strict=True)
            )
            wanted = torch.from_numpy(seen_pixels(picture, window)).permute(2, 0, 1)
            self._wanted = wanted[:, *self._area].to(networks.device).float()
            self._seen: Tensor | None = None
            if picture.alpha is not None:
                part = window.pixels
                alpha = picture.alpha[part.y : part.y + part.height, part.x : part.x + part.width]
                seen = torch.from_numpy(alpha > 0)[self._area]
                self._seen = seen.to(networks.device).float()

    @property
    def latent(self) -> Tensor:
        """Of the tile, as the analysis gives it: in cells, `[1, C, h, w]`."""
        return self._around[:, :, *self.window.inner]

    def error(self, y_hat: Tensor) -> Tensor:
        """Squared error in 8-bit steps of the tile coded as `y_hat` `[1, C, h, w]` in cells.

        Summed over the pixels that can be seen, those just around it too, of which the tile's
        blocks are a part; mean of the channels. Not rounded to 8 bits, so that it has a gradient.
        """
        return self._sum(self._pixels(y_hat))

    @torch.no_grad()
    def exact_error(self, latent: Tensor, filters: Filters) -> float:
        """The same of 8-bit pixels, the tile's filtered.

        Args:
            latent: coded, `[h, w, C]` in units of 2^-8 cells.
            filters: of each component.
        """
        y_hat = (latent.float() * 2.0**-GRID_BITS).permute(2, 0, 1)[None]
        pixels = self._pixels(y_hat.to(self.networks.device)).round().clamp(0, 255)
        if any(one is not None for one in filters):
            rows, columns = (
                slice(inner.start - area.start, inner.stop - area.start)
                for inner, area in zip(self.window.inner_pixels, self._area, strict=True)
            )
            whole = pixels.permute(1, 2, 0).to(torch.uint8).cpu().numpy()
            inside = torch.from_numpy(wiener.filtered(with_halo(whole, rows, columns), filters))
            pixels[:, rows, columns] = inside.permute(2, 0, 1).to(pixels)
        return float(self._sum(pixels))

    def _pixels(self, y_hat: Tensor) -> Tensor:
        """8-bit steps `[1 or 3, h, w]` of the area looked at."""
        around = self._around.clone()
        around[:, :, *self.window.inner] = y_hat
        pixels = self.networks.synthesised(around, self.gain)[0][:, *self._area] * 255
        return pixels.mean(0, keepdim=True) if self.is_grey else pixels

    def _sum(self, pixels: Tensor) -> Tensor:
        height, width = self._wanted.shape[1:]  # at the picture's end blocks may reach beyond
        error = (pixels[:, :height, :width] - self._wanted).square().mean(0)
        return (error if self._seen is None else error * self._seen).sum()
