"""Two sets of records side by side: what they were, how they were measured, and how far their numbers lie apart.

Numbers are comparable when they were measured alike: on the same images, with the same features and as many samples,
by the same kind of bound. What was trained and how it is sampled from may differ: that is what is compared, and it is
listed. An interval is 95% by itself, and its scatter is that of

    seeds     both sides have two or more: seed by seed where they share some, or Welch's (see `effects.py`)
    one run   one side has a single run: it is held against the others' scatter, taken to be its own, too

One run a side says nothing of another training run, so that nothing is concluded from it.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from ddpm_bench.config.metrics import METRICS, SCORE
from ddpm_bench.errors import UserError
from ddpm_bench.records.conditions import measurement_conditions, model_conditions, one_of_each
from ddpm_bench.records.differences import differences
from ddpm_bench.records.record import Record
from ddpm_bench.report.effects import Effect, against_one, effect

KEYS = tuple(key for key, metric in METRICS.items() if metric.kind != "error")
_IMAGES = ("data", "hash of the data", "size")
"""What is both: trained on by the model, and what its numbers are measured against."""


@dataclass(frozen=True)
class Contrast:
    """A metric of a cell, A - B; means over runs. `effect`: None where nothing can be concluded."""

    cell: str
    metric: str
    a: float
    b: float
    n: tuple[int, int]
    effect: Effect | None
    verdict: str

    @property
    def difference(self) -> float:
        return self.a - self.b

    @property
    def basis(self) -> str:
        """What the interval's scatter is that of."""
        if self.effect is None:
            return ""
        if min(self.n) == 1:
            return "one run"
        return f"{self.effect.pairs} seeds, paired" if self.effect.pairs else "seeds (Welch)"

    def as_json(self) -> dict[str, Any]:
        effect = self.effect and self.effect.as_json()
        return asdict(self) | {"difference": self.difference, "basis": self.basis, "effect": effect}


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

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"contrasts": [one.as_json() for one in self.contrasts]}


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
        was, kinds = others[0], one_of_each((*ones, *others))
        models |= dict.fromkeys(_lines(was, kinds, lambda r: _without(model_conditions(r, SCORE), _IMAGES)))
        for key in _shared_keys(ones, others):
            lines = _lines(was, kinds, partial(how, key=key))
            measurements |= dict.fromkeys(lines)
            contrasts.append(_contrast(name, key, ones, others, lines))
        if any(record.outcome == "diverged" for record in (*ones, *others)):
            outcomes.append(f"{name}: {_diverged(ones)} diverged in A, {_diverged(others)} in B")
    paired = {record.cell for ones, others in pairs.values() for record in (*ones, *others)}
    only_a, only_b = (tuple(cell for cell in side if cell not in paired) for side in sides)
    return SideBySide(tuple(contrasts), tuple(models), tuple(measurements), tuple(outcomes), only_a, only_b)


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


def _lines(was: Record, now: Sequence[Record], conditions: Callable[[Record], dict[str, object]]) -> list[str]:
    """What differs between a record and the others, each once."""
    before = conditions(was)
    return list(dict.fromkeys(line.strip() for record in now for line in differences(before, conditions(record))))


def _shared_keys(ones: Sequence[Record], others: Sequence[Record]) -> list[str]:
    sides = [_finished(records) for records in (ones, others)]
    return [key for key in KEYS if all(side and all(key in r.final.metrics for r in side) for side in sides)]


def _finished(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record.outcome == "done" and record.last]


def _diverged(records: Sequence[Record]) -> str:
    return f"{sum(record.outcome == 'diverged' for record in records)} of {len(records)}"


def _contrast(cell: str, key: str, ones: Sequence[Record], others: Sequence[Record], unlike: Sequence[str]) -> Contrast:
    x, y = ({r.seed: r.final.metrics[key] for r in _finished(side)} for side in (ones, others))
    found: Effect | None = None
    if unlike:
        verdict = f"not comparable: {', '.join(line.partition(':')[0] for line in unlike)}"
    elif len(x) == len(y) == 1:
        verdict = "no verdict: one run a side"
    else:
        found = effect(key, x, y) if min(len(x), len(y)) > 1 else against_one(key, x, y)
        verdict = _verdict(found, METRICS[key].direction == "up") if found else "no verdict: a value is not positive"
    return Contrast(cell, key, sum(x.values()) / len(x), sum(y.values()) / len(y), (len(x), len(y)), found, verdict)


def _verdict(found: Effect, up: bool) -> str:
    low, high = found.interval()
    if low <= 0 <= high:
        return "no difference seen"
    return "A is better" if (low > 0) == up else "A is worse"
