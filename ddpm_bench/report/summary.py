"""Records put together by cell: mean over the seeds that finished, and their sample standard deviation

s = sqrt( sum_i (y_i - mean)^2 / (n - 1) ),   n seeds;  not defined for n = 1.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Literal

import pandas as pd

from ddpm_bench.config.grid import Cell, Grid
from ddpm_bench.config.metrics import DISTANCE, METRICS, PUBLISHED, SCORE
from ddpm_bench.records.conditions import Difference, Selection, SetAside, differences, sorted_out
from ddpm_bench.records.failure import why_failed
from ddpm_bench.records.likelihoods import BoundTerms
from ddpm_bench.records.record import Checkpoint, Record


@dataclass(frozen=True)
class Estimate:
    """A metric of a cell. `deviation`: standard deviation over `n` seeds; for n = 1 the metric's error within the run.

    interval: for n = 1 the bootstrap's 95% within the run, where there is one; it says nothing about another run.
    """

    mean: float
    deviation: float | None
    values: tuple[float, ...]  # one a seed
    interval: tuple[float, float] | None = None

    @property
    def n(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class MeasuredCell:
    """One cell of the grid with what was measured of it. `checkpoints`: the selected one of each seed; `bounds` are theirs."""

    cell: Cell
    done: tuple[Record, ...]
    diverged: tuple[Record, ...]
    estimates: Mapping[str, Estimate]
    checkpoints: Mapping[int, Checkpoint]
    bounds: tuple[BoundTerms, ...]

    @property
    def steps(self) -> tuple[int, ...]:
        """Of the selected checkpoints."""
        return tuple(checkpoint.step for checkpoint in self.checkpoints.values())

    def values(self, metric: str) -> dict[int, float]:
        """The metric by seed, of the seeds that have it."""
        return self._by_metric.get(metric, {})

    @cached_property
    def _by_metric(self) -> Mapping[str, dict[int, float]]:
        found: dict[str, dict[int, float]] = {}
        for seed, checkpoint in self.checkpoints.items():
            for metric, value in checkpoint.metrics.items():
                found.setdefault(metric, {})[seed] = value
        return found

    def bounds_of(self, split: str) -> list[BoundTerms]:
        """The bounds of a split, one a seed that has it."""
        return [bound for bound in self.bounds if bound.split == split]

    @cached_property
    def failed(self) -> tuple[Record, ...]:
        """Those of `done` that are no better than no model: their numbers are shown, and marked."""
        return tuple(record for record in self.done if why_failed(record))

    @property
    def status(self) -> Literal["measured", "failed", "partly diverged", "diverged", "not measured"]:
        if self.done:
            return "partly diverged" if self.diverged else "failed" if self.failed == self.done else "measured"
        return "diverged" if self.diverged else "not measured"


@dataclass(frozen=True)
class Summary:
    """A grid measured, at the checkpoints chosen by `selection`; at least one record, in the grid's order.

    differences: what is not as published, by metric, for the metrics that are measured and published. set_aside:
    records that do not share the table.
    """

    grid: Grid
    selection: Selection
    records: tuple[Record, ...]
    rows: tuple[MeasuredCell, ...]
    anchors: Mapping[str, Mapping[str, Estimate]]
    differences: Mapping[str, tuple[Difference, ...]]
    set_aside: tuple[SetAside, ...] = ()

    @property
    def shown(self) -> "Summary":
        """Without the cells that its preset leaves out, and that were not measured: in pictures they have no place."""
        left_out = self.grid.without.get(self.first.preset, ())
        return replace(
            self, rows=tuple(r for r in self.rows if r.status != "not measured" or r.cell.name not in left_out)
        )

    def comparable_in(self, key: str) -> bool:
        """Is this metric measured under the published conditions, as far as the source states them?"""
        return key in self.differences and not self.differences[key]

    @property
    def comparable(self) -> bool:
        """Were the scores made under the published conditions?"""
        return not any(found for key, found in self.differences.items() if not METRICS[key].is_bound)

    @property
    def bounds_comparable(self) -> bool:
        """Were the bounds made under the published conditions? Not if none is published or measured."""
        found = [found for key, found in self.differences.items() if METRICS[key].kind == "bound"]
        return bool(found) and not any(found)

    @property
    def sampling_steps(self) -> str:
        """In how many steps samples are drawn; from the fewest to the most, where cells differ."""
        made = [record.sampling_steps for record in self.records]
        return " to ".join(f"{steps:,}" for steps in sorted({min(made), max(made)}))

    @property
    def first(self) -> Record:
        """Any record: what a table shows is measured under equal conditions."""
        return self.records[0]


def summaries(records: Sequence[Record], grid: Grid) -> list[Summary]:
    """The grid at the last checkpoint and, where runs have several checkpoints, at the best one too; never mixed.

    Records that do not share a table are set aside. UserError when none are left.
    """
    alike, aside = sorted_out(records, grid)
    several = any(len(record.checkpoints) > 1 for record in alike)
    selections: tuple[Selection, ...] = ("last", "best") if several else ("last",)
    return [_summary(alike, aside, grid, selection) for selection in selections]


def at_step(summary: Summary, step: int) -> Summary:
    """The same runs, as they were scored after so many training steps."""
    done = [record for record in summary.records if record.outcome == "done"]
    scored = [(record, checkpoint) for record in done for checkpoint in record.checkpoints if checkpoint.step == step]
    return replace(summary, rows=_rows(summary.records, summary.grid, scored))


def by_group(rows: Sequence[MeasuredCell]) -> dict[str, list[MeasuredCell]]:
    """The rows by group of the grid, in order."""
    groups: dict[str, list[MeasuredCell]] = {}
    for row in rows:
        groups.setdefault(row.cell.group, []).append(row)
    return groups


def in_rows(numbers: Iterable[int], to: str, comma: str) -> str:
    """The numbers, each once and sorted; of more than three in a row the ends alone, joined by `to`."""
    each = enumerate(sorted(set(numbers)))
    rows = [[number for _, number in row] for _, row in groupby(each, lambda pair: pair[1] - pair[0])]
    return comma.join(f"{row[0]}{to}{row[-1]}" if len(row) > 3 else comma.join(map(str, row)) for row in rows)


def in_seeds(seeds: Iterable[int]) -> str:
    """`seed 0`, `seeds 0, 1, 2`, `seeds 0 to 99, 200`."""
    found = set(seeds)
    return f"seed{'s' if len(found) > 1 else ''} {in_rows(found, to=' to ', comma=', ')}"


def trainings(rows: Sequence[MeasuredCell]) -> list[MeasuredCell]:
    """The rows, of those that share a training the first alone: what is shown of trainings is shown of each once."""
    firsts: dict[str, MeasuredCell] = {}
    for row in rows:
        firsts.setdefault(_trained_with(row) or row.cell.name, row)
    shared = any(map(_trained_with, rows))  # then a row that was not measured would most likely share it, too
    return [row for row in firsts.values() if not (shared and row.status == "not measured")]


def _trained_with(row: MeasuredCell) -> str | None:
    return next((record.trained_with for record in (*row.done, *row.diverged)), None)


def chosen(record: Record, selection: Selection) -> Checkpoint | None:
    """The checkpoint of a run that finished; a run that diverged has none to show."""
    if record.outcome == "diverged":
        return None
    return record.last if selection == "last" else record.best


def _summary(records: Sequence[Record], aside: Sequence[SetAside], grid: Grid, selection: Selection) -> Summary:
    scored = [(record, checkpoint) for record in records if (checkpoint := chosen(record, selection))]
    # The anchors of a seed are the same in all its cells.
    by_seed = {(name, record.seed): metrics for record in records for name, metrics in record.anchors.items()}
    rows = _rows(records, grid, scored)
    return Summary(
        grid=grid,
        selection=selection,
        records=tuple(records),
        rows=rows,
        anchors=over_seeds([(name, metrics) for (name, _), metrics in by_seed.items()]),
        differences={key: _differences(records, grid, key, selection) for key in _held(rows, grid)},
        set_aside=tuple(aside),
    )


def _rows(
    records: Sequence[Record], grid: Grid, scored: Sequence[tuple[Record, Checkpoint]]
) -> tuple[MeasuredCell, ...]:  # fmt: skip
    """Every cell with its runs, and what is known of the checkpoints that were `scored`."""
    by_cell = over_seeds([(record.cell, checkpoint.metrics) for record, checkpoint in scored])
    # Where a cell has several checkpoints here, its estimates have several seeds, and no interval.
    by_cell |= {record.cell: _with_intervals(by_cell[record.cell], checkpoint) for record, checkpoint in scored}
    runs: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        runs[record.cell].append(record)
    scores: dict[str, list[tuple[Record, Checkpoint]]] = defaultdict(list)
    for record, checkpoint in scored:
        scores[record.cell].append((record, checkpoint))
    return tuple(
        MeasuredCell(
            cell=cell,
            done=tuple(record for record in runs[cell.name] if record.outcome == "done"),
            diverged=tuple(record for record in runs[cell.name] if record.outcome == "diverged"),
            estimates=by_cell.get(cell.name, {}),
            checkpoints={record.seed: checkpoint for record, checkpoint in scores[cell.name]},
            # A record's bounds are those of its last checkpoint.
            bounds=tuple(bound for r, checkpoint in scores[cell.name] if checkpoint is r.last for bound in r.bounds),
        )
        for cell in grid.cells
    )


def _held(rows: Sequence[MeasuredCell], grid: Grid) -> list[str]:
    """The metrics held against published ones: the two scores in any case, and what else is measured and published."""
    published = {key for key in PUBLISHED for cell in grid.cells if cell.published.of(key) is not None}
    measured = {key for row in rows for key in row.estimates}
    return [key for key in PUBLISHED if key in (SCORE, DISTANCE) or key in published & measured]


def _differences(records: Sequence[Record], grid: Grid, key: str, selection: Selection) -> tuple[Difference, ...]:
    """What is not as published in any cell: those of a cell are measured alike, and one that has the metric stands for them.

    A condition that differs in several ways, as an axis may, is one difference with all that is published and here.
    """
    having = [record for record in records if record.last and key in record.last.metrics] or records[:1]
    found: dict[str, dict[Difference, None]] = {}
    for record in {record.cell: record for record in having}.values():
        for one in differences(record, grid, key, selection):
            found.setdefault(one.name, {})[one] = None
    return tuple(
        Difference(name, _each_once(d.published for d in ones), _each_once(d.here for d in ones))
        for name, ones in found.items()
    )


def _each_once(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(texts))


def _with_intervals(estimates: Mapping[str, Estimate], checkpoint: Checkpoint) -> dict[str, Estimate]:
    quantiles = checkpoint.quantiles
    return {
        key: replace(one, interval=(quantiles[key][0], quantiles[key][-1])) if one.n == 1 and key in quantiles else one
        for key, one in estimates.items()
    }


def over_seeds(measured: Sequence[tuple[str, Mapping[str, float]]]) -> dict[str, dict[str, Estimate]]:
    """(name, metrics) of every run -> name -> metric -> estimate over its seeds, names in order of appearance."""
    long = pd.DataFrame(
        [(name, key, value) for name, metrics in measured for key, value in metrics.items()],
        columns=["name", "metric", "value"],
    )
    found: dict[str, dict[str, Estimate]] = {}
    groups = long.groupby(["name", "metric"], sort=False)["value"]
    for (name, key), values in groups:
        deviation = float(values.std(ddof=1)) if len(values) > 1 else None
        found.setdefault(name, {})[key] = Estimate(float(values.mean()), deviation, tuple(map(float, values)))
    return {name: {key: _of_one(key, estimates) for key in estimates} for name, estimates in found.items()}


def _of_one(key: str, estimates: Mapping[str, Estimate]) -> Estimate:
    """One seed has no deviation over seeds; some metrics have an error within the run, which then stands for it."""
    one, metric = estimates[key], METRICS.get(key)
    error = estimates.get(metric.error) if metric else None
    return replace(one, deviation=error.mean) if one.n == 1 and error else one
