"""Two sets of records side by side: what they were, how they were measured, and how far their numbers lie apart.

Numbers are comparable when they were measured alike: on the same images, with the same features and as many samples,
by the same kind of bound. What was trained and how it is sampled from may differ: that is what is compared, and it is
listed. An interval is 95% by itself, and its scatter is that of

    seeds        both sides have two or more (Welch, see `claims.py`)
    one run      one side has a single run: it is held against the others' scatter, taken to be its own, too
    within runs  a single run each: only the bootstrap within them, from the quantiles that their records keep, taken
    as normal.
                 It holds nothing about another training run, so there is no verdict.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from scipy import stats

from ddpm_bench.config.metrics import METRICS, SCORE
from ddpm_bench.errors import UserError
from ddpm_bench.records.conditions import measurement_conditions, model_conditions
from ddpm_bench.records.differences import differences
from ddpm_bench.records.fields import QUANTILES
from ddpm_bench.records.record import Record
from ddpm_bench.report.claims import ALPHA, difference_interval

KEYS = tuple(key for key, metric in METRICS.items() if metric.kind != "error")
_IMAGES = ("data", "hash of the data", "size")
"""What is both: trained on by the model, and what its numbers are measured against."""
_SIGMA = tuple(map(QUANTILES.index, (0.16, 0.84)))


@dataclass(frozen=True)
class Contrast:
    """A metric of a cell, A - B; means over runs. `interval`: 95% of the difference, None where nothing gives one."""

    cell: str
    metric: str
    a: float
    b: float
    n: tuple[int, int]
    interval: tuple[float, float] | None
    basis: str
    verdict: str

    @property
    def difference(self) -> float:
        return self.a - self.b


@dataclass(frozen=True)
class SideBySide:
    """All that `compare` says of two sets of records. models, measurements: lines of what differs (was B, now A)."""

    contrasts: tuple[Contrast, ...]
    models: tuple[str, ...]
    measurements: tuple[str, ...]
    outcomes: tuple[str, ...]
    only_a: tuple[str, ...]  # cells
    only_b: tuple[str, ...]

    @property
    def alike(self) -> bool:
        """Has B every cell of A, under the same conditions?"""
        return not (self.models or self.measurements or self.only_a)


def side_by_side(a: Sequence[Record], b: Sequence[Record]) -> SideBySide:
    """A against B, cell by cell; a single cell on either side is held against the other's, whatever their names.

    UserError when they share no cell.
    """
    sides = [_by_cell(records) for records in (a, b)]
    pairs = _pairs(*sides)
    contrasts: list[Contrast] = []
    models: dict[str, None] = {}
    measurements: dict[str, None] = {}
    outcomes = []
    for name, (ones, others) in pairs.items():
        models |= dict.fromkeys(_lines(ones, others, lambda r: _without(model_conditions(r, SCORE), _IMAGES)))
        for key in _shared_keys(ones, others):
            lines = _lines(ones, others, partial(how, key=key))
            measurements |= dict.fromkeys(lines)
            contrasts.append(_contrast(name, key, ones, others, lines))
        if any(record.outcome == "diverged" for record in (*ones, *others)):
            outcomes.append(f"{name}: {_diverged(ones)} diverged in A, {_diverged(others)} in B")
    only_a, only_b = (tuple(cell for cell in side if not _paired(cell, pairs)) for side in sides)
    return SideBySide(tuple(contrasts), tuple(models), tuple(measurements), tuple(outcomes), only_a, only_b)


def _paired(cell: str, pairs: Mapping[str, tuple[list[Record], list[Record]]]) -> bool:
    return any(record.cell == cell for ones, others in pairs.values() for record in (*ones, *others))


def how(record: Record, key: str) -> dict[str, object]:
    """How a number was measured, the images that it is measured on among it."""
    model = model_conditions(record, key)
    return {name: model[name] for name in _IMAGES} | measurement_conditions(record, key)


def _by_cell(records: Sequence[Record]) -> dict[str, list[Record]]:
    cells: dict[str, list[Record]] = {}
    for record in records:
        cells.setdefault(record.cell, []).append(record)
    return cells


def _pairs(a: dict[str, list[Record]], b: dict[str, list[Record]]) -> dict[str, tuple[list[Record], list[Record]]]:
    pairs = {cell: (a[cell], b[cell]) for cell in a if cell in b}
    if not pairs and len(a) == len(b) == 1:
        [one], [other] = a, b
        pairs = {f"{one} − {other}": (a[one], b[other])}
    if not pairs:
        raise UserError(
            f"A and B share no cell: A has {', '.join(a)}; B has {', '.join(b)}. Compare single records by their paths."
        )
    return pairs


def _without(conditions: dict[str, object], names: Sequence[str]) -> dict[str, object]:
    return {name: value for name, value in conditions.items() if name not in names}


def _lines(
    ones: Sequence[Record], others: Sequence[Record], conditions: Callable[[Record], dict[str, object]]
) -> list[str]:
    """What differs between any record here and the first of the others, or among the others; each once."""
    was = conditions(others[0])
    found = [line.strip() for record in (*ones, *others) for line in differences(was, conditions(record))]
    return list(dict.fromkeys(found))


def _shared_keys(ones: Sequence[Record], others: Sequence[Record]) -> list[str]:
    sides = [_finished(records) for records in (ones, others)]
    return [key for key in KEYS if all(side and all(key in r.final.metrics for r in side) for side in sides)]


def _finished(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record.outcome == "done" and record.last]


def _diverged(records: Sequence[Record]) -> str:
    return f"{sum(record.outcome == 'diverged' for record in records)} of {len(records)}"


def _contrast(cell: str, key: str, ones: Sequence[Record], others: Sequence[Record], unlike: Sequence[str]) -> Contrast:
    a, b = _finished(ones), _finished(others)
    x, y = ([record.final.metrics[key] for record in side] for side in (a, b))
    interval: tuple[float, float] | None
    if unlike:
        interval, basis = None, ""
        verdict = f"not comparable: {', '.join(line.partition(':')[0] for line in unlike)}"
    elif len(a) == len(b) == 1:
        interval, basis, verdict = _within_runs(key, a[0], b[0])
    else:
        seeds = min(len(a), len(b)) > 1
        interval, basis = (difference_interval(x, y), "seeds") if seeds else (_one_run(x, y), "one run")
        verdict = _verdict(interval, METRICS[key].direction == "up")
    return Contrast(cell, key, sum(x) / len(x), sum(y) / len(y), (len(a), len(b)), interval, basis, verdict)


def _one_run(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Of a difference between one run and several, all of which scatter alike."""
    several = a if len(a) > 1 else b
    n = len(several)
    half = float(stats.t.isf(ALPHA / 2, n - 1)) * float(stats.tstd(several)) * math.sqrt(1 + 1 / n)
    difference = sum(a) / len(a) - sum(b) / len(b)
    return difference - half, difference + half


def _verdict(interval: tuple[float, float], up: bool) -> str:
    low, high = interval
    if low <= 0 <= high:
        return "no difference seen"
    return "A is better" if (low > 0) == up else "A is worse"


def _within_runs(key: str, a: Record, b: Record) -> tuple[tuple[float, float] | None, str, str]:
    """Interval, basis and words for a single run each."""
    of_a, of_b = _deviation(a, key), _deviation(b, key)
    if not of_a or not of_b:
        return None, "", "no verdict: one run each, no quantiles"
    deviation = math.hypot(of_a, of_b)
    difference = a.final.metrics[key] - b.final.metrics[key]
    half = float(stats.norm.isf(ALPHA / 2)) * deviation
    words = f"no verdict: one run each; {difference / deviation:+.1f} standard deviations within the runs"
    return (difference - half, difference + half), "within runs", words


def _deviation(record: Record, key: str) -> float | None:
    """Half the distance between the bootstrap's quantiles at one standard deviation to either side."""
    quantiles = record.final.quantiles.get(key)
    return (quantiles[_SIGMA[1]] - quantiles[_SIGMA[0]]) / 2 if quantiles else None
