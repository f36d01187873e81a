"""Checkpoints that are no cells beside the grid's: a table of those scored like the records, and why others are not in it."""

from collections.abc import Sequence
from typing import Any

from ddpm_bench.config.metrics import BOUNDS, LIKELIHOOD, METRICS
from ddpm_bench.records.differences import differences
from ddpm_bench.records.record import Record
from ddpm_bench.records.row import Row
from ddpm_bench.report.blocks import Block, Bullets, Heading, Paragraph, Table
from ddpm_bench.report.checkpoint_rows import bound_of, how_measured, likelihood_of, score_of
from ddpm_bench.report.results_table import COLUMNS, heading
from ddpm_bench.report.table_remarks import EMPTY, NOT_SCORED

TITLE = "Other checkpoints, scored the same way"
ABOUT = ("checkpoint", "weights", "training steps", "parameters", "predicts", "chain")


def checkpoints_section(rows: Sequence[Row], record: Record) -> list[Block]:
    """A table of the rows scored like `record`; of the others only what differs."""
    if not rows:
        return []
    unlike = {row.name: differences(_conditions(record), _of_row(row)) for row in rows}
    alike = [row for row in rows if not unlike[row.name]]
    blocks: list[Block] = [Heading(2, TITLE)]
    if alike:
        blocks += [
            _table(alike, record),
            Paragraph(
                "Data, extractor and number of samples are those of the records. Brackets: 95% interval over the data."
            ),
        ]
    others = [f"{name}:{';'.join(line[1:] for line in lines)}" for name, lines in unlike.items() if lines]
    if others:
        said = "Not in the table, since they were scored otherwise (was: the records; now: the checkpoint):"
        blocks += [Paragraph(said), Bullets(tuple(others))]
    return blocks


def _conditions(record: Record) -> dict[str, Any]:
    scoring = record.settings.scoring
    return {
        "data": record.data.model_dump(),
        "extractor": record.extractor.model_dump(),
        "samples": record.settings.sampling.samples,
        "neighborhood": scoring.neighborhood,
        "density_neighborhood": scoring.density_neighborhood,
    }


def _of_row(row: Row) -> dict[str, Any]:
    return row.setup.model_dump(include={"data", "extractor", "samples", "neighborhood", "density_neighborhood"})


def _table(rows: Sequence[Row], record: Record) -> Table:
    keys = [key for key in COLUMNS if not METRICS[key].is_bound and any(key in row.metrics for row in rows)]
    heads = [*ABOUT, *(heading(key, record) for key in keys)]
    lines = [[*_about(row), *(score_of(row, key) for key in keys)] for row in rows]
    if any(row.bounds for row in rows):
        bounds = [METRICS[key] for key in BOUNDS.values()]
        heads += [f"bound, {bound.split}, {bound.unit} {bound.arrow}" for bound in bounds] + ["bound measured by"]
        lines = [[*line, *_bounds(row)] for line, row in zip(lines, rows, strict=True)]
    if any(row.ode for row in rows):
        heads += [heading(LIKELIHOOD, record), "likelihood of"]
        lines = [[*line, *_likelihood(row)] for line, row in zip(lines, rows, strict=True)]
    align = "l" * len(ABOUT) + "r" * (len(heads) - len(ABOUT))
    return Table(TITLE, align, tuple(heads), tuple(map(tuple, lines)))


def _about(row: Row) -> list[str]:
    setup, model = row.setup, row.setup.model
    clip = "x_0 clipped" if setup.clip_x0 else "x_0 not clipped"
    return [
        row.name,
        "EMA" if model.weights == "ema" else model.weights,
        NOT_SCORED if model.step is None else f"{model.step:,}",
        f"{model.parameters:,}",
        f"{model.predicts}, {model.variance}",
        f"{setup.sampling_steps:,} of {model.T:,} steps{setup.spaced}, {model.schedule}, {clip}",
    ]


def _likelihood(row: Row) -> list[str]:
    return [likelihood_of(row), f"{row.ode.images:,} images in {row.ode.draws} draws" if row.ode else EMPTY]


def _bounds(row: Row) -> list[str]:
    calls = f"{row.bounds[0].method}, {row.bounds[0].evals:,} calls an image" if row.bounds else ""
    how = how_measured(row.bounds, calls, calls) if row.bounds else EMPTY
    return [*(bound_of(row, split) for split in BOUNDS), how]
