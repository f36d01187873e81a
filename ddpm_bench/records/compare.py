"""Does a new measurement repeat the committed one? A test on the spread over seeds. Imports no torch.

For a cell c and a metric, n committed seeds have transformed values y_c1..y_cn. The variance s^2 over seeds is pooled over
the cells (degrees of freedom d = sum of n_c - 1), and never taken below the cell's own. A correct new run of m seeds has

    t = (mean_new - mean_c) / (s * sqrt(1/m + 1/n))   ~   Student's t with d degrees of freedom

if all cells scatter alike. They do not quite, so the limit on |t| is taken with d / 2 degrees of freedom: the tests show by
simulation that this covers standard deviations that differ fivefold between cells. A fault in the code moves many cells
in one direction, so each metric is tested once more by its mean deviation over the cells.
All tests together get a false alarm probability of ALPHA, shared equally (Bonferroni), whatever their correlation.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from ddpm_bench.config.metrics import METRICS
from ddpm_bench.errors import UserError
from ddpm_bench.records.differences import differences
from ddpm_bench.records.record import Record
from ddpm_bench.records.student import t_limit

ALPHA = 0.01
"""Probability that correct code fails, over all metrics and cells together."""


def _arcsine(p: float) -> float:
    return math.asin(math.sqrt(p))


_SCALES: dict[str, Callable[[float], float]] = {"log": math.log, "arcsine": _arcsine}
TRANSFORMS = {key: _SCALES[metric.scale] for key, metric in METRICS.items() if metric.scale}
"""To the scale on which seeds scatter alike, for every metric that is compared."""


ALL = "(all cells)"
"""Stands for a cell in the check of a metric's mean deviation, on the transformed scale."""


@dataclass(frozen=True)
class Check:
    """One comparison. `measured` and `expected` are means over seeds; `t` is None for an outcome."""

    cell: str
    metric: str
    measured: float | str
    expected: float | str
    t: float | None
    limit: float | None
    passed: bool


def compare(measured: Sequence[Record], reference: Sequence[Record]) -> list[Check]:
    """Check every cell of `measured` against `reference`, which needs at least two seeds a cell.

    UserError when the two were not made with the same settings, data or extractor, or when the reference has no spread.
    """
    if fault := why_not(measured, reference):
        raise UserError(fault)
    return repeats(measured, reference)


def why_not(measured: Sequence[Record], reference: Sequence[Record]) -> str:
    """Why nothing can be said of whether `measured` repeats `reference`; empty if it can."""
    new, old = _by_cell(measured), _by_cell(reference)
    if unknown := sorted(set(new) - set(old)):
        return f"The reference has no cell '{unknown[0]}'; it has {', '.join(sorted(old))}."
    for record in measured:
        if fault := _other_conditions(record, old[record.cell][0]):
            return fault
    if (numeric := _numeric(new, old)) and all(len(old[cell]) == 1 for cell in numeric):
        return "The reference has one seed a cell and so no spread; measure it with --seeds 0,1,2 or more."
    return ""


def repeats(measured: Sequence[Record], reference: Sequence[Record]) -> list[Check]:
    """The checks of `compare`, where `why_not` says nothing against them."""
    new, old = _by_cell(measured), _by_cell(reference)
    checks = [_outcome(cell, new[cell], old[cell]) for cell in new]
    if numeric := _numeric(new, old):
        checks += _metric_checks({c: new[c] for c in numeric}, {c: old[c] for c in numeric})
    return checks


def _numeric(new: dict[str, list[Record]], old: dict[str, list[Record]]) -> list[str]:
    """The cells in which every run has numbers."""
    return [cell for cell in new if all(r.outcome == "done" for r in new[cell] + old[cell])]


def _by_cell(records: Iterable[Record]) -> dict[str, list[Record]]:
    cells: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        cells[record.cell].append(record)
    return dict(cells)


def _other_conditions(record: Record, reference: Record) -> str:
    pairs = {
        "settings": (record.settings, reference.settings),
        "data": (record.data, reference.data),
        "extractor": (record.extractor, reference.extractor),
    }
    for what, (mine, theirs) in pairs.items():
        if mine == theirs:  # as nearly all are
            continue
        if lines := differences(theirs.model_dump(mode="json"), mine.model_dump(mode="json")):
            return (
                f"Cell '{record.cell}': the {what} differ from the reference's, so nothing can be concluded.\n"
                + "\n".join(lines)
                + "\nMeasure with the reference's own settings."
            )
    return ""


def _outcome(cell: str, new: list[Record], old: list[Record]) -> Check:
    seen, expected = {r.outcome for r in new}, {r.outcome for r in old}
    return Check(cell, "outcome", "/".join(sorted(seen)), "/".join(sorted(expected)), None, None, seen <= expected)


def _metric_checks(new: dict[str, list[Record]], old: dict[str, list[Record]]) -> list[Check]:
    cells = list(new)
    keys = [k for k in TRANSFORMS if all(k in r.final.metrics for c in cells for r in new[c] + old[c])]
    freedom = sum(len(old[c]) - 1 for c in cells)
    limit = limit_of_t(len(keys), len(cells), freedom)
    checks = []
    for key in keys:
        y_new, y_old = ([_transformed(side[cell], key) for cell in cells] for side in (new, old))
        deviation = np.array([a.mean() - b.mean() for a, b in zip(y_new, y_old, strict=True)])
        squares = np.array([((y - y.mean()) ** 2).sum() for y in y_old])
        inverse_counts = np.array([1 / len(a) + 1 / len(b) for a, b in zip(y_new, y_old, strict=True)])
        t, t_mean = t_values(deviation, squares, np.array([len(y) - 1.0 for y in y_old]), inverse_counts)
        for cell, value in zip(cells, t.tolist(), strict=True):
            mean_new, mean_old = (float(np.mean([r.final.metrics[key] for r in side[cell]])) for side in (new, old))
            checks.append(Check(cell, key, mean_new, mean_old, value, limit, abs(value) <= limit))
        if len(cells) > 1:
            checks.append(
                Check(ALL, key, float(deviation.mean()), 0.0, float(t_mean), limit, bool(abs(t_mean) <= limit))
            )
    return checks


def _transformed(records: Sequence[Record], key: str) -> np.ndarray:
    try:
        return np.array([TRANSFORMS[key](record.final.metrics[key]) for record in records])
    except ValueError:
        raise UserError(
            f"Cell '{records[0].cell}': {key} is not positive in every record, so that nothing can be said of its scatter."
        ) from None


def limit_of_t(metrics: int, cells: int, freedom: int) -> float:
    """What |t| must not exceed, for each metric's test of every cell and of their mean, `freedom` being d."""
    return t_limit(ALPHA / (2 * metrics * (cells + 1)), freedom / 2)


def t_values(
    deviation: np.ndarray, squares: np.ndarray, freedom: np.ndarray, inverse_counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The t of every cell (..., C), and that of the mean deviation over the cells (...).

    All of shape (..., C): `deviation` mean_new - mean_c; `squares` the sum of squared deviations of the committed seeds from their
    mean, with `freedom` n_c - 1; `inverse_counts` 1/m + 1/n_c.
    """
    pooled = squares.sum(-1, keepdims=True) / freedom.sum(-1, keepdims=True)
    own = np.divide(squares, freedom, out=np.zeros_like(squares), where=freedom > 0)
    # The floor keeps identical seeds (a spread of zero) from turning rounding into an alarm.
    variance = np.maximum(np.maximum(own, pooled), 1e-12) * inverse_counts
    return deviation / np.sqrt(variance), deviation.sum(-1) / np.sqrt(variance.sum(-1))


def checks_table(checks: Sequence[Check]) -> Table:
    """The checks as a table: what failed first, then the rest in order."""
    failed = sum(not check.passed for check in checks)
    verdict = f"{failed} of {len(checks)} checks FAILED" if failed else f"all {len(checks)} checks passed"
    table = Table(
        title=f"Measured against the reference: {verdict}",
        caption=f"|t| above the limit: chance below {ALPHA:.0%} in all",
    )
    for heading in ("cell", "metric", "measured", "reference", "t", "limit", ""):
        table.add_column(heading, justify="right" if heading in ("measured", "reference", "t", "limit") else "left")
    for check in sorted(checks, key=lambda check: check.passed):
        numbers = (check.measured, check.expected, check.t, check.limit)
        cells = ("" if n is None else n if isinstance(n, str) else f"{n:.3f}" for n in numbers)
        table.add_row(
            check.cell,
            check.metric,
            *cells,
            "ok" if check.passed else "FAILED",
            style=None if check.passed else "bold red",
        )
    return table
