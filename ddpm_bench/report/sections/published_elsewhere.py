"""Published tables beside the report's own: quoted as they were printed, and held against nothing."""

from ddpm_bench.config.published import PublishedTable
from ddpm_bench.config.shipped import load_published, published_names
from ddpm_bench.report.blocks import Block, Bullets, Details, Entry, Heading, Paragraph, Symbols, Table
from ddpm_bench.report.summary import Summary


def published_elsewhere_section(summary: Summary) -> list[Block]:
    """The other shipped tables about the images that the records are of, or that the grid's own numbers are of."""
    data = {summary.grid.conditions.data, summary.first.settings.data.source}
    others = [name for name in published_names() if name != summary.grid.name]
    tables = [table for name in others if data & set((table := load_published(name)).data)]
    if not tables:
        return []
    return [
        Heading(2, "Published elsewhere"),
        Paragraph(
            "Quoted, each measured under conditions of its own: nothing in this report is held against these numbers."
        ),
        *map(_folded, tables),
    ]


def _folded(table: PublishedTable) -> Details:
    notes = any(row.note for row in table.rows)
    heads: tuple[Entry, ...] = ("", *map(Symbols, table.columns.values()), *([""] if notes else []))
    lines: tuple[tuple[Entry, ...], ...] = tuple(
        (Symbols(row.label), *table.texts(row), *([row.note] if notes else [])) for row in table.rows
    )
    align = "l" + "r" * len(table.columns) + "l" * notes
    said = tuple(map(Symbols, (f"Source: {table.origin}.", *table.notes)))
    return Details(Symbols(table.title), (Table(Symbols(table.title), align, heads, lines), Bullets(said)))
