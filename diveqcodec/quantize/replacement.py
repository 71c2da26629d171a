"""Revives codewords that nobody uses; for the training loop, never part of a forward.

A codeword that no latent selects gets no gradient and stays dead. Now and then such codewords are
moved beside busy ones, so that the two share the latents. It must stop before a prior is trained on
the indices, since it changes what an index means. It knows nothing of losses or of models: it is
given a codebook parameter, counts, and the optimizer whose moments of the moved rows it clears.
"""

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from diveqcodec.errors import ConfigError
from diveqcodec.quantize.base import index_counts


class CodebookReplacer:
    """Counts indices over a window of training steps and replaces the unused codewords at its end.

    For codebooks whose index is the row of the parameter (DiVeQ, also as a part of a product or
    residual quantizer); SF-DiVeQ keeps its codewords in use by itself.

    Args:
        unit: the codebook parameter `[K, D]`, as the optimizer has it.
        optimizer: owner of the moments, or None.
        every: steps in a window.
        until: steps after which nothing is replaced any more.
        threshold: see `replace_unused`.
        jitter: see `replace_unused`.

    Raises:
        ConfigError: a window below 1 step, or a threshold outside [0, 1].
    """

    def __init__(
        self,
        unit: nn.Parameter,
        optimizer: Optimizer | None,
        *,
        until: int,
        every: int = 100,
        threshold: float = 0.05,
        jitter: float = 1e-3,
    ) -> None:
        if every < 1 or not 0 <= threshold <= 1:
            raise ConfigError(
                f"codebook replacement every {every} steps under {threshold}: "
                "use a window of 1 step or more and a threshold in [0, 1]"
            )
        self.unit = unit
        self.optimizer = optimizer
        self.every = every
        self.until = until
        self.threshold = threshold
        self.jitter = jitter
        self.step = 0
        self.counts = torch.zeros(len(unit), dtype=torch.int64, device=unit.device)

    def update(self, indices: Tensor, generator: torch.Generator | None = None) -> int:
        """Call once a training step, after the optimizer; returns how many codewords it moved."""
        if self.step >= self.until:
            return 0
        self.step += 1
        self.counts += index_counts(indices, len(self.unit)).to(self.counts.device)
        if self.step % self.every:
            return 0
        moved = replace_unused(
            self.unit,
            self.counts,
            optimizer=self.optimizer,
            threshold=self.threshold,
            jitter=self.jitter,
            generator=generator,
        )
        self.counts.zero_()
        return moved

    def state_dict(self) -> dict[str, Tensor]:
        """What an exact resumption needs."""
        return {"step": torch.tensor(self.step), "counts": self.counts.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state_dict`."""
        self.step = int(state["step"])
        self.counts.copy_(state["counts"])


def replace_unused(
    unit: nn.Parameter,
    counts: Tensor,
    *,
    optimizer: Optimizer | None = None,
    threshold: float = 0.05,
    jitter: float = 1e-3,
    generator: torch.Generator | None = None,
) -> int:
    """Moves rarely used codewords beside used ones, drawn in proportion to their counts; in place.

    Args:
        unit: codebook parameter `[K, D]`.
        counts: how often each codeword was used, `[K]`.
        optimizer: its state of the moved rows is cleared (Adam's moments belong to the old place,
            and would carry the codeword off at once).
        threshold: a codeword is rarely used when its count is at most this share of the mean count.
        jitter: standard deviation of the displacement, relative to the codebook's RMS.
        generator: source of the draw, on any device.

    Returns:
        How many codewords were moved; 0 if nothing was counted at all.

    Raises:
        ConfigError: `counts` does not have one entry a codeword.
    """
    if counts.shape != unit.shape[:1]:
        raise ConfigError(f"counts {list(counts.shape)} for a codebook of {len(unit)} codewords")
    with torch.no_grad():
        weights = counts.double()
        is_rare = weights <= threshold * weights.mean()
        rare = is_rare.nonzero().squeeze(1)
        if not len(rare) or bool(is_rare.all()):
            return 0
        device = unit.device if generator is None else generator.device
        weights = weights.masked_fill(is_rare, 0.0).to(device)
        donors = weights.multinomial(len(rare), replacement=True, generator=generator)
        noise = torch.randn(len(rare), unit.shape[1], device=device, generator=generator)
        size = jitter * unit.square().mean().sqrt()
        rare = rare.to(unit.device)
        unit[rare] = unit[donors.to(unit.device)] + size * noise.to(unit)
        if optimizer is not None:
            _clear_rows(optimizer, unit, rare)
        return len(rare)


def _clear_rows(optimizer: Optimizer, parameter: nn.Parameter, rows: Tensor) -> None:
    """Zeroes the rows of every state tensor shaped like the parameter: moments, not step counts."""
    for value in optimizer.state.get(parameter, {}).values():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            value[rows] = 0.0
