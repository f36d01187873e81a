"""The numbers along the axis that stands across the table: a line for every label, a column for every group."""

from ddpm_bench.config.metrics import BOUNDS, DISTANCE, METRICS, SCORE
from ddpm_bench.report.across import Across, groups_of, lines_across
from ddpm_bench.report.blocks import Block, Bold, Entry, Figure, Heading, Paragraph, Symbols, Table, Words
from ddpm_bench.report.results_table import number
from ddpm_bench.report.summary import Summary
from ddpm_bench.report.table_remarks import DASH, EMPTY, NOT_MEASURED, other_axes

TITLE = "Side by side"
FIGURES = ("across-distance", "across-bound")
"""The names of the figures that draw them; the first stands beside the answer."""
KEYS = (DISTANCE, SCORE, BOUNDS["test"])


def across_section(summary: Summary, curves: list[Figure]) -> list[Block]:
    """Nothing where the grid has no axis across."""
    lines = lines_across(summary)
    if not lines:
        return []
    tables = [block for key in KEYS for block in _tables(key, lines, summary)]
    scaled = [Paragraph(said)] if (said := other_axes(summary)) else []
    return [Heading(2, TITLE), *scaled, *tables, *curves]


def _tables(key: str, lines: list[Across], summary: Summary) -> list[Block]:
    """What was measured, and what was published of the same metric."""
    metric, groups = METRICS[key], groups_of(summary)
    found: list[Block] = []
    if any(key in row.estimates for line in lines for row in line.rows):
        title = f"{metric.column(summary.first.extractor.labels)}, measured"
        found += _table(
            title, groups, [(line.label, [_measured(key, line, group) for group in groups]) for line in lines]
        )
    printed = [group for group in groups if any(_published(key, line, group) for line in lines)]
    rows = [(line.label, [_published(key, line, group) for group in printed]) for line in lines]
    if rows := [(label, entries) for label, entries in rows if any(entries)]:
        found += _table(f"{metric.published_name}, published", printed, rows)
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
    if row is None or row.cell.published.of(key) is None:
        return ""
    texts = row.cell.published.texts
    return texts["fid"] if key == DISTANCE else texts["is"] if key == SCORE else texts["nll"]
