"""Revives codewords that nobody uses; for the training loop, never part of a forward.

A codeword that no latent selects gets no gradient and stays dead. Now and then such codewords are
moved beside busy ones, so that the two share the latents. It must stop before a prior is trained on
the indices, since it changes what an index means. It knows nothing of losses or of models: it is
given a codebook parameter, counts, and the optimizer whose moments of the moved rows it clears.
Where several processes train together, all of them must call it: counts are summed over them, and
all get the rows that the first one drew.
"""

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from diveqcodec.errors import ConfigError
from diveqcodec.quantize.processes import from_first_process, sum_over_processes

# Standard deviation of the way from its donor to a moved codeword, relative to the codebook's RMS.
_DISPLACEMENT = 1e-3


def replace_unused(
    unit: Tensor,
    counts: Tensor,
    *,
    optimizer: Optimizer | None = None,
    threshold: float = 0.05,
    generator: torch.Generator | None = None,
) -> int:
    """Moves rarely used codewords beside used ones, drawn in proportion to their counts; in place.

    Args:
        unit: codebook parameter `[K, D]`.
        counts: how often each codeword was used, `[K]`.
        optimizer: its state of the moved rows is cleared (Adam's moments belong to the old place,
            and would carry the codeword off at once).
        threshold: a codeword is rarely used when its count is at most this share of the mean count.
        generator: source of the draw, on any device.

    Returns:
        How many codewords were moved; 0 if nothing was counted at all.

    Raises:
        ConfigError: `counts` does not have one entry a codeword, or `unit` is no parameter (a moved
            average would move back).
    """
    if not isinstance(unit, nn.Parameter):
        raise ConfigError("replacement in a codebook that is no parameter: its rule would undo it")
    if counts.shape != unit.shape[:1]:
        raise ConfigError(f"counts {list(counts.shape)} for a codebook of {len(unit)} codewords")
    with torch.no_grad():
        weights = sum_over_processes(counts.double())
        is_rare = weights <= threshold * weights.mean()
        rare = is_rare.nonzero().squeeze(1)
        if not len(rare) or bool(is_rare.all()):
            return 0
        device = unit.device if generator is None else generator.device
        weights = weights.masked_fill(is_rare, 0.0).to(device)
        donors = weights.multinomial(len(rare), replacement=True, generator=generator)
        noise = torch.randn(len(rare), unit.shape[1], device=device, generator=generator)
        size = _DISPLACEMENT * unit.square().mean().sqrt()
        rare = rare.to(unit.device)
        unit[rare] = unit[donors.to(unit.device)] + size * noise.to(unit)
        from_first_process(unit)
        if optimizer is not None:
            _clear_rows(optimizer, unit, rare)
        return len(rare)


def _clear_rows(optimizer: Optimizer, parameter: nn.Parameter, rows: Tensor) -> None:
    """Zeroes the rows of every state tensor shaped like the parameter: moments, not step counts."""
    for value in optimizer.state.get(parameter, {}).values():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            value[rows] = 0.0
