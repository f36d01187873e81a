"""Published tables beside the report's own: quoted as they were printed, and held against nothing."""

from collections.abc import Sequence

from rich import box
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from ddpm_bench.config.grid import load_published, shipped_published
from ddpm_bench.config.published import PublishedTable
from ddpm_bench.report.labels import escape_markdown, markdown, plain
from ddpm_bench.report.summary import Summary


def published_table(table: PublishedTable) -> Group:
    """One published table at the terminal, with its source and notes."""
    notes = any(row.note for row in table.rows)
    shown = RichTable(title=Text(plain(table.title)), box=box.SIMPLE_HEAD, show_edge=False)
    shown.add_column("")
    for heading in table.columns.values():
        shown.add_column(Text(plain(heading)), justify="right")
    if notes:
        shown.add_column("")
    group = ""
    for row in table.rows:
        if row.group != group:
            group = row.group
            shown.add_row(Text(plain(group), style="bold"))
        shown.add_row(*(Text(plain(text)) for text in (row.label, *table.texts(row), *([row.note] if notes else []))))
    return Group(shown, Text(f"Source: {table.origin}."), *(Text(plain(note)) for note in table.notes))


def quoted_section(summary: Summary) -> list[str]:
    """Markdown: the shipped tables about the images that the records are of, or that the grid's own numbers are of."""
    data = {summary.grid.conditions.data, summary.first.settings.data.source}
    tables = [table for name in shipped_published() if data & set((table := load_published(name)).data)]
    if not tables:
        return []
    return [
        "## Published elsewhere",
        "Quoted, each measured under conditions of its own: nothing in this report is held against these numbers.",
        *map(_folded, tables),
    ]


def _folded(table: PublishedTable) -> str:
    notes = any(row.note for row in table.rows)
    heads = ["", *map(markdown, table.columns.values()), *([""] if notes else [])]
    rule = ["---", *["---:"] * len(table.columns), *(["---"] if notes else [])]
    rows = [
        [markdown(row.label), *map(escape_markdown, table.texts(row)), *([escape_markdown(row.note)] if notes else [])]
        for row in table.rows
    ]
    lines = _lines([heads, rule, *rows])
    said = "\n".join(f"- {markdown(note)}" for note in (f"Source: {table.origin}.", *table.notes))
    return f"<details><summary>{markdown(table.title)}</summary>\n\n{lines}\n\n{said}\n\n</details>"


def _lines(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
