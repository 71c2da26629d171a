import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diveqcodec.errors import DiveqError
from diveqcodec.evaluate import pchip
from diveqcodec.evaluate.bdrate import bd_rate
from diveqcodec.evaluate.curves import Curve, published_curves, read_curve
from tests.support.places import PACKAGE

RATES = [0.1, 0.2, 0.4, 0.9, 1.5]
PSNRS = [26.0, 29.0, 32.5, 37.0, 40.0]


def curve(name: str, rate: float = 1, shift: float = 0) -> Curve:
    return Curve.from_points(name, [rate * one for one in RATES], [one + shift for one in PSNRS])


@pytest.mark.parametrize("factor", [0.5, 1, 1.25, 3])
def test_a_curve_of_scaled_rates_has_that_bd_rate(factor: float) -> None:
    delta = bd_rate(curve("tested", rate=factor), curve("anchor"))
    assert delta.value == pytest.approx(100 * (factor - 1), abs=1e-9)
    assert (delta.low, delta.high) == (26, 40)


def test_swapping_the_curves_inverts_the_ratio() -> None:
    tested, anchor = curve("tested", 1.3, 0.4), curve("anchor")
    there, back = bd_rate(tested, anchor).value, bd_rate(anchor, tested).value
    assert (1 + there / 100) * (1 + back / 100) == pytest.approx(1)


@pytest.mark.parametrize("points", [2, 3, 4, 9])
def test_the_interpolation_is_scipys(points: int) -> None:
    interpolate = pytest.importorskip("scipy.interpolate", reason="an oracle, of the dev extra")
    random = np.random.default_rng(points)
    for _ in range(20):
        x = np.cumsum(random.uniform(0.1, 3, points)) + 25
        y = np.cumsum(random.normal(0.3, 1, points))  # not always rising
        low, high = np.sort(random.uniform(x[0], x[-1], 2))
        theirs = interpolate.PchipInterpolator(x, y)
        for start, end in ((low, high), (x[0], x[-1]), (x[0], x[1]), (x[-2], x[-1])):
            wanted = theirs.integrate(start, end) / (end - start)
            mean = pchip.mean(x.tolist(), y.tolist(), float(start), float(end))
            assert mean == pytest.approx(float(wanted), abs=1e-9)


def test_by_hand_on_two_straight_lines() -> None:
    # Two points: PCHIP is the chord. log2 rate is d/3 and d/2 (d dB above 30) over 0..3 dB.
    tested = Curve.from_points("tested", [1, 2], [30, 33])
    anchor = Curve.from_points("anchor", [1, 4], [30, 34])
    mean = (1 / 3 - 1 / 2) * 3 / 2
    assert bd_rate(tested, anchor).value == pytest.approx(100 * (2**mean - 1))


# Recomputed by others from the same published curves, over all that each shares with VTM.
KNOWN = {
    "jpeg": 208,
    "jpeg2000": 98,
    "webp": 79,
    "bpg": 22,
    "av1": 16,
    "bmshj2018-hyperprior": 30,
    "mbt2018-mean": 21,
    "mbt2018": 11,
    "cheng2020-anchor": 3.7,
    "vtm": 0,
}


@pytest.mark.parametrize("name", KNOWN)
def test_published_curves_against_vtm(name: str) -> None:
    curves = published_curves()
    assert curves.keys() == KNOWN.keys()
    delta = bd_rate(curves[name], curves["vtm"])
    assert delta.value == pytest.approx(KNOWN[name], abs=0.06 if name.startswith("cheng") else 0.5)


def test_webp_over_the_fixed_range() -> None:
    curves = published_curves()
    delta = bd_rate(curves["webp"], curves["vtm"], (28.5, 38.5))
    assert delta.value == pytest.approx(83.8, abs=0.06)
    assert (delta.low, delta.high) == (28.5, 38.5)


def test_a_range_that_is_not_covered() -> None:
    curves = published_curves()
    tested, anchor = curves["cheng2020-anchor"], curves["vtm"]
    with pytest.raises(DiveqError, match=r"cheng2020-anchor: covers 28\.58-36\.70 dB"):
        bd_rate(tested, anchor, (28.5, 38.5))
    delta = bd_rate(tested, anchor)
    assert (delta.low, delta.high) == (tested.psnr[0], tested.psnr[-1])


def test_ms_ssim_in_decibels() -> None:
    tested = Curve.from_points("tested", [0.2, 0.4], [30, 33], [0.9, 0.99])
    anchor = Curve.from_points("anchor", [0.1, 0.2], [30, 33], [0.9, 0.99])
    delta = bd_rate(tested, anchor, metric="ms-ssim")
    assert delta.value == pytest.approx(100)
    assert (delta.low, delta.high) == pytest.approx((10, 20))


def test_what_has_no_delta() -> None:
    good = curve("anchor")
    with pytest.raises(DiveqError, match=r"one: .*two points"):
        bd_rate(Curve.from_points("one", [1], [30]), good)
    with pytest.raises(DiveqError, match=r"sags: psnr does not rise from 0\.2"):
        bd_rate(Curve.from_points("sags", [0.1, 0.2, 0.3], [30, 32, 31]), good)
    with pytest.raises(DiveqError, match="do not overlap"):
        bd_rate(curve("far", shift=20), good)
    with pytest.raises(DiveqError, match="two points with ms-ssim"):
        bd_rate(good, good, metric="ms-ssim")
    with pytest.raises(DiveqError, match="not a range"):
        bd_rate(good, good, (38, 28))


def test_a_lossless_end_is_left_out() -> None:
    lossless = Curve.from_points("tested", [*RATES, 9], [*PSNRS, math.inf])
    delta = bd_rate(lossless, curve("anchor"))
    assert delta == replace(bd_rate(curve("tested"), curve("anchor")), left_out=1)


def test_the_curves_that_come_along_are_the_published_ones() -> None:
    folder = os.environ.get("DIVEQ_PUBLISHED_CURVES")
    if not folder:
        pytest.skip("DIVEQ_PUBLISHED_CURVES does not name a folder of CompressAI's kodak results")
    content = json.loads((PACKAGE / "data/curves/published_kodak.json").read_text("utf-8"))
    for entry in content["curves"]:
        source = read_curve(Path(folder) / Path(entry["source"]).name)
        ours = published_curves()[entry["name"]]
        assert ours.bpp == pytest.approx(source.bpp, abs=1e-6)
        assert ours.psnr == pytest.approx(source.psnr, abs=1e-4)
        assert ours.ms_ssim == pytest.approx(source.ms_ssim, abs=1e-6)
