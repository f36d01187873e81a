"""The table that a page of text has room for: of a table laid out across an axis one metric, a column for every group."""

from collections.abc import Sequence

from ddpm_bench.config.metrics import DISTANCE, METRICS, SCORE
from ddpm_bench.config.published import Published
from ddpm_bench.report.across import Across, lines_across
from ddpm_bench.report.best import best_cells, bold_in_words
from ddpm_bench.report.results_table import (
    FID,
    IS,
    NLL_TEST,
    Field,
    Line,
    Notes,
    ResultsTable,
    SourceColumn,
    heading,
    make_table,
    measured_fields,
)
from ddpm_bench.report.summary import MeasuredCell, Summary, by_group
from ddpm_bench.report.table_remarks import EMPTY, NOT_MEASURED, meanings, setting, title, unverified, verdict

DOTS = "…"


def compact_table(summary: Summary) -> ResultsTable:
    """Distances across the axis where the grid has one; score, distance and test bound of every row where it has none."""
    lines = lines_across(summary)
    return across_table(summary, lines, DISTANCE) if lines else make_table(summary, compact=True)


def across_table(summary: Summary, lines: Sequence[Across], key: str) -> ResultsTable:
    """The metric of every label, group by group; beside it what was published of it, where anything was."""
    notes, metric, source = Notes(), METRICS[key], _source_of(key)
    groups = by_group(summary.rows)
    measured = [group for group, rows in groups.items() if any(key in row.estimates for row in rows)]
    printed = [group for group, rows in groups.items() if any(source.write(row.cell.published) for row in rows)]
    best = {group: best_cells(key, groups[group]) for group in measured}
    weights = "" if summary.first.extractor.verified or metric.is_bound else notes.letter(unverified(summary.first))

    def ours(row: MeasuredCell | None, group: str) -> Field:
        field = measured_fields(row, (key,), notes, {key: best[group]})[0] if row else Field(EMPTY)
        return Field(DOTS) if field.text == NOT_MEASURED else field

    def theirs(row: MeasuredCell | None) -> Field:
        return _published(source, row.cell.published) if row else Field(EMPTY)

    entries = [
        Line("", line.label, (
            *(ours(line.in_group(group), group) for group in measured), *(theirs(line.in_group(group)) for group in printed)
        ))
        for line in lines
    ]  # fmt: skip
    heads = [Field(group, weights) for group in measured] + [Field(group) for group in printed]
    name, arrow = heading(key, summary.first)[:-2], metric.arrow
    beside = f", beside {metric.published_name}" if printed else ""
    return ResultsTable(
        title=f"{title(summary)}: {name} {arrow}{beside}",
        setting=setting(summary, bounds=metric.is_bound),
        verdict=verdict(summary) if printed else "",
        labels_are=summary.grid.labels_are,
        columns=tuple(head.text for head in heads),
        heads=tuple(heads),
        published=len(printed),
        lines=tuple(entries),
        anchors=(),
        notes=tuple(notes.lettered()),
        remarks=_remarks(summary, key, entries),
        compact=True,
    )


def _remarks(summary: Summary, key: str, lines: Sequence[Line]) -> tuple[str, ...]:
    """Those of every table, in the words of this one: bold is a column's, and dots stand where nothing was measured."""
    dotted = any(field.text == DOTS for line in lines for field in line.fields)
    unmeasured = f"{NOT_MEASURED.capitalize()}:"
    said = [said for said in meanings(summary, [key]) if dotted or not said.startswith(unmeasured)]
    bold = bold_in_words([key], summary.rows).replace("the best,", "the best of a column,")
    return (bold, *(one.replace(unmeasured, f"{DOTS}:") for one in said))


def _source_of(key: str) -> SourceColumn:
    return {DISTANCE: FID, SCORE: IS}.get(key, NLL_TEST)


def _published(source: SourceColumn, published: Published) -> Field:
    return Field(source.write(published), bold=source.number in published.bold)
