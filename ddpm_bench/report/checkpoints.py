"""Checkpoints that are no cells: the rows of `evaluate --ckpt` in the results folder, beside the grid's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ddpm_bench.config.metrics import METRICS
from ddpm_bench.errors import UserError
from ddpm_bench.records.differences import differences
from ddpm_bench.records.record import BoundTerms, Record
from ddpm_bench.records.row import Row, read_row
from ddpm_bench.report.bounds import Z
from ddpm_bench.report.labels import escape_markdown
from ddpm_bench.report.table import ARROWS, MEASURED, heading
from ddpm_bench.report.words import EMPTY, NOT_SCORED
from ddpm_bench.runtime.observer import say

FOLDER = "checkpoints"
"""Where the rows lie in a results folder."""
SCORES = tuple(key for key in MEASURED if not key.startswith("bound"))


def rows_beside(results: Path) -> list[Row]:
    """The rows in the results folder, in order of name. A file there that is none is said and left out."""
    rows = []
    for path in sorted((results / FOLDER).glob("*.json")):
        try:
            rows.append(read_row(path))
        except UserError as error:
            say(f"Left out of the report: {error}")
    return rows


def checkpoints_section(rows: Sequence[Row], record: Record) -> list[str]:
    """Markdown: a table of the rows scored like `record`; of the others only what differs."""
    if not rows:
        return []
    unlike = {row.name: differences(_conditions(record), _of_row(row)) for row in rows}
    alike = [row for row in rows if not unlike[row.name]]
    parts = ["## Other checkpoints, scored the same way"]
    if alike:
        parts += [_table(alike, record)]
        parts += [
            "Data, extractor and number of samples are those of the records. ± of a bound: 95% interval over the data."
        ]
    others = [
        f"- {escape_markdown(name)}:{escape_markdown(';'.join(line[1:] for line in lines))}"
        for name, lines in unlike.items()
        if lines
    ]
    if others:
        parts += ["Not in the table, since they were scored otherwise (was: the records; now: the checkpoint):"]
        parts += ["\n".join(others)]
    return parts


def _conditions(record: Record) -> dict[str, Any]:
    scoring = record.settings.scoring
    return {
        "data": record.data.model_dump(),
        "extractor": record.extractor.model_dump(),
        "samples": record.settings.sampling.samples,
        "neighborhood": scoring.neighborhood,
    }


def _of_row(row: Row) -> dict[str, Any]:
    return row.setup.model_dump(include={"data", "extractor", "samples", "neighborhood"})


def _table(rows: Sequence[Row], record: Record) -> str:
    keys = [key for key in SCORES if any(key in row.metrics for row in rows)]
    bounds = any(row.bounds for row in rows)
    about = ["checkpoint", "weights", "training steps", "parameters", "predicts", "chain"]
    heads = [*about, *(f"{heading(key, record)}" for key in keys)]
    if bounds:
        heads += [
            f"bound, test, bits/dim {ARROWS['down']}",
            f"bound, train, bits/dim {ARROWS['down']}",
            "bound measured by",
        ]
    lines = [
        [*_about(row), *(_score(row, key) for key in keys), *(_bounds(row.bounds) if bounds else ())] for row in rows
    ]
    rule = ["---"] * len(about) + ["---:"] * (len(heads) - len(about))
    table = [heads, rule, *([escape_markdown(text) for text in line] for line in lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in table)


def _about(row: Row) -> list[str]:
    setup, model = row.setup, row.setup.model
    clip = "x_0 clipped" if setup.clip_x0 else "x_0 not clipped"
    return [
        row.name,
        "EMA" if model.weights == "ema" else model.weights,
        NOT_SCORED if model.step is None else f"{model.step:,}",
        f"{model.parameters:,}",
        f"{model.predicts}, {model.variance}",
        f"{setup.sampling_steps:,} of {model.T:,} steps, {model.schedule}, {clip}",
    ]


def _score(row: Row, key: str) -> str:
    return f"{row.metrics[key]:.{METRICS[key].digits}f}" if key in row.metrics else NOT_SCORED


def _bounds(bounds: Sequence[BoundTerms]) -> list[str]:
    found = {bound.split: bound for bound in bounds}
    texts = [
        f"{found[split].total:.3f} ± {Z * found[split].standard_error:.3f}" if split in found else NOT_SCORED
        for split in ("test", "train")
    ]
    if not bounds:
        return [*texts, EMPTY]
    one = bounds[0]
    images = ", ".join(f"{bound.images:,} {bound.split}" for bound in bounds)
    clip = "clipped" if one.clip_x0 else "not clipped"
    return [*texts, f"{one.method}, {one.evals:,} calls an image; {images} images; {one.decoder} decoder, {clip}"]
