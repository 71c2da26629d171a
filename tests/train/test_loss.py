"""How distortions are weighted."""

import torch

from diveqcodec.ssim import ms_ssim
from diveqcodec.train.loss import MS_SSIM_SCALE, balanced, weighted_distortion
from tests.support.pairs import pair


def test_weights_of_distortions() -> None:
    x = torch.zeros(2, 3, 176, 176)
    lam = torch.tensor([0.001, 0.01])
    mse = weighted_distortion(x + 0.1, x, lam, "mse")
    torch.testing.assert_close(mse, lam * 255**2 * 0.01)
    a, b = pair((176, 176), 0.1)
    wanted = lam * MS_SSIM_SCALE * (1 - ms_ssim(a, b))
    torch.testing.assert_close(weighted_distortion(a, b, lam, "ms-ssim"), wanted)
    cost = balanced(torch.tensor([1.0, 1.0]), torch.tensor([0.0067, 4 * 0.0067]))
    torch.testing.assert_close(cost, torch.tensor(0.75))
