"""Every quantizer by name, small, for the tests that all of them have to pass."""

from collections.abc import Callable

import torch

from diveqcodec.quantize import (
    BSQ,
    EMA,
    FSQ,
    LFQ,
    NSVQ,
    STE,
    DiVeQ,
    GumbelSoftmax,
    Product,
    Projected,
    Quantizer,
    Residual,
    RotationTrick,
    SFDiVeQ,
    SimVQ,
)

# Of K codewords in D dimensions.
CODEBOOKS: dict[str, Callable[[int, int], Quantizer]] = {
    "diveq": DiVeQ,
    "sf-diveq": lambda size, dim: SFDiVeQ(size, dim, steps=2),
    "ste": STE,
    "ema": EMA,
    "nsvq": NSVQ,
    "rotation": RotationTrick,
    "gumbel": GumbelSoftmax,
    "simvq": SimVQ,
}
# Of D dimensions; the number of codewords follows.
GRIDS: dict[str, Callable[[int], Quantizer]] = {
    "fsq": lambda dim: FSQ((5, 4, 3, 7)[:dim]),
    "lfq": LFQ,
    "bsq": BSQ,
}
PLAIN = [*CODEBOOKS, *GRIDS]
FORMS = ["product", "residual", "projected"]
EVERY = [*PLAIN, *(f"{form}:{name}" for form in FORMS for name in PLAIN)]


def made(name: str, size: int = 8, dim: int = 4, seed: int = 0) -> Quantizer:
    """A quantizer of `dim` dimensions (an even number for a product)."""
    torch.manual_seed(seed)
    form, _, plain = name.rpartition(":")

    def one(width: int) -> Quantizer:
        return CODEBOOKS[plain](size, width) if plain in CODEBOOKS else GRIDS[plain](width)

    if form == "product":
        return Product([one(dim // 2), one(dim // 2)])
    if form == "residual":
        return Residual([one(dim), one(dim)])
    return Projected(one(3), dim) if form == "projected" else one(dim)


def latents(count: int = 300, dim: int = 4, seed: int = 1) -> torch.Tensor:
    return 0.7 * torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)) + 0.1


@torch.no_grad()
def lookup_mse(quantizer: Quantizer, z: torch.Tensor) -> float:
    """Error of what the indices of `z` alone stand for."""
    return float((quantizer.lookup(quantizer.encode(z)) - z).square().mean())
