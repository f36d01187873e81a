"""One cell of the grid in full, for a reader who doubts a number: every score of every seed, and all that led to it.

Everything is read off the records as it stands there; nothing is averaged.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddpm_bench.config.metrics import METRICS
from ddpm_bench.records.record import Checkpoint, Record
from ddpm_bench.report.pictures import Picture
from ddpm_bench.report.repeat_command import command
from ddpm_bench.report.results_table import Field, Line, ResultsTable
from ddpm_bench.report.summary import MeasuredCell, Summary, in_seeds
from ddpm_bench.report.table_remarks import EMPTY, NOT_SCORED, divergence_note

Facts = Mapping[str, Mapping[str, Sequence[str]]]
"""Section -> name -> the value, or `seed n: value` for every seed where seeds differ."""


@dataclass(frozen=True)
class CellInFull:
    """All that is said of one cell; `line` is its line in the table, under the measured `heads`."""

    row: MeasuredCell
    line: Line
    heads: tuple[Field, ...]
    divergence: str
    command: str
    scores: "SeedScores"
    settings: Facts
    provenance: Facts
    curve: "Curve | None"
    picture: Picture | None


@dataclass(frozen=True)
class SeedScores:
    """Every checkpoint of every seed: seed, step and outcome, then a column a metric."""

    heads: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Trace:
    """The logged loss of one seed as points of a plot, x and y in 0..1 from the lower left."""

    seed: int
    diverged: bool
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Curve:
    """The training curves of a cell with the ends of both axes."""

    traces: tuple[Trace, ...]
    last_step: int
    lowest: float
    highest: float
    logarithmic: bool


def cell_in_full(summary: Summary, row: MeasuredCell, table: ResultsTable, picture: Picture | None) -> CellInFull:
    """Of a cell that was measured; `table` is the one of the same summary."""
    records = records_of(row)
    lines = zip(summary.grid.rows, table.lines, strict=True)
    return CellInFull(
        row=row,
        line=next(line for cell, line in lines if cell is row.cell),
        heads=table.heads[: len(table.heads) - table.published],
        divergence=divergence_note(row) if row.diverged else "",
        command=command(records, summary.grid),
        scores=scores(records),
        settings=settings(records),
        provenance=provenance(records),
        curve=curve(records),
        picture=picture,
    )


def records_of(row: MeasuredCell) -> list[Record]:
    """The cell's runs in order of their seeds."""
    return sorted((*row.done, *row.diverged), key=lambda record: record.seed)


def scores(records: Sequence[Record]) -> SeedScores:
    """`value [95% interval of a bootstrap]`, where it is known; an error within the run has a column of its own."""
    found = {key for record in records for checkpoint in record.checkpoints for key in checkpoint.metrics}
    keys = [key for key in METRICS if key in found]
    names = (METRICS[key].column(records[0].extractor.labels) for key in keys)
    lines = []
    for record in records:
        outcome = f"diverged at step {record.divergence.step:,}" if record.divergence else record.outcome
        for checkpoint in record.checkpoints:
            lines.append(
                (str(record.seed), f"{checkpoint.step:,}", outcome, *(_score(checkpoint, key) for key in keys))
            )
        if not record.checkpoints:
            lines.append((str(record.seed), EMPTY, outcome, *([NOT_SCORED] * len(keys))))
    return SeedScores(("seed", "step", "outcome", *names), tuple(lines))


def _score(checkpoint: Checkpoint, key: str) -> str:
    if key not in checkpoint.metrics:
        return NOT_SCORED
    metric, value, quantiles = METRICS[key], checkpoint.metrics[key], checkpoint.quantiles.get(key)
    return metric.with_interval(value, quantiles[0], quantiles[-1]) if quantiles else metric.text(value)


def settings(records: Sequence[Record]) -> Facts:
    """The cell's own settings in full, by section, spelled as `--set` takes them."""
    return _facts(records, lambda record: record.settings.model_dump(mode="json"))


def provenance(records: Sequence[Record]) -> Facts:
    """What the runs used, where they ran, and how long they took."""
    return _facts(records, _used)


def _used(record: Record) -> dict[str, dict[str, Any]]:
    run = ("preset", "parameters", "images_seen", "samples", "sampling_steps", "git_commit", "created")
    return {
        "data": record.data.model_dump(mode="json"),
        "extractor": record.extractor.model_dump(mode="json", exclude_none=True),
        "run": {name: getattr(record, name) for name in run},
        "wall time in seconds": {phase: round(seconds, 1) for phase, seconds in record.wall_time_s.items()},
        "versions": record.versions,
        "hardware": record.hardware,
    }


def _facts(records: Sequence[Record], read: Callable[[Record], Mapping[str, Mapping[str, Any]]]) -> Facts:
    """Sections that are alike, as settings are, are taken apart once, however many seeds there are."""
    alike: dict[str, dict[str, tuple[Mapping[str, Any], list[int]]]] = {}
    for record in records:
        for section, values in read(record).items():
            _, seeds = alike.setdefault(section, {}).setdefault(_json(values), (values, []))
            seeds.append(record.seed)
    told: dict[str, dict[str, dict[str, list[int]]]] = {}
    for section, variants in alike.items():
        for values, seeds in variants.values():
            for name, value in values.items():
                text = value if isinstance(value, str) else _json(value)
                told.setdefault(section, {}).setdefault(name, {}).setdefault(text, []).extend(seeds)
    return {section: {name: _variants(by_text) for name, by_text in names.items()} for section, names in told.items()}


_json = json.JSONEncoder(ensure_ascii=False).encode


def _variants(by_text: Mapping[str, Sequence[int]]) -> list[str]:
    if len(by_text) == 1:
        return list(by_text)
    return [f"{in_seeds(seeds)}: {text}" for text, seeds in by_text.items()]


def curve(records: Sequence[Record]) -> Curve | None:
    """The loss that the runs logged, where it is finite; on a logarithmic axis if all of it is positive."""
    logged = [(record, [p for p in record.training_log if math.isfinite(p.loss)]) for record in records]
    losses = [point.loss for _, points in logged for point in points]
    if not losses:
        return None
    lowest, highest, last = min(losses), max(losses), max(points[-1].step for _, points in logged if points)
    logarithmic = lowest > 0
    scale = math.log if logarithmic else float
    low, span = scale(lowest), (scale(highest) - scale(lowest)) or 1.0
    traces = tuple(
        Trace(
            record.seed,
            record.outcome == "diverged",
            tuple((point.step / last, (scale(point.loss) - low) / span) for point in points),
        )
        for record, points in logged
        if points
    )
    return Curve(traces, last, lowest, highest, logarithmic)
