"""Tables at the terminal beside the results table: evaluated checkpoints, quoted tables, codes, two sets of records."""

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ddpm_bench.config.metrics import METRICS
from ddpm_bench.config.published import Coding, PublishedTable
from ddpm_bench.report.checkpoint_rows import RowsTable
from ddpm_bench.report.labels import one_line, plain
from ddpm_bench.report.progressive_coding import MEASURED_HEADS, PUBLISHED_HEADS, Coded, lines, split_in_words
from ddpm_bench.report.side_by_side import SideBySide


def rows_at_terminal(tables: Sequence[RowsTable]) -> Group:
    """Evaluated checkpoints in tables as wide as they need to be, remarks below."""
    shown: list[RenderableType] = []
    for table in tables:
        grid = Table(title=Text(table.title), box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for index, head in enumerate(table.heads):
            grid.add_column(Text(head), justify="right" if index else "left")
        for line in table.lines:
            grid.add_row(*map(Text, map(one_line, line)))
        grid.add_section()
        for line in table.anchors:
            grid.add_row(*map(Text, line), style="dim")
        bounds = [f"{name}: bound: {how}" for name, how, *_ in table.origins]
        shown += [grid, *(Text(f"- {said}") for said in (*table.remarks, *bounds)), Text("")]
    return Group(*shown)


def published_at_terminal(table: PublishedTable) -> Group:
    """One published table, with its source and notes."""
    notes = any(row.note for row in table.rows)
    shown = Table(title=Text(plain(table.title)), box=box.SIMPLE_HEAD, show_edge=False)
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


def code_at_terminal(code: Coded, published: Coding | None = None) -> Table:
    """A progressive code, the published one beside it."""
    table = Table(
        title=Text(f"Progressive coding: {plain(code.label)}"),
        caption=Text(split_in_words(code, published)),
        box=box.SIMPLE_HEAD,
        show_edge=False,
    )
    for head in MEASURED_HEADS:
        table.add_column(head, justify="right")
    for head in PUBLISHED_HEADS if published else ():
        table.add_column(head, justify="right", style="cyan")
    for line in lines(code, published):
        table.add_row(*line)
    return table


def side_by_side_at_terminal(found: SideBySide) -> Group:
    """Two sets of records, metric by metric, and what differs in how they came about."""
    table = Table(title="A against B", caption="A − B with its 95% interval, each by itself; % of B")
    for heading in ("cell", "metric", "A", "B", "runs", "A − B", "95% interval", "scatter of", "verdict"):
        table.add_column(heading, justify="right" if heading in ("A", "B", "A − B", "95% interval") else "left")
    for one in found.contrasts:
        metric = METRICS[one.metric]
        table.add_row(
            one.cell, one.metric, metric.text(one.a), metric.text(one.b), f"{one.n[0]}, {one.n[1]}",
            metric.text(one.difference, sign=True), one.effect.interval_text(metric) if one.effect else "", one.basis,
            one.verdict,
        )  # fmt: skip
    parts: list[RenderableType] = [table] if found.contrasts else [Text("No metric was measured on both sides.")]
    for heading, said in (
        ("What differs between the models, and is compared (was: B, now: A)", found.models),
        ("What differs in how the numbers were measured (was: B, now: A)", found.measurements),
        ("Diverged", found.outcomes),
        ("Only in A", found.only_a),
        ("Only in B", found.only_b),
    ):
        parts += [Text(f"\n{heading}", style="bold"), *(Text(f"  {line}") for line in said)] if said else []
    return Group(*parts)
