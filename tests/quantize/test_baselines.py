"""The gradients and losses of the baselines, by values computed by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from diveqcodec.errors import ConfigError
from diveqcodec.quantize import (
    BSQ,
    EMA,
    FSQ,
    LFQ,
    NSVQ,
    STE,
    CodebookQuantizer,
    DiVeQ,
    GumbelSoftmax,
    Product,
    Projected,
    Quantizer,
    Residual,
    RotationTrick,
    SimVQ,
    diveq_step,
    rotate,
)
from tests.support.quantizers import latents


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def with_codewords(quantizer: CodebookQuantizer, rows: list[list[float]]) -> CodebookQuantizer:
    quantizer.set_codebook(torch.tensor(rows), torch.tensor(1.0))
    return quantizer


def gradient(quantizer: Quantizer, z: Tensor, g: Tensor, only_loss: bool = False) -> Tensor:
    """dL/dz for an upstream gradient g at the value, or for the quantizer's own loss."""
    z = z.clone().requires_grad_()
    value, _, loss = quantizer(z, seeded())
    (loss if only_loss else (value * g).sum()).backward()
    assert z.grad is not None
    return z.grad


Z = torch.tensor([[1.0, 2.0]])
G = torch.tensor([[3.0, -1.0]])
ROWS = [[2.0, 4.0], [9.0, 9.0]]


@pytest.mark.parametrize("cls", [STE, RotationTrick, SimVQ])
def test_codebook_and_commitment_loss(cls: type[STE]) -> None:
    # d = c - z = (1, 2), means over two entries: |d|^2 = 2.5, loss 2.5 * 1.25.
    quantizer = with_codewords(cls(2, 2, commitment=0.25), ROWS)
    loss = quantizer(Z).loss
    assert loss.item() == pytest.approx(3.125)
    # Encoder: beta * 2 (z - c) / 2 = .25 * (-1, -2). Codeword: 2 (c - z) / 2 = (1, 2).
    assert gradient(quantizer, Z, G, only_loss=True).tolist() == [[-0.25, -0.5]]
    quantizer.zero_grad()
    quantizer(Z).loss.backward()
    if isinstance(quantizer, SimVQ):  # c = W e with e = (2, 4): dL/dW = (1, 2) outer (2, 4)
        assert quantizer.weight.grad is not None
        assert quantizer.weight.grad.tolist() == [[2.0, 4.0], [4.0, 8.0]]
    else:
        assert quantizer.unit.grad is not None
        assert quantizer.unit.grad.tolist() == [[1.0, 2.0], [0.0, 0.0]]


@pytest.mark.parametrize("cls", [STE, EMA, SimVQ])
def test_straight_through(cls: type[STE]) -> None:
    quantizer = with_codewords(cls(2, 2), ROWS)
    assert gradient(quantizer, Z, G).equal(G)
    # The value teaches no codeword.
    value = quantizer(Z.clone().requires_grad_()).value
    (value * G).sum().backward()
    for parameter in quantizer.parameters():
        assert parameter.grad is None


def test_ema_moves_codewords_to_the_mean_of_their_latents() -> None:
    quantizer = EMA(2, 1, decay=0.9, epsilon=1e-12)
    with_codewords(quantizer, [[0.0], [10.0]])
    z = torch.tensor([[1.0], [2.0], [11.0]], requires_grad=True)
    value, indices, loss = quantizer(z)
    assert value.flatten().tolist() == [0.0, 0.0, 10.0]  # codewords from before the update
    assert indices.tolist() == [0, 0, 1]
    assert loss.item() == pytest.approx(0.25 * (1 + 4 + 1) / 3)
    # N = .9 + .1 * (2, 1); m = (.1 * 3, .9 * 10 + .1 * 11).
    torch.testing.assert_close(quantizer.counts, torch.tensor([1.1, 1.0]))
    torch.testing.assert_close(quantizer.codebook, torch.tensor([[0.3 / 1.1], [10.1]]))
    assert not list(quantizer.parameters())
    quantizer.eval()(z)
    torch.testing.assert_close(quantizer.counts, torch.tensor([1.1, 1.0]))


def test_ema_is_free_of_the_latents_scale() -> None:
    small, large = EMA(8, 3), EMA(8, 3)
    small.initialise(latents(dim=3), seeded())
    large.initialise(1000 * latents(dim=3), seeded())
    for step in range(5):
        small(latents(dim=3, seed=step))
        large(1000 * latents(dim=3, seed=step))
    torch.testing.assert_close(1000 * small.codebook, large.codebook, rtol=1e-4, atol=1e-3)


def test_nsvq_puts_noise_of_the_errors_length() -> None:
    quantizer = with_codewords(NSVQ(2, 2), ROWS)
    w = torch.randn(1, 2, generator=seeded())
    e = w / w.norm()
    value = quantizer(Z, seeded()).value
    torch.testing.assert_close(value.detach(), Z + math.sqrt(5) * e)
    d_hat = torch.tensor([[1.0, 2.0]]) / math.sqrt(5)
    expected = d_hat * (e * G).sum()
    torch.testing.assert_close(gradient(quantizer, Z, G), G - expected)
    quantizer.zero_grad()
    (quantizer(Z, seeded()).value * G).sum().backward()
    assert quantizer.unit.grad is not None
    torch.testing.assert_close(quantizer.unit.grad[:1], expected)
    assert quantizer(Z).loss.item() == 0


def test_diveq_of_infinite_noise_is_nsvq() -> None:
    z, c = latents(50), latents(50, seed=2)
    step = diveq_step(z, c, rho=math.inf, noise="forward", generator=seeded(1))
    w = torch.randn(50, 4, generator=seeded(1))
    expected = z + (c - z).norm(dim=1, keepdim=True) * w / w.norm(dim=1, keepdim=True)
    torch.testing.assert_close(step, expected)
    # As the limit of large noise: the directions agree.
    large = diveq_step(z, c, rho=1e6, noise="forward", generator=seeded(1))
    torch.testing.assert_close(step, large, atol=1e-4, rtol=1e-4)


def test_rotation_turns_the_gradient() -> None:
    # z = (2, 0) onto c = (0, 3): a quarter turn, 1.5 times as long. R^T g turns g back.
    z = torch.tensor([[2.0, 0.0]], requires_grad=True)
    c = torch.tensor([[0.0, 3.0]])
    value = rotate(z, c)
    assert value.equal(c)
    (value * torch.tensor([[5.0, 7.0]])).sum().backward()
    expected = 1.5 * torch.tensor([[7.0, -5.0]])
    torch.testing.assert_close(z.grad, expected)
    quantizer = with_codewords(RotationTrick(2, 2), [[0.0, 3.0], [-9.0, -9.0]])
    found = gradient(quantizer, z.detach(), torch.tensor([[5.0, 7.0]]))
    torch.testing.assert_close(found, expected)


def test_rotation_keeps_angles_and_lengths_in_any_dimension() -> None:
    z, c = latents(40, 7).requires_grad_(), latents(40, 7, seed=2)
    g = latents(40, 7, seed=3)
    (grad,) = torch.autograd.grad(rotate(z, c), z, g)
    ratio = c.norm(dim=1) / z.detach().norm(dim=1)
    torch.testing.assert_close(grad.norm(dim=1), ratio * g.norm(dim=1))
    # The angle between gradient and latent is that between upstream gradient and codeword.
    torch.testing.assert_close(
        torch.cosine_similarity(grad, z.detach()), torch.cosine_similarity(g, c)
    )


def test_rotation_where_there_is_none_to_take() -> None:
    for z_row, c_row, expected in (
        ([2.0, 0.0], [-4.0, 0.0], [-2.0, 14.0]),  # opposite: reflected along z, twice as long
        ([0.0, 0.0], [3.0, 4.0], [1.0, 7.0]),  # nothing to rotate: straight through
        ([2.0, 0.0], [0.0, 0.0], [0.0, 0.0]),  # shrunk to nothing
        ([3.0, 4.0], [3.0, 4.0], [1.0, 7.0]),
    ):
        z = torch.tensor([z_row], requires_grad=True)
        value = rotate(z, torch.tensor([c_row]))
        assert value.tolist() == [c_row]
        (grad,) = torch.autograd.grad(value, z, torch.tensor([[1.0, 7.0]]))
        torch.testing.assert_close(grad, torch.tensor([expected]))


def test_gumbel_gradients() -> None:
    quantizer = GumbelSoftmax(2, 1, temperature=0.5, kl_weight=0.0)
    with_codewords(quantizer, [[0.0], [2.0]])
    z = torch.tensor([[0.5]], requires_grad=True)
    uniform = torch.rand(1, 2, generator=seeded(3))
    logits = torch.tensor([[-0.25, -2.25]]) - (-uniform.log()).log()
    y = (logits / 0.5).softmax(1)[0]
    value, index, _ = quantizer(z, seeded(3))
    chosen = int(y.argmax())
    assert index.item() == chosen
    assert value.item() == 2.0 * chosen
    value.sum().backward()
    # d y_1/dz = y_0 y_1 (l_1' - l_0') / T, l_k' = 2 (c_k - z); value = 2 y_1.
    slope = 2 * float(y[0] * y[1]) * (3.0 - (-1.0)) / 0.5
    assert z.grad is not None
    assert z.grad.item() == pytest.approx(slope, rel=1e-5)
    # Codewords: the one drawn gets 1; each its part through the softmax, l_k'(c) = 2 (z - c_k).
    assert quantizer.unit.grad is not None
    expected = torch.tensor([1.0 - chosen, float(chosen)])
    expected += 2 * y[0] * y[1] / 0.5 * torch.tensor([-1.0, 1.0]) * torch.tensor([1.0, -3.0])
    torch.testing.assert_close(quantizer.unit.grad[:, 0], expected)


def test_gumbel_draws_with_the_probabilities_and_pays_for_certainty() -> None:
    quantizer = GumbelSoftmax(2, 1, kl_weight=1.0)
    with_codewords(quantizer, [[0.0], [2.0]])
    z = torch.full((20000, 1), 0.8)
    _, indices, loss = quantizer(z, seeded())
    p = 1 / (1 + math.exp(1.44 - 0.64))  # logits -.64 and -1.44
    assert indices.float().mean().item() == pytest.approx(p, abs=0.01)
    entropy = -(p * math.log(p) + (1 - p) * math.log(1 - p))
    assert loss.item() == pytest.approx(math.log(2) - entropy, rel=1e-4)
    assert quantizer.eval()(z).indices.eq(0).all()
    assert GumbelSoftmax(2, 1, temperature=0.3).state_dict()["temperature"].item() == (
        pytest.approx(0.3)
    )


def test_fsq_values_and_gradient() -> None:
    quantizer = FSQ((5, 4))
    z = torch.tensor([[0.4, -0.3]], requires_grad=True)
    value, index, _ = quantizer(z)
    # Odd: h = 2 * 1.001; even: h = 1.5 * 1.001, shift = atanh(.5 / h).
    h5, h4 = 2.002, 1.5015
    shift = math.atanh(0.5 / h4)
    b5, b4 = h5 * math.tanh(0.4), h4 * math.tanh(-0.3 + shift) - 0.5
    assert value[0].tolist() == [round(b5) / 2, round(b4) / 2]
    assert index.item() == round(b5) + 2 + 5 * (round(b4) + 2)
    (value * torch.tensor([[1.0, 10.0]])).sum().backward()
    assert z.grad is not None
    assert z.grad[0].tolist() == pytest.approx(
        [h5 * (1 - math.tanh(0.4) ** 2) / 2, 10 * h4 * (1 - math.tanh(-0.3 + shift) ** 2) / 2]
    )


def test_fsq_reaches_every_level_and_no_other() -> None:
    quantizer = FSQ((3, 4, 1, 8)).eval()
    z = 6 * torch.rand(50000, 4, generator=seeded()) - 3
    z[:, 2] = 0.3
    indices = quantizer(z).indices
    assert indices.unique().tolist() == list(range(3 * 4 * 8))
    points = quantizer.lookup(torch.arange(96))
    assert points[:, 0].unique().tolist() == [-1, 0, 1]
    assert points[:, 1].unique().tolist() == [-1, -0.5, 0, 0.5]
    assert points[:, 2].unique().tolist() == [0]
    assert points[:, 3].unique().tolist() == [k / 4 for k in range(-4, 4)]


@pytest.mark.parametrize("levels", [(), (0, 3), (8, 2), (1 << 40, 1 << 40)])
def test_levels_that_fsq_cannot_have(levels: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="FSQ of levels"):
        FSQ(levels)


def test_lfq_is_the_sign_and_its_loss() -> None:
    quantizer = LFQ(2, entropy_weight=0.0, commitment=1.0)
    z = torch.tensor([[0.5, -3.0], [-0.5, 0.0]], requires_grad=True)
    value, indices, loss = quantizer(z)
    assert value.tolist() == [[1, -1], [-1, -1]]
    assert indices.tolist() == [0b10, 0b00]
    assert loss.item() == pytest.approx((0.25 + 4 + 0.25 + 1) / 4)
    g = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert gradient(quantizer, z.detach(), g).equal(g)
    # Entropies: t = .1, so a bit's logit is .4 z. Latents (z, 0): q = sigmoid(.4 z) x 1/2.
    quantizer = LFQ(2, entropy_weight=2.0, diversity=0.5, commitment=0.0, inverse_temperature=0.1)
    z = torch.tensor([[1.0, 0.0], [-2.0, 0.0]])
    p = [1 / (1 + math.exp(-0.4)), 1 / (1 + math.exp(0.8))]

    def entropy(q: float) -> float:
        return -(q * math.log(q) + (1 - q) * math.log(1 - q))

    sure = (entropy(p[0]) + entropy(p[1])) / 2 + math.log(2)
    equal = entropy((p[0] + p[1]) / 2) + math.log(2)
    assert quantizer(z).loss.item() == pytest.approx(2 * (sure - 0.5 * equal), rel=1e-5)


def test_bsq_lies_on_the_sphere() -> None:
    quantizer = BSQ(2, entropy_weight=0.0, commitment=1.0)
    z = torch.tensor([[3.0, -4.0]])
    value, indices, loss = quantizer(z)
    half = math.sqrt(0.5)
    torch.testing.assert_close(value.detach(), torch.tensor([[half, -half]]))
    assert indices.item() == 0b10
    assert loss.item() == pytest.approx(((0.6 - half) ** 2 + (0.8 - half) ** 2) / 2)
    # u = (.6, -.8), |z| = 5, g = (1, 0): (g - .6 u) / 5 = (.64, .48) / 5.
    found = gradient(quantizer, z, torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(found, torch.tensor([[0.128, 0.096]]))
    with_entropy = BSQ(2, commitment=0.0, entropy_weight=1.0, inverse_temperature=0.1)
    logit = 0.4 * half * torch.tensor([0.6, -0.8]).double()
    p = logit.sigmoid()
    entropy = -(p * p.log() + (1 - p) * (1 - p).log()).sum().item()
    assert with_entropy(z).loss.item() == pytest.approx(entropy - entropy, abs=1e-6)
    both = torch.cat([z, -z])  # mean probabilities 1/2 each
    expected = entropy - 2 * math.log(2)
    assert with_entropy(both).loss.item() == pytest.approx(expected, rel=1e-5)


def test_bits_that_lfq_and_bsq_cannot_have() -> None:
    for cls, bits in ((LFQ, 17), (LFQ, 0), (BSQ, 63), (BSQ, 0)):
        with pytest.raises(ConfigError, match=f"{cls.__name__} of {bits} bits"):
            cls(bits)
    many = BSQ(62)
    z = latents(9, 62)
    value, indices, _ = many(z)
    assert many.lookup(indices).equal(value)
    assert (value > 0).equal(z > 0)


@pytest.mark.parametrize("kwargs", [{"commitment": -1.0}, {"commitment": math.nan}])
def test_negative_weights_are_named(kwargs: dict[str, float]) -> None:
    for cls in (STE, EMA, RotationTrick, SimVQ):
        with pytest.raises(ConfigError, match="commitment"):
            cls(4, 2, **kwargs)
    with pytest.raises(ConfigError, match="decay 1"):
        EMA(4, 2, decay=1.0)
    with pytest.raises(ConfigError, match="temperature 0"):
        GumbelSoftmax(4, 2, temperature=0.0)


@pytest.mark.parametrize("convert", ["half", "bfloat16"])
def test_emas_counts_and_sums_stay_float32(convert: str) -> None:
    z = latents(300_000, 2).half().float()
    full, low = EMA(4, 2, decay=0.0), EMA(4, 2, decay=0.0)
    low.unit.copy_(torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]))
    full.load_state_dict(low.state_dict())
    net = nn.Sequential(Residual([low]))  # reached through modules that know nothing of it
    getattr(net, convert)()
    assert low.unit.dtype == low.scale.dtype == getattr(torch, convert.replace("half", "float16"))
    low(z)
    full(z)
    for key in ("counts", "sums"):
        assert low.state_dict()[key].dtype == torch.float32
        assert low.state_dict()[key].equal(full.state_dict()[key])
    assert low.counts.sum() == 300_000
    assert torch.isfinite(low.unit).all()
    counts = low.counts.clone()
    assert net.float().state_dict()["0.quantizers.0.counts"].equal(counts)
    assert net.double().state_dict()["0.quantizers.0.sums"].dtype == torch.float64
    assert net.float().state_dict()["0.quantizers.0.sums"].dtype == torch.float32


# Forms.


def test_product_of_a_baseline_is_the_parts_side_by_side() -> None:
    parts = [STE(4, 2), RotationTrick(4, 2)]
    quantizer = Product(parts)
    z = latents(30)
    value, indices, loss = quantizer(z)
    first, second = parts[0](z[:, :2]), parts[1](z[:, 2:])
    assert value.equal(torch.cat([first.value, second.value], 1))
    assert indices.equal(torch.stack([first.indices, second.indices], 1))
    torch.testing.assert_close(loss, (first.loss + second.loss) / 2)
    mixed = Product([STE(4, 2), DiVeQ(4, 2)])  # each by its own rule
    assert not mixed.steps_jointly
    g = latents(30, seed=5)
    assert gradient(mixed, z, g)[:, :2].equal(g[:, :2])


def test_residual_of_straight_through_passes_the_gradient_once() -> None:
    quantizer = Residual([STE(4, 2), STE(4, 2), STE(4, 2)])
    z, g = latents(30, 2), latents(30, 2, seed=5)
    quantizer.initialise(latents(dim=2))
    torch.testing.assert_close(gradient(quantizer, z, g), g)
    # Every layer's commitment teaches the encoder as if that layer stood alone.
    value, indices, _ = quantizer(z)
    rest, expected = z, torch.zeros_like(z)
    for layer, column in zip(quantizer.parts, indices.unbind(1), strict=True):
        point = layer.lookup(column).detach()
        expected += 0.25 * 2 * (rest - point) / z.numel()
        rest = rest - point
    torch.testing.assert_close(gradient(quantizer, z, g, only_loss=True), expected)
    torch.testing.assert_close(value, z - rest)


def test_projection_starts_as_principal_components() -> None:
    mixing = torch.tensor([[3.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    z = latents(2000, 2) @ mixing.t() + torch.tensor([5.0, 0.0, -2.0])
    quantizer = Projected(FSQ((8, 5)), 3).eval()
    quantizer.initialise(z, seeded())
    with torch.no_grad():
        inner = quantizer.into(z)
        torch.testing.assert_close(inner.mean(0), torch.zeros(2), atol=1e-4, rtol=0)
        torch.testing.assert_close(inner.std(0), torch.ones(2), atol=1e-2, rtol=0)
        error = (quantizer(z).value - z).square().mean() / z.var(0).mean()
    assert error < 0.1
    wide = Projected(LFQ(6), 3).eval()  # more bits than dimensions
    wide.initialise(z, seeded())
    assert wide(z).indices.unique().numel() > 8
