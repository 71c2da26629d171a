import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from diveqcodec.errors import ConfigError, TrainingError
from diveqcodec.quantize import (
    DiVeQ,
    Noise,
    Product,
    Residual,
    SFDiVeQ,
    diveq_step,
    nearest,
    perplexity,
    with_value,
)
from diveqcodec.quantize.base import RHO
from tests.support.quantizers import lookup_mse

NOISES: list[Noise] = ["forward", "gradient", "none"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pair(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = seeded(seed)
    z = torch.randn(shape, generator=g).requires_grad_()
    return z, torch.randn(shape, generator=g).requires_grad_()


def gradients(z_q: Tensor, z: Tensor, c: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    g_z, g_c = torch.autograd.grad(z_q, (z, c), g)
    return g_z, g_c


def test_hand_computed_gradients_without_noise() -> None:
    # z = (0, 0), c = (3, 4): r = 5, d^ = (.6, .8). g = (1, 0): u.g = .6, d^ (u.g) = (.36, .48).
    z = torch.zeros(1, 2, requires_grad=True)
    c = torch.tensor([[3.0, 4.0]], requires_grad=True)
    g_z, g_c = gradients(diveq_step(z, c, noise="none"), z, c, torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(g_c, torch.tensor([[0.36, 0.48]]))
    torch.testing.assert_close(g_z, torch.tensor([[0.64, -0.48]]))


def test_hand_computed_gradients_with_noise() -> None:
    z, c = pair(50, 4)
    g = torch.randn(50, 4, generator=seeded(5))
    d = (c - z).detach()
    r = d.norm(dim=1, keepdim=True)
    w = d + 0.7 * r / 2.0 * torch.randn(50, 4, generator=seeded(9))  # sigma = rho r / sqrt(4)
    u, d_hat = w / w.norm(dim=1, keepdim=True), d / r
    expected = d_hat * (u * g).sum(1, keepdim=True)
    for noise in ("forward", "gradient"):
        z_q = diveq_step(z, c, rho=0.7, noise=noise, generator=seeded(9))
        g_z, g_c = gradients(z_q, z, c, g)
        torch.testing.assert_close(g_c, expected)
        torch.testing.assert_close(g_z, g - expected)


@pytest.mark.parametrize("noise", NOISES)
def test_gradient_is_split_not_copied(noise: Noise) -> None:
    z, c = pair(3, 20, 8)
    g = torch.randn(3, 20, 8, generator=seeded(1))
    g_z, g_c = gradients(diveq_step(z, c, noise=noise, generator=seeded(2)), z, c, g)
    torch.testing.assert_close(g_z + g_c, g)
    d = (c - z).detach()
    along = (g_z * d).sum(-1) / d.norm(dim=-1)
    assert (along.abs().max() < 1e-5) == (noise == "none")
    # The codeword's part is parallel to the error, noise or not.
    parallel = d * ((g_c * d).sum(-1) / d.square().sum(-1))[..., None]
    torch.testing.assert_close(g_c, parallel, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("noise", ["gradient", "none"])
def test_value_is_the_codeword_bit_for_bit(noise: Noise) -> None:
    z, c = pair(1000, 6)
    for shift in (0.0, 1e4):  # far from the origin z + (c - z) is not c
        z_q = diveq_step(z + shift, c, noise=noise)
        assert z_q.detach().view(torch.int32).equal(c.detach().view(torch.int32))
    naive = (z + 1e4) + (c - (z + 1e4)).detach()
    assert not naive.equal(c)  # the trap that this construction avoids


def test_forward_noise_keeps_the_length_and_leaves_the_codebook() -> None:
    z, c = pair(1000, 6)
    z_q = diveq_step(z, c, noise="forward", generator=seeded())
    torch.testing.assert_close((z_q - z).norm(dim=1), (c - z).norm(dim=1))
    assert ((z_q - c).norm(dim=1) > 0.1 * (c - z).norm(dim=1)).float().mean() > 0.9


def test_noise_is_scale_free() -> None:
    z, c = pair(100, 4)
    step = diveq_step(z, c, noise="forward", generator=seeded()) - z
    tiny = diveq_step(1e-3 * z, 1e-3 * c, noise="forward", generator=seeded()) - 1e-3 * z
    torch.testing.assert_close(1e3 * tiny, step, atol=1e-4, rtol=1e-4)


def test_finite_differences_of_the_norm() -> None:
    # With the direction held, z_q = z + |c - z| u is a true function of z and c.
    z, c = (t.detach().double().requires_grad_() for t in pair(5, 3))
    d = (c - z).detach()
    u = d / d.norm(dim=1, keepdim=True)
    g = torch.randn(5, 3, dtype=torch.float64, generator=seeded(4))
    g_z, g_c = gradients(diveq_step(z, c, noise="none"), z, c, g)

    def frozen(z: Tensor, c: Tensor) -> float:
        r = (c - z).norm(dim=1, keepdim=True)
        return float(((z + r * u) * g).sum().detach())

    eps = 1e-6
    for row, column in ((0, 0), (3, 2), (4, 1)):
        nudge = torch.zeros_like(z)
        nudge[row, column] = eps
        slope_z = (frozen(z + nudge, c) - frozen(z - nudge, c)) / (2 * eps)
        slope_c = (frozen(z, c + nudge) - frozen(z, c - nudge)) / (2 * eps)
        assert g_z[row, column].item() == pytest.approx(slope_z, abs=1e-7)
        assert g_c[row, column].item() == pytest.approx(slope_c, abs=1e-7)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("sigma", [None, 1e-3])
def test_no_error_gives_identity_and_zero(noise: Noise, sigma: float | None) -> None:
    z = torch.ones(2, 4, requires_grad=True)
    c = torch.ones(2, 4, requires_grad=True)
    g = torch.randn(2, 4, generator=seeded())
    z_q = diveq_step(z, c, noise=noise, sigma=sigma)
    g_z, g_c = gradients(z_q, z, c, g)
    assert z_q.equal(c)
    assert g_z.equal(g)
    assert g_c.equal(torch.zeros_like(g))


def test_autocast_changes_nothing() -> None:
    z, c = pair(300, 8)
    plain = diveq_step(z, c, noise="forward", generator=seeded(3))
    indices = nearest(z, c[:64])
    with torch.autocast("cpu", torch.bfloat16):
        assert diveq_step(z, c, noise="forward", generator=seeded(3)).equal(plain)
        assert nearest(z, c[:64]).equal(indices)
        low = diveq_step(z.bfloat16(), c)
    assert low.dtype == torch.float32
    assert low.equal(c)


def test_same_generator_same_result() -> None:
    z, c = pair(40, 8)
    first = diveq_step(z, c, noise="forward", generator=seeded(7))
    torch.randn(3)  # the global generator does not matter
    assert diveq_step(z, c, noise="forward", generator=seeded(7)).equal(first)
    assert not diveq_step(z, c, noise="forward", generator=seeded(8)).equal(first)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [({"noise": "loud"}, "loud"), ({"rho": -1.0}, "negative"), ({"sigma": -0.1}, "negative")],
)
def test_settings_without_sense_are_named(kwargs: dict[str, Any], message: str) -> None:
    z, c = pair(2, 2)
    with pytest.raises(ConfigError, match=message):
        diveq_step(z, c, **kwargs)
    with pytest.raises(ConfigError, match=message):
        DiVeQ(4, 2, **kwargs)


def test_with_value_passes_the_surrogates_gradient_only() -> None:
    x = torch.tensor([2.0], requires_grad=True)
    value = torch.tensor([0.1], requires_grad=True)
    out = with_value(x**2, value)
    out.backward()
    assert out.item() == value.item()
    assert x.grad is not None
    assert x.grad.item() == 4.0
    assert value.grad is None


def test_modules_have_little_noise_by_default() -> None:
    part = DiVeQ(4, 2)
    for module in (part, SFDiVeQ(4, 2), Product([part, part]), Residual([part, part])):
        assert (module.rho, module.noise, module.sigma) == (RHO, "gradient", None)
    assert RHO <= 0.3  # at 1 the latents of small networks ran away from their codewords


def test_nearest_over_several_chunks_agrees_with_cdist() -> None:
    z = torch.randn(5000, 3, generator=seeded())
    codebook = torch.randn(300, 3, generator=seeded(1), requires_grad=True)
    expected = torch.cdist(z.double(), codebook.detach().double())
    found = nearest(z, codebook)  # 873 rows a chunk
    assert found.dtype == torch.int64
    assert not found.requires_grad
    chosen = expected.gather(1, found[:, None]).squeeze(1)
    torch.testing.assert_close(chosen, expected.min(1).values, atol=1e-5, rtol=0)
    assert nearest(z[:0], codebook).shape == (0,)


def test_nearest_names_shapes_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"\[4, 3\] and codebook \[5, 2\]"):
        nearest(torch.zeros(4, 3), torch.zeros(5, 2))


def test_module_evaluates_by_lookup_only() -> None:
    quantizer = DiVeQ(16, 4, noise="forward").eval()
    z = torch.randn(2, 5, 4, generator=seeded())
    z_q, indices, _ = quantizer(z)
    assert indices.shape == (2, 5)
    assert z_q.equal(quantizer.codebook[indices])
    assert quantizer.lookup(quantizer.encode(z)).equal(z_q)
    assert quantizer(z)[0].equal(z_q)


def test_forward_noise_flatters_training_distortion_and_eval_does_not() -> None:
    # A decoder that learns to undo the step: here the ideal linear one, per the leak of z in z_q.
    torch.manual_seed(0)
    quantizer = DiVeQ(8, 8, noise="forward", rho=1.0)
    z = torch.randn(4000, 8, generator=seeded())

    def residual_after_linear_decoder() -> float:
        with torch.no_grad():
            z_q, indices, _ = quantizer(z)
            one_hot = torch.nn.functional.one_hot(indices, 8).float()
            inputs = torch.cat([z_q, one_hot], 1)
            fit = inputs @ torch.linalg.lstsq(inputs, z, driver="gelsd").solution
            return float((fit - z).square().mean())

    noisy = residual_after_linear_decoder()
    honest = {}
    for mode in ("eval", "gradient"):
        quantizer.train(mode != "eval")
        quantizer.noise = "gradient"
        honest[mode] = residual_after_linear_decoder()
    assert honest["gradient"] == pytest.approx(honest["eval"], rel=1e-5)
    assert noisy < 0.9 * honest["eval"]


def test_codebook_is_stored_at_unit_scale() -> None:
    latents = 0.04 * torch.randn(500, 4, generator=seeded())
    quantizer = DiVeQ(32, 4)
    quantizer.initialise(latents, seeded(1))
    assert 0.8 < quantizer.unit.square().mean().sqrt().item() < 1.2
    assert quantizer.scale.item() == pytest.approx(0.04, rel=0.1)
    distances = torch.cdist(quantizer.codebook.detach().double(), latents.double()).min(1)
    assert distances.values.max() < 1e-7
    assert len(distances.indices.unique()) == 32  # rows of the latents, all different
    other = DiVeQ(32, 4)
    other.load_state_dict(quantizer.state_dict())
    assert other.codebook.equal(quantizer.codebook)
    with pytest.raises(TrainingError, match="31 latents for 32"):
        quantizer.initialise(latents[:31])


def test_wrong_dimension_is_named() -> None:
    with pytest.raises(ConfigError, match=r"\[3, 5\].*\[\.\.\., 4\]"):
        DiVeQ(16, 4)(torch.zeros(3, 5))


@pytest.mark.parametrize("noise", NOISES)
def test_training_approaches_k_means(noise: Noise) -> None:
    latents = torch.randn(20000, 2, generator=seeded())
    quantizer = DiVeQ(32, 2, noise=noise)
    quantizer.initialise(latents[:2000], seeded(1))
    best = k_means(latents, 32)
    assert lookup_mse(quantizer, latents) > 1.3 * best
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.02)
    g = seeded(2)
    for step in range(300):
        batch = latents[torch.randint(len(latents), (512,), generator=g)]
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * (1 - step / 300)
        loss = (quantizer(batch, generator=g)[0] - batch).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert lookup_mse(quantizer, latents) < 1.05 * best  # measured: 1.000 to 1.003


def k_means(latents: Tensor, size: int) -> float:
    centres = latents[:size].clone()
    for _ in range(40):
        indices = nearest(latents, centres)
        sums = torch.zeros_like(centres).index_add(0, indices, latents)
        centres = sums / indices.bincount(minlength=size).clamp(min=1)[:, None]
    return float((centres[nearest(latents, centres)] - latents).square().mean())


# The authors' package as an oracle.


@pytest.fixture(scope="module")
def oracle() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("diveq", reason="the authors' package is not installed")


def oracle_quantizer(cls: Any, codebook: Tensor, **kwargs: Any) -> Any:
    size, dim = codebook.shape
    made = cls(size, dim, allow_warning=False, verbose=False, codebook_reset=False, **kwargs)
    made.codebook.data.copy_(codebook)
    return made


@pytest.mark.parametrize("std", [1e-3, 0.5])
def test_oracle_diveq_forward_and_backward(oracle: Any, std: float) -> None:
    codebook = torch.randn(16, 5, generator=seeded())
    theirs = oracle_quantizer(oracle.DIVEQ, codebook, noise_var=std)
    z_theirs = torch.randn(200, 5, generator=seeded(1)).requires_grad_()
    g = torch.randn(200, 5, generator=seeded(2))
    torch.manual_seed(11)
    z_q_theirs, indices_theirs, _ = theirs(z_theirs)
    z_q_theirs.backward(g)

    ours = DiVeQ(16, 5, noise="forward", sigma=std)
    ours.unit.data.copy_(codebook)
    z = z_theirs.detach().clone().requires_grad_()
    z_q, indices, _ = ours(z, generator=seeded(11))
    z_q.backward(g)
    assert indices.equal(indices_theirs)
    torch.testing.assert_close(z_q, z_q_theirs)
    torch.testing.assert_close(z.grad, z_theirs.grad)
    torch.testing.assert_close(ours.unit.grad, theirs.codebook.grad)


def test_oracle_detach_variant(oracle: Any) -> None:
    codebook = torch.randn(16, 5, generator=seeded())
    theirs = oracle_quantizer(oracle.DIVEQDetach, codebook)
    z_theirs = torch.randn(200, 5, generator=seeded(1)).requires_grad_()
    g = torch.randn(200, 5, generator=seeded(2))
    z_q_theirs, indices_theirs, _ = theirs(z_theirs)
    z_q_theirs.backward(g)

    ours = DiVeQ(16, 5, noise="none")
    ours.unit.data.copy_(codebook)
    z = z_theirs.detach().clone().requires_grad_()
    z_q, indices, _ = ours(z)
    z_q.backward(g)
    assert indices.equal(indices_theirs)
    torch.testing.assert_close(z_q, z_q_theirs)
    torch.testing.assert_close(z.grad, z_theirs.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.unit.grad, theirs.codebook.grad, atol=1e-4, rtol=1e-4)


def test_oracle_inference(oracle: Any) -> None:
    codebook = torch.randn(16, 5, generator=seeded())
    theirs = oracle_quantizer(oracle.DIVEQ, codebook)
    z = torch.randn(200, 5, generator=seeded(1))
    z_q_theirs, indices_theirs, perplexity_theirs = theirs.inference(z)
    ours = DiVeQ(16, 5).eval()
    ours.unit.data.copy_(codebook)
    z_q, indices, _ = ours(z)
    assert indices.equal(indices_theirs)
    assert z_q.equal(z_q_theirs)
    assert perplexity(indices, 16) == pytest.approx(perplexity_theirs, rel=1e-5)
