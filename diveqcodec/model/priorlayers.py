"""The linear layers of the prior, listed once: what is trained, exported, checked and run exactly.

A new context is a line here, one in the float prior (`prior.SliceNet.matrices`) and one in the
exact one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from diveqcodec.model.config import ModelConfig
from diveqcodec.model.passes import taps_of

ACTIVATION_BOUND = 128.0  # every activation is clamped to this magnitude
INPUT_BOUND = 32.0  # what is known of latents is clamped to this magnitude


@dataclass(frozen=True, slots=True)
class PriorLayer:
    """A matrix `[outputs, inputs]` of slice `s`.

    `name` is its own within the slice. `role`: "base" and "context" are summed up with each other,
    one context at a time, before they are rounded; "head" stands alone. `bound` is the largest
    magnitude of an input.
    """

    s: int
    name: str
    inputs: int
    outputs: int
    role: Literal["base", "context", "head"]
    bound: float

    @property
    def key(self) -> str:
        """Its name in weights files."""
        return f"{self.s}.{self.name}"


@lru_cache(maxsize=32)
def layers_of(config: ModelConfig) -> tuple[PriorLayer, ...]:
    """All layers, slice by slice."""
    layers = []
    width, joined = config.prior_width, config.prior_width2 + config.prior_linear
    for s in range(len(config.slices)):
        if s:
            before = config.window(s) ** 2 * config.inputs_before(s)
            layers.append(PriorLayer(s, "earlier", before, width, "base", INPUT_BOUND))
        for number, taps in enumerate(taps_of(config.levels(s), config.radius(s))[1:], 1):
            inputs = taps * config.inputs(s)
            layers.append(PriorLayer(s, f"current.{number}", inputs, width, "context", INPUT_BOUND))
        layers.append(PriorLayer(s, "hidden", width, config.prior_width2, "head", ACTIVATION_BOUND))
        layers.append(PriorLayer(s, "out", joined, config.outputs(s), "head", ACTIVATION_BOUND))
    return tuple(layers)
