"""Where training starts: scales of hyper latent and filter, and a filter that filters."""

import torch

from diveqcodec.layers import PostFilter
from diveqcodec.model import HYPER_SIGMA, DvqModel
from diveqcodec.train.initial import calibrate
from tests.tiny import TINY, principal_components, training_pictures


def test_calibrated_layers_have_the_deviations_asked_for() -> None:
    torch.manual_seed(0)
    model = DvqModel(TINY)
    model.set_transform(*principal_components(TINY.channels))
    x = torch.stack(training_pictures()).float() / 255
    lam = torch.full((len(x),), 0.0067)
    log_gain = model.log_gain(lam)
    seen: list[torch.Tensor] = []
    stem = model.synthesis.filter.stem
    hook = stem.register_forward_hook(lambda _module, _inputs, out: seen.append(out))

    def deviations() -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            y = model.encode_latent(x, log_gain)
            z = model.hyper_analysis(y, model.position(log_gain))
            model.decode_latent(y.round(), log_gain)
        return z.std((0, 2, 3)), seen[-1].std((0, 2, 3))

    before, _ = deviations()
    assert float(before.max()) < HYPER_SIGMA / 2  # all null
    calibrate(model, x, lam)
    hyper, hidden = deviations()
    torch.testing.assert_close(hyper, torch.full_like(hyper, HYPER_SIGMA), rtol=1e-3, atol=0)
    torch.testing.assert_close(hidden, torch.ones_like(hidden), rtol=1e-3, atol=0)
    hook.remove()


def test_filter_starts_as_the_identity_and_reaches_its_receptive_field_only() -> None:
    torch.manual_seed(0)
    layer = PostFilter(8, 1)
    x, u = torch.rand(1, 3, 64, 64), torch.tensor([0.5])
    assert torch.equal(layer(x, u), x)
    torch.nn.init.normal_(layer.tail.weight)
    touched = x.clone()
    touched[..., 32, 32] += 1.0
    with torch.no_grad():
        moved = (layer(touched, u) - layer(x, u)).abs().amax((0, 1))
    rows = (moved > 1e-6).any(1).nonzero()
    assert 8 < int(rows.max() - rows.min()) <= 2 * 8 + 1  # four 3x3 convolutions at stride 2
