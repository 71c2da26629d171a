"""What a run costs in processor seconds, so that a scale's promise is known before it is run.

Measured on one core of an AMD EPYC with AVX-512 at full width (Zen 5), in float32, where the
convolutions of the network run at 140 GFLOP/s; where vectors are half as wide (Zen 4) they take 1.6
to 2 times as long. Other work on the machine lengthens the clock's time, hardly this one. A test
holds the sums of both scales against what they promise, and the model against the committed lines.
"""

from __future__ import annotations

from scripts.reproduction.lines import Run
from scripts.reproduction.network import SHAPES, STRIDE
from scripts.reproduction.sources import BATCH, SAMPLES

# One crop in a step (forward, backward), and a step whatever its crops (Adam, the calls themselves;
# of the large network not measured apart); one validation, one judging of 24 pictures.
_CROP = {"small": 0.0013, "large": 0.0078}
_NETWORK = {"small": 0.0058, "large": 0.001}
_VALIDATION = {"small": 0.1, "large": 0.4}
_JUDGING = {"small": 1.0, "large": 1.4}
# A latent and a codeword in one step: Gumbel-softmax draws for every pair, others compare.
_PAIR, _PAIR_GUMBEL = 4e-9, 3e-8
# A step without any network: the calls themselves. LFQ and BSQ make more of them.
_STEP, _STEP_BITS, _STEP_SPLIT = 0.0009, 0.0016, 0.0032


def expected(run: Run) -> float:
    """Processor seconds of one run, within a third or so on such a core."""
    steps = int(dict(run.settings).get("steps") or 0)
    if run.experiment == "split":
        return 0.2 + _STEP_SPLIT * steps
    if run.experiment == "rates":
        shares = run["way"] in ("dither", "real")  # the curve that "segment" has trained
        return 0.1 + (0.0 if shares else (_STEP + _PAIR * BATCH * (1 << int(run["bits"]))) * steps)
    if run.experiment.startswith("sources"):
        return 0.05 + _source(run, steps)
    shape, batch = SHAPES[run["shape"]], int(run["batch"])
    latents = batch * (shape.side // STRIDE) ** 2
    judging = _JUDGING[run["shape"]] if run.experiment == "vqvae" else 0.0
    step = (
        _NETWORK[run["shape"]]
        + _CROP[run["shape"]] * batch
        + _pair(run) * latents * int(run["size"])
    )
    return _VALIDATION[run["shape"]] + judging + step * steps


def hours(scale_runs: list[Run]) -> float:
    """Processor hours of several runs."""
    return sum(map(expected, scale_runs)) / 3600


def _source(run: Run, steps: int) -> float:
    size, dim, method = int(run["size"]), int(run["dim"]), run["method"]
    if method == "k-means":
        return 20 * max(SAMPLES, 20 * size) * size * (1e-9 + 1.5e-11 * dim)
    step = _STEP_BITS if method in ("lfq", "bsq") else _STEP
    return (step + _pair(run) * BATCH * size) * steps


def _pair(run: Run) -> float:
    if run["method"] in ("fsq", "lfq", "bsq"):
        return 0.0
    return _PAIR_GUMBEL if run["method"] == "gumbel" else _PAIR
