"""Which cells of a table are the best in a metric: they are bold, and together where nothing tells them apart.

The best is the cell with the best mean over its seeds. Bold with it is every cell that the 95% interval of the paired
difference (`effects.py`) cannot tell from it, which is that the interval holds zero; each cell is held against the best
alone, without a correction for their number. This takes SEEDS seeds of every cell. Where every cell has a single run, the
95% intervals within the runs decide instead, and every cell is bold whose interval overlaps the best one's; they say
nothing about another training run, and the table says that. Other numbers of seeds decide nothing, and nothing is bold.

A cell with a run that failed or diverged is never bold, and no other is held against it: a mean over the rest of its seeds
would be a selection.
"""

import math
from collections.abc import Sequence
from typing import Literal

from ddpm_bench.config.metrics import METRICS
from ddpm_bench.report.claims import SEEDS
from ddpm_bench.report.effects import effect
from ddpm_bench.report.summary import MeasuredCell

Basis = Literal["seeds", "intervals", "nothing"]
IN_WORDS: dict[Basis, str] = {
    "seeds": "Bold: the best, and what the 95% interval of the paired difference cannot tell from it",
    "intervals": (
        "Bold: the best of these single runs, and what has an interval that overlaps its own; another training run may "
        "order them otherwise"
    ),
    "nothing": f"No measured number is bold, since it takes {SEEDS} seeds of two cells or more to say which is the best",
}
NEVER = "; never a cell with a run that failed or diverged"


def best_cells(key: str, rows: Sequence[MeasuredCell]) -> frozenset[str]:
    """The names of the cells that are the best in the metric `key`; none where that is not decided."""
    able = _contenders(key, rows)
    basis = _basis(key, able)
    if basis == "nothing":
        return frozenset()
    pick = max if METRICS[key].direction == "up" else min
    best = pick(able, key=lambda row: row.estimates[key].mean)
    apart = _seeds_apart if basis == "seeds" else _intervals_apart
    return frozenset(row.cell.name for row in able if row is best or not apart(key, best, row))


def bold_in_words(keys: Sequence[str], rows: Sequence[MeasuredCell]) -> str:
    """What bold means in a table of these metrics."""
    found = {_basis(key, _contenders(key, rows)) for key in keys}
    basis: Basis = "seeds" if "seeds" in found else "intervals" if "intervals" in found else "nothing"
    marred = basis != "nothing" and any(row.diverged or row.failed for row in rows)
    return f"{IN_WORDS[basis]}{NEVER if marred else ''}."


def _contenders(key: str, rows: Sequence[MeasuredCell]) -> list[MeasuredCell]:
    return [
        row
        for row in rows
        if key in row.estimates and math.isfinite(row.estimates[key].mean) and not row.diverged and not row.failed
    ]


def _basis(key: str, able: Sequence[MeasuredCell]) -> Basis:
    estimates = [row.estimates[key] for row in able]
    if len(able) > 1 and min(one.n for one in estimates) >= SEEDS:
        return "seeds"
    return "intervals" if len(able) > 1 and all(one.interval for one in estimates) else "nothing"


def _seeds_apart(key: str, a: MeasuredCell, b: MeasuredCell) -> bool:
    found = effect(key, a.values(key), b.values(key))
    if found is None:
        return False
    low, high = found.interval()
    return not low <= 0 <= high


def _intervals_apart(key: str, a: MeasuredCell, b: MeasuredCell) -> bool:
    of_a, of_b = a.estimates[key].interval, b.estimates[key].interval
    return of_a is not None and of_b is not None and (of_a[1] < of_b[0] or of_b[1] < of_a[0])
