"""Lines to tables of the page: means over seeds with their spread, never a single run.

Of "quick" and "full" lines a table takes the full ones as soon as every row has three seeds there,
and its caption says which. A row with fewer than three seeds has no place in a table.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from scripts.reproduction.lines import Line, Lines, Value
from scripts.reproduction.methods import METHODS, REPLACING, TITLES
from scripts.reproduction.plan import SEEDS, SWEPT
from scripts.reproduction.rates import WAYS
from scripts.reproduction.split import PRICE, SPLITS

Stores = Mapping[str, Lines]


# Of these more is better; of everything else less.
REWARDS = ("psnr", "ms_ssim", "haarpsi", "usage", "perplexity")


def measure(line: Line, key: str) -> float:
    """One result of a line; of a training that diverged the worst that there is, an infinity."""
    if line.has_diverged:
        return -math.inf if key in REWARDS else math.inf
    return float(line.result[key])


@dataclass(frozen=True, slots=True)
class Spread:
    """What the seeds gave, one value each; infinite where the training diverged."""

    values: tuple[float, ...]

    @staticmethod
    def of(lines: Iterable[Line], key: str) -> Spread:
        """Of one result of several lines."""
        return Spread(tuple(measure(line, key) for line in lines))

    @property
    def low(self) -> float:
        """The least value."""
        return min(self.values)

    @property
    def mean(self) -> float:
        """The mean: infinite if a training diverged, so that such a method ranks last."""
        return statistics.fmean(self.values)

    @property
    def high(self) -> float:
        """The largest value."""
        return max(self.values)

    def show(self, digits: int) -> str:
        """Mean and half the range of the seeds that did not diverge, and how many did."""
        return self._show(lambda v: f" ± {(max(v) - min(v)) / 2:.{digits}f}", f".{digits}f")

    def show_mean(self, form: str = ".0f") -> str:
        """The mean alone, in a format, of the seeds that did not diverge, and how many did."""
        return self._show(lambda _: "", form)

    def show_share(self) -> str:
        """The mean of shares alone, in per cent."""
        return self._show(lambda _: "", ".0%").replace("%", " %")

    def _show(self, after: Callable[[list[float]], str], form: str) -> str:
        finite = [value for value in self.values if math.isfinite(value)]
        if not finite:
            return "diverged"
        text = f"{statistics.fmean(finite):{form}}{after(finite)}"
        lost = len(self.values) - len(finite)
        return f"{text} ({lost} of {len(self.values)} diverged)" if lost else text

    def is_above(self, other: Spread) -> bool:
        """Whether every seed of this one is above every seed of the other."""
        return self.low > other.high


def seeded(
    stores: Stores, experiment: str, rows: Sequence[Mapping[str, Value]]
) -> tuple[str, list[list[Line]]] | None:
    """The lines of each row from the best scale that has three seeds of all; None if none has."""
    for scale in ("full", "quick"):
        found = [stores[scale].of(experiment, **row) for row in rows]
        if all(len(lines) == len(SEEDS) for lines in found):
            return scale, found
    return None


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table as lines of text."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows)]


def vqvae(stores: Stores, size: int) -> list[str]:
    """One table of the VQ-VAE at K = size; empty without lines."""
    found = seeded(stores, "vqvae", [{"method": name, "size": size} for name in METHODS])
    if not found:
        return []
    scale, groups = found
    settings = dict(groups[0][0].run.settings)
    ranked = sorted(zip(METHODS, groups, strict=True), key=lambda p: -Spread.of(p[1], "psnr").mean)
    rows = []
    for method, lines in ranked:
        first = next((line.result for line in lines if not line.has_diverged), {})
        points = first.get("codewords", "–")
        rows.append(
            [
                TITLES[method],
                str(points),
                f"{first['bpp_fixed']:.4f}" if first else "–",
                Spread.of(lines, "bpp_coded").show(4),
                Spread.of(lines, "psnr").show(2),
                Spread.of(lines, "ms_ssim").show(4),
                Spread.of(lines, "haarpsi").show(4),
                Spread.of(lines, "usage").show_share(),
                Spread.of(lines, "perplexity").show_mean(),
                Spread.of(lines, "replaced").show_mean() if method in REPLACING else "–",
                first.get("rate", "–"),
            ]
        )
    head = ["quantizer", "points", "bpp, fixed", "bpp, coded", "PSNR, dB", "MS-SSIM", "HaarPSI"]
    caption = (
        f"K = {size}, {scale} runs: network {settings['shape']}, {settings['steps']} steps of "
        f"{settings['batch']} crops, seeds 0, 1, 2, best mean PSNR first:"
    )
    return [caption, "", *markdown([*head, "used", "perplexity", "replaced", "rate"], rows), ""]


def sources(stores: Stores) -> list[str]:
    """Error above k-means in dB, a row a method, a column a source, D and K."""
    scale = "full" if cells(stores["full"]) else "quick"
    whole = cells(stores[scale])
    if not whole:
        return []
    blocks = []
    for source in dict.fromkeys(cell[0] for cell in whole):
        own = [cell for cell in whole if cell[0] == source]
        rows = [_source_row(stores[scale], method, own) for method in ("k-means", *METHODS)]
        head = [source, *(f"D {dim}, K {size}" for _, dim, size in own)]
        blocks += [*markdown(head, rows), ""]
    caption = (
        f"Squared error in dB above k-means, and the share of codewords used ({scale} runs, means "
        "of three seeds). The row of k-means itself is its distance from the Shannon bound:"
    )
    return [caption, "", *blocks]


def cells(lines: Lines) -> list[tuple[str, int, int]]:
    """Source, D and K wherever all methods have three seeds."""
    counts: dict[tuple[str, int, int], int] = {}
    for line in lines.of("sources"):
        cell = (line.run["source"], line.run["dim"], line.run["size"])
        counts[cell] = counts.get(cell, 0) + 1
    whole = len(SEEDS) * (1 + len(METHODS))
    return sorted(cell for cell, count in counts.items() if count == whole)


def gap(lines: Lines, method: str, cell: tuple[str, int, int]) -> Spread:
    """Error of a method in dB above the mean error of k-means."""
    own, base = (_errors(lines, name, cell) for name in (method, "k-means"))
    reference = statistics.fmean(base)
    return Spread(tuple(_decibel(error / reference) for error in own))


def _source_row(lines: Lines, method: str, columns: list[tuple[str, int, int]]) -> list[str]:
    row = [TITLES[method]]
    for cell in columns:
        found = lines.of("sources", source=cell[0], dim=cell[1], size=cell[2], method=method)
        if method == "k-means":
            bound = found[0].result["bound"]
            error = statistics.fmean(measure(line, "mse") for line in found)
            text = "–" if bound is None else f"{_decibel(error / bound):.2f}"
        else:
            text = gap(lines, method, cell).show_mean("+.2f")
        row.append(f"{text}, {Spread.of(found, 'usage').show_share()}")
    return row


def _errors(lines: Lines, method: str, cell: tuple[str, int, int]) -> list[float]:
    found = lines.of("sources", source=cell[0], dim=cell[1], size=cell[2], method=method)
    return [measure(line, "mse") for line in found]


def _decibel(ratio: float) -> float:
    return 10 * math.log10(ratio)


def choices(stores: Stores) -> list[str]:
    """For every source, D and K: the best method, and those it is not separated from."""
    scale = "full" if cells(stores["full"]) else "quick"
    lines, rows = stores[scale], []
    for cell in cells(lines):
        gaps = {method: gap(lines, method, cell) for method in METHODS}
        best = min(gaps, key=lambda method: gaps[method].mean)
        level = [name for name in METHODS if name != best and not gaps[name].is_above(gaps[best])]
        titles = ", ".join(TITLES[name] for name in level) or "none"
        rows.append([cell[0], str(cell[1]), str(cell[2]), TITLES[best], titles])
    head = ["source", "D", "K", "least error", "not separated from it by three seeds"]
    return [f"From the same lines ({scale} runs):", "", *markdown(head, rows), ""] if rows else []


def rates(stores: Stores) -> list[str]:
    """Squared error a dimension of every way to decode SF-DiVeQ, at equal total bits."""
    for scale in ("full", "quick"):
        columns = sorted(
            {(ln.run["source"], ln.run["dim"], ln.run["bits"]) for ln in stores[scale].of("rates")}
        )
        columns = [
            cell
            for cell in columns
            if all(len(_ways(stores[scale], way, cell)) == len(SEEDS) for way in WAYS)
        ]
        if columns:
            break
    else:
        return []
    rows = []
    for way, title in WAYS.items():
        found = [_ways(stores[scale], way, cell) for cell in columns]
        decodable = "yes" if found[0][0].result["is_decodable"] else "**not decodable**"
        rows.append([title, decodable, *(Spread.of(lines, "mse").show(4) for lines in found)])
    head = ["index", "decodable", *(f"{kind}, D {dim}, B {bits}" for kind, dim, bits in columns)]
    return [f"Squared error a dimension at B bits ({scale} runs):", "", *markdown(head, rows), ""]


def _ways(lines: Lines, way: str, cell: tuple[str, int, int]) -> list[Line]:
    return lines.of("rates", way=way, source=cell[0], dim=cell[1], bits=cell[2])


def sweeps(stores: Stores) -> list[str]:
    """PSNR over learning rates, batch sizes and noise, a table each."""
    result: list[str] = []
    for experiment, name, title in (
        ("sweep-rate", "times", "Learning rate, as a multiple of the one chosen"),
        ("sweep-batch", "batch", "Batch size"),
        ("sweep-rho", "rho", "Noise ρ"),
    ):
        methods = SWEPT[:2] if experiment == "sweep-rho" else SWEPT
        for scale in ("full", "quick"):
            points = swept(stores[scale], experiment, name)
            whole = {
                value: lines
                for value, lines in points.items()
                if all(len(_by(lines, method)) == len(SEEDS) for method in methods)
            }
            if len(whole) > 1:
                break
        else:
            continue
        rows = [
            [TITLES[m], *(Spread.of(_by(lines, m), "psnr").show(2) for lines in whole.values())]
            for m in methods
        ]
        steps = next(iter(whole.values()))[0].run["steps"]
        caption = (
            f"{title}: PSNR in dB on held-out crops ({scale} runs, network small, K = 256, "
            f"{steps} steps):"
        )
        result += [caption, "", *markdown(["quantizer", *map(str, whole)], rows), ""]
    return result


def swept(lines: Lines, experiment: str, name: str) -> dict[Value, list[Line]]:
    """The lines of a sweep by its value, in order, and with them the point that all sweeps share.

    That point is the learning rate times 1; where the noise is swept it is "as published".
    """
    found: dict[Value, list[Line]] = {}
    shared = [] if experiment == "sweep-rate" else lines.of("sweep-rate", times=1.0)
    for line in [*shared, *lines.of(experiment)]:
        value = dict(line.run.settings).get(name, "as published")
        found.setdefault(value, []).append(line)
    order = sorted(found, key=lambda v: -1.0 if v == "as published" else float(v or 0))
    return {value: found[value] for value in order}


def _by(lines: Iterable[Line], method: str) -> list[Line]:
    return [line for line in lines if line.run["method"] == method]


def split(stores: Stores) -> list[str]:
    """Who gets the gradient: cost, bits, error, use and drift under both assignments."""
    result: list[str] = []
    for assignment in ("nearest", "rate-aware"):
        for scale in ("full", "quick"):
            lines = stores[scale]
            rules = list(
                dict.fromkeys(
                    (ln.run["split"], ln.run["group"], ln.run["rho"])
                    for ln in lines.of("split", assignment=assignment)
                )
            )
            groups = [_rule_lines(lines, assignment, rule) for rule in rules]
            if groups and all(len(group) == len(SEEDS) for group in groups):
                break
        else:
            continue
        pairs = sorted(
            zip(rules, groups, strict=True), key=lambda pair: Spread.of(pair[1], "cost").mean
        )
        rows = [[_rule_title(*rule), *_split_cells(group)] for rule, group in pairs]
        steps = groups[0][0].run["steps"]
        caption = f"{assignment.capitalize()} assignment, {scale} runs ({steps} steps), best first:"
        head = ["gradient", "error + price·bits", "error", "bits a patch", "used"]
        head += ["error, second half", "bits, second half"]
        result += [caption, "", *markdown(head, rows), "", _split_words(pairs), ""]
    return [f"Price of a bit: {PRICE}.", "", *result] if result else []


def _split_words(pairs: list[tuple[tuple[str, str, Value], list[Line]]]) -> str:
    """The best rule, what three seeds do not separate from it, and the rules that run away."""
    best = Spread.of(pairs[0][1], "cost")
    level = [
        _rule_title(*rule)
        for rule, group in pairs[1:]
        if not Spread.of(group, "cost").is_above(best)
    ]
    lost = [
        _rule_title(*rule) for rule, group in pairs if all(_has_run_away(line) for line in group)
    ]
    return (
        f"Least cost: {_rule_title(*pairs[0][0])}; not separated from it: "
        f"{'; '.join(level) or 'none'}. Error grew by more than a twentieth in the second half, in "
        "every seed (the latents run away from their codewords): "
        f"{'; '.join(lost) or 'none'}."
    )


def _has_run_away(line: Line) -> bool:
    if line.has_diverged:
        return True
    return bool(line.result["error"] > 1.05 * line.result["path"][2]["error"])


def _rule_lines(lines: Lines, assignment: str, rule: tuple[str, str, Value]) -> list[Line]:
    name, group, rho = rule
    return lines.of("split", assignment=assignment, split=name, group=group, rho=rho)


def _rule_title(name: str, group: str, rho: Value) -> str:
    shown = "∞" if rho == "inf" else rho
    return SPLITS[name] + (f", {group}, ρ {shown}" if name == "diveq" else "")


def _split_cells(lines: list[Line]) -> list[str]:
    drift = []
    for key, digits in (("error", 2), ("bits", 2)):
        moved = [
            math.inf if line.has_diverged else line.result[key] - line.result["path"][2][key]
            for line in lines
        ]
        drift.append(Spread(tuple(moved)).show_mean(f"+.{digits}f"))
    return [
        Spread.of(lines, "cost").show(3),
        Spread.of(lines, "error").show(3),
        Spread.of(lines, "bits").show(2),
        Spread.of(lines, "usage").show_share(),
        *drift,
    ]
