"""Every option of every quantizer is heard: another value gives other figures, and none is lost."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

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

Make = Callable[..., Quantizer]
DIM = 4


def books(kind: type[Quantizer]) -> Make:
    make: Any = kind
    return lambda **options: make(8, DIM, **options)


def joined(form: type[Product] | type[Residual], width: int) -> Make:
    return lambda **options: form([DiVeQ(8, width), DiVeQ(8, width)], **options)


NOISE = {"rho": 0.5, "noise": "none", "sigma": 0.3}
# Another value than the default of every option; `sigma` is heard where noise is in the forward.
OPTIONS: dict[type[Quantizer], tuple[Make, dict[str, Any]]] = {
    DiVeQ: (books(DiVeQ), NOISE),
    SFDiVeQ: (books(SFDiVeQ), {**NOISE, "steps": 2, "tau": "uniform", "warmup": 3}),
    STE: (books(STE), {"commitment": 1.0}),
    EMA: (books(EMA), {"commitment": 1.0, "decay": 0.5, "epsilon": 0.5}),
    NSVQ: (books(NSVQ), {}),
    RotationTrick: (books(RotationTrick), {"commitment": 1.0}),
    GumbelSoftmax: (books(GumbelSoftmax), {"temperature": 0.3, "kl_weight": 0.1}),
    SimVQ: (books(SimVQ), {"commitment": 1.0}),
    FSQ: (lambda **options: FSQ((5, 4, 3, 7), **options), {}),
    LFQ: (
        lambda **options: LFQ(DIM, **options),
        {"entropy_weight": 1.0, "diversity": 3.0, "commitment": 1.0, "inverse_temperature": 1.0},
    ),
    BSQ: (
        lambda **options: BSQ(DIM, **options),
        {"entropy_weight": 1.0, "diversity": 3.0, "commitment": 1.0, "inverse_temperature": 1.0},
    ),
    Product: (joined(Product, DIM // 2), NOISE),
    Residual: (joined(Residual, DIM), NOISE),
    Projected: (lambda **options: Projected(STE(8, 3), DIM, **options), {}),
}


def step(make: Make, options: dict[str, Any]) -> list[Tensor]:
    """What a training step computes: value, loss, all gradients, and what it leaves behind."""
    torch.manual_seed(0)
    quantizer = make(**options).train()
    z = torch.randn(64, DIM, generator=torch.Generator().manual_seed(1)).requires_grad_()
    weight = torch.randn(64, DIM, generator=torch.Generator().manual_seed(2))
    value, _, loss = quantizer(z, generator=torch.Generator().manual_seed(3))
    ((value * weight).sum() + loss).backward()
    grads = [p.grad for p in quantizer.parameters() if p.grad is not None]
    assert z.grad is not None
    return [value.detach(), loss.detach(), z.grad, *grads, *quantizer.buffers()]


def differ(one: list[Tensor], other: list[Tensor]) -> bool:
    pairs = zip(one, other, strict=False)
    return len(one) != len(other) or any(
        a.shape != b.shape or not torch.equal(a, b) for a, b in pairs
    )


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind, (_, options) in OPTIONS.items() for name in options],
)
def test_an_option_is_heard(kind: type[Quantizer], name: str) -> None:
    make, options = OPTIONS[kind]
    base = {"noise": "forward"} if name == "sigma" else {}
    changed = step(make, {**base, name: options[name]})
    assert not differ(step(make, base), step(make, base)), "a step is not repeatable"
    assert differ(step(make, base), changed)


@pytest.mark.parametrize("kind", OPTIONS)
def test_every_option_is_listed(kind: type[Quantizer]) -> None:
    parameters = inspect.signature(kind).parameters.values()
    names = {one.name for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}
    assert names - {"is_trained", "points"} == set(OPTIONS[kind][1])  # those are for subclasses
