"""Where training starts: the scale of the hyper latent."""

from dataclasses import replace

import torch

from diveqcodec.model import HYPER_SIGMA, DvqModel
from diveqcodec.train.initial import calibrate
from tests.tiny import TINY, principal_components, training_pictures


def test_the_hyper_latent_has_the_deviation_asked_for() -> None:
    torch.manual_seed(0)
    config = replace(TINY, hyper_channels=8, hyper_width=8, hyper_codebook=32)
    model = DvqModel(config)
    model.set_transform(*principal_components(TINY.channels))
    x = torch.stack(training_pictures()).float() / 255
    lam = torch.full((len(x),), 0.0067)
    log_gain = model.log_gain(lam)

    def deviations() -> torch.Tensor:
        with torch.no_grad():
            y = model.encode_latent(x, log_gain)
            assert model.hyper_analysis is not None
            return model.hyper_analysis(y, model.position(log_gain)).std((0, 2, 3))

    assert float(deviations().max()) < HYPER_SIGMA / 2  # all null
    calibrate(model, x, lam)
    hyper = deviations()
    torch.testing.assert_close(hyper, torch.full_like(hyper, HYPER_SIGMA), rtol=1e-3, atol=0)
