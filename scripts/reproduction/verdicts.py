"""The paper's claims, each with our measurement and a verdict that the lines alone decide.

"Higher" means that every seed of one is above every seed of the other; anything else is "not
separated". No verdict is given from fewer than three seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scripts.reproduction.methods import METHODS, TITLES
from scripts.reproduction.plan import SEEDS, SWEPT
from scripts.reproduction.tables import Spread, Stores, markdown, measure, seeded, swept

COMMAND = "`--only {}`"
OPEN = "not measured yet"
OTHERS = [name for name in METHODS if name not in ("diveq", "sf-diveq")]


def table(stores: Stores) -> list[str]:
    """Claim, measurement, verdict, command."""
    rows = [
        _hard_assignment(stores),
        _sf_error(stores),
        _sf_use(stores),
        *(
            _better(stores, key, name, digits)
            for key, name, digits in (("psnr", "PSNR", 2), ("ms_ssim", "MS-SSIM", 4))
        ),
        _better(stores, "haarpsi", "LPIPS", 4),
        ["Better FID", "needs weights that are in no package", "not tested", "–"],
        _robust(stores, "sweep-rate", "learning rate"),
        _robust(stores, "sweep-batch", "batch size"),
        _decodable(stores),
    ]
    return [*markdown(["the paper's claim", "measured here", "verdict", "command"], rows), ""]


def sizes(stores: Stores) -> list[int]:
    """The K at which every method has three seeds."""
    return [size for size in (16, 256, 2048) if _networks(stores, size, METHODS)]


def _networks(stores: Stores, size: int, methods: list[str] | tuple[str, ...]) -> str | None:
    found = seeded(stores, "vqvae", [{"method": name, "size": size} for name in methods])
    return found[0] if found else None


def _of(stores: Stores, scale: str, method: str, size: int, key: str) -> Spread:
    return Spread.of(stores[scale].of("vqvae", method=method, size=size), key)


def _each_size(
    stores: Stores, judge: Callable[[str, int], tuple[str, str]]
) -> tuple[list[str], dict[int, str]]:
    """What `judge` (of scale and K) says of every K that was measured: texts, and verdicts by K."""
    texts, words = [], {}
    for size in sizes(stores):
        scale = _networks(stores, size, METHODS)
        if scale:
            text, word = judge(scale, size)
            texts.append(f"K = {size} ({scale}): {text}")
            words[size] = word
    return texts, words


def _verdict(words: dict[int, str]) -> str:
    """One for all K, or each with its own."""
    if not words:
        return OPEN
    sizes_of: dict[str, list[str]] = {}
    for size, word in words.items():
        sizes_of.setdefault(word, []).append(str(size))
    if len(sizes_of) == 1:
        return next(iter(sizes_of))
    return "; ".join(f"K = {', '.join(sizes)}: {word}" for word, sizes in sizes_of.items())


def _row(claim: str, texts: list[str], verdict: str, only: str) -> list[str]:
    return [claim, "<br>".join(texts) or "–", verdict, COMMAND.format(only)]


def _hard_assignment(stores: Stores) -> list[str]:
    def judge(scale: str, size: int) -> tuple[str, str]:
        own, ste = (_of(stores, scale, name, size, "psnr") for name in ("diveq", "ste"))
        text = f"DiVeQ {own.show(2)} dB, STE with both losses {ste.show(2)} dB"
        return text, _compare(own, ste, "holds", "does not hold", "holds: level with STE")

    claim = "Differentiable hard assignment needs no auxiliary loss"
    texts, words = _each_size(stores, judge)
    return _row(claim, texts, _verdict(words), "vqvae")


def _sf_error(stores: Stores) -> list[str]:
    def judge(scale: str, size: int) -> tuple[str, str]:
        own, plain = (_of(stores, scale, name, size, "psnr") for name in ("sf-diveq", "diveq"))
        text = f"SF-DiVeQ {own.show(2)} dB, DiVeQ {plain.show(2)} dB at equal bits"
        return text, _compare(own, plain, "holds", "does not hold", "not separated")

    claim = "SF-DiVeQ has the lower error (at equal bits, index decodable)"
    texts, words = _each_size(stores, judge)
    return _row(claim, texts, _verdict(words), "vqvae")


def _sf_use(stores: Stores) -> list[str]:
    def judge(scale: str, size: int) -> tuple[str, str]:
        own, plain = (_of(stores, scale, name, size, "usage") for name in ("sf-diveq", "diveq"))
        text = f"SF-DiVeQ uses {own.show_share()} of its points, DiVeQ {plain.show_share()}"
        word = "holds" if own.low >= 0.99 else "not on the test pictures"
        return text, word

    claim = "SF-DiVeQ uses the whole codebook without replacement"
    texts, words = _each_size(stores, judge)
    return _row(claim, texts, _verdict(words), "vqvae")


def _better(stores: Stores, key: str, name: str, digits: int) -> list[str]:
    def judge(scale: str, size: int) -> tuple[str, str]:
        own = {m: _of(stores, scale, m, size, key) for m in ("diveq", "sf-diveq")}
        best = max(own, key=lambda method: own[method].mean)
        others = {m: _of(stores, scale, m, size, key) for m in OTHERS}
        top = max(others, key=lambda method: others[method].mean)
        text = (
            f"{TITLES[best]} {own[best].show(digits)}, best other "
            f"({TITLES[top]}) {others[top].show(digits)}"
        )
        return text, _against_all(own[best], list(others.values()))

    texts, words = _each_size(stores, judge)
    verdict = _verdict(words)
    if name == "LPIPS":
        texts.insert(0, "weights are in no package; HaarPSI, which needs none, instead")
        verdict = f"not tested (by HaarPSI: {verdict})"
    return _row(f"Better {name} than the alternatives", texts, verdict, "vqvae")


def _compare(a: Spread, b: Spread, above: str, below: str, level: str) -> str:
    if a.is_above(b):
        return above
    return below if b.is_above(a) else level


def _against_all(own: Spread, others: list[Spread]) -> str:
    """The verdict on being better than all others: not only than the one of the best mean."""
    if all(own.is_above(other) for other in others):
        return "holds"
    return "does not hold" if any(o.is_above(own) for o in others) else "not separated"


def _robust(stores: Stores, experiment: str, name: str) -> list[str]:
    """How much PSNR the worst value of a sweep costs against the best, by method."""
    setting = "times" if experiment == "sweep-rate" else "batch"
    claim = f"More robust to {name}"
    for scale in ("full", "quick"):
        points = swept(stores[scale], experiment, setting)
        falls: dict[str, Spread] = {}
        for method in SWEPT:
            per_seed = []
            for seed in SEEDS:
                psnrs = [
                    measure(line, "psnr")
                    for lines in points.values()
                    for line in lines
                    if (line.run["method"], line.run["seed"]) == (method, seed)
                ]
                if len(psnrs) == len(points) > 1:
                    has_diverged = math.isinf(min(psnrs))
                    per_seed.append(math.inf if has_diverged else max(psnrs) - min(psnrs))
            if len(per_seed) == len(SEEDS):
                falls[method] = Spread(tuple(per_seed))
        if len(falls) == len(SWEPT):
            break
    else:
        return [claim, "–", OPEN, COMMAND.format("sweeps")]
    shown = ", ".join(f"{TITLES[m]} {fall.show(2)}" for m, fall in falls.items())
    own = min(("diveq", "sf-diveq"), key=lambda method: falls[method].mean)
    lower = {m: Spread(tuple(-value for value in fall.values)) for m, fall in falls.items()}
    word = _against_all(lower[own], [lower[method] for method in ("ema", "rotation")])
    text = f"dB between best and worst of {len(points)} values ({scale}): {shown}"
    return [claim, text, word, COMMAND.format("sweeps")]


def _decodable(stores: Stores) -> list[str]:
    claim = "SF-DiVeQ at test time beats DiVeQ at equal bits"
    for scale in ("full", "quick"):
        lines = stores[scale]
        cells = {(ln.run["source"], ln.run["dim"], ln.run["bits"]) for ln in lines.of("rates")}
        wins, losses, published, count = 0, 0, 0, 0
        for source, dim, bits in sorted(cells):
            common = {"source": source, "dim": dim, "bits": bits}
            plain = lines.of("rates", way="diveq", **common)
            ways = ["grid", "dither", *(f"segment+{b}" for b in range(4))]
            groups = [lines.of("rates", way=way, **common) for way in (*ways, "real")]
            if len(plain) != len(SEEDS) or any(len(group) != len(SEEDS) for group in groups):
                continue
            base = Spread.of(plain, "mse")
            best = min((Spread.of(group, "mse") for group in groups[:-1]), key=lambda s: s.mean)
            count += 1
            wins += base.is_above(best)
            losses += best.is_above(base)
            published += base.is_above(Spread.of(groups[-1], "mse"))
        if count:
            text = (
                f"{count} sources, D and B ({scale}): the published projection has less error in "
                f"{published}, but no decoder can have it; its best finite-rate form has less in "
                f"{wins} and more in {losses}"
            )
            word = "holds" if wins == count else "does not hold" if losses == count else "in part"
            return [claim, text, word, COMMAND.format("rates")]
    return [claim, "–", OPEN, COMMAND.format("rates")]
