"""The numbers along the axis that stands across the table: a line for every label, a column for every group."""

from ddpm_bench.config.metrics import BOUNDS, DISTANCE, METRICS, SCORE
from ddpm_bench.report.across import Across, groups_of, lines_across
from ddpm_bench.report.blocks import Block, Bold, Entry, Figure, Heading, Paragraph, Symbols, Table, Words
from ddpm_bench.report.results_table import number
from ddpm_bench.report.summary import Summary
from ddpm_bench.report.table_remarks import DASH, EMPTY, NOT_MEASURED

FIGURES = ("across-distance", "across-bound")
"""The names of the figures that draw them."""
KEYS = (DISTANCE, SCORE, BOUNDS["test"])


def across_section(summary: Summary, curves: list[Figure]) -> list[Block]:
    """Nothing where the grid has no axis across."""
    lines = lines_across(summary)
    if not lines:
        return []
    tables = [block for key in KEYS for block in _tables(key, lines, summary)]
    return [Heading(2, "Side by side"), *curves, *tables]


def _tables(key: str, lines: list[Across], summary: Summary) -> list[Block]:
    """What was measured, and what was published of the same metric."""
    metric, groups = METRICS[key], groups_of(summary)
    found: list[Block] = []
    if any(key in row.estimates for line in lines for row in line.rows):
        title = f"{metric.column(summary.first.extractor.labels)}, measured"
        found += _table(
            title, groups, [(line.label, [_measured(key, line, group) for group in groups]) for line in lines]
        )
    published = [(line.label, [_published(key, line, group) for group in groups]) for line in lines]
    if any(entry for _, entries in published for entry in entries):
        found += _table(f"{metric.published_name}, published", groups, published)
    return found


def _table(title: str, groups: list[str], lines: list[tuple[str, list[str]]]) -> list[Block]:
    heads: tuple[Entry, ...] = ("", *map(Symbols, groups))
    entries: tuple[tuple[Words, ...], ...] = tuple((Symbols(label), *entries) for label, entries in lines)
    return [Paragraph(Bold(title)), Table(title, "l" + "r" * len(groups), heads, entries)]


def _measured(key: str, line: Across, group: str) -> str:
    row = line.in_group(group)
    if row is None:
        return EMPTY
    if key in row.estimates:
        return number(key, row.estimates[key])
    return DASH if row.status == "diverged" else NOT_MEASURED if row.status == "not measured" else EMPTY


def _published(key: str, line: Across, group: str) -> str:
    row = line.in_group(group)
    value = row.cell.published.of(key) if row else None
    return "" if value is None else f"{value:g}"
