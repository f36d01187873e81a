"""The table at the terminal: as wide as it is, down to 80 characters."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from ddpm_bench.config.metrics import METRICS
from ddpm_bench.report.claims import claim_lines
from ddpm_bench.report.labels import plain
from ddpm_bench.report.published_verdicts import verdict_lines
from ddpm_bench.report.results_table import Field, Line, ResultsTable, grouped
from ddpm_bench.report.summary import Summary

GAP = 2
SUPERSCRIPT = str.maketrans("abcdefghijklmnoprstuvwxyz", "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ")


@dataclass(frozen=True)
class TerminalTable:
    """A rich renderable that reads no markup in the user's text. A narrow terminal gets what matters most."""

    table: ResultsTable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._grid(options.max_width)
        if self.table.verdict:
            yield Text(self.table.verdict, style="bold")
        yield from (Text(f"{letter}: {text}") for letter, text in self.table.notes)
        yield from (Text(f"- {remark}") for remark in self.table.remarks)
        yield ""

    def _grid(self, width: int) -> RichTable:
        table = self.table
        names = [plain(text) for line in table.lines for text in (line.group, line.label)]
        first = min(26, max(map(cell_len, names)))
        columns = [_TableColumn(table, index) for index in range(len(table.columns))]
        spare = width - first - sum(GAP + column.narrowest for column in columns)
        if spare < 0:
            spare += sum(GAP + column.narrowest for column in columns if column.minor)
            columns = [column for column in columns if not column.minor]
        if spare < 0:  # at last the labels break into single words
            first = max(first + spare, *(cell_len(word) for name in names for word in name.split()))
        grid = RichTable(
            title=Text(table.title), box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0)
        )
        grid.add_column(Text(table.labels_are), width=first)
        for column in columns:
            more = max(0, min(spare, column.widest - column.narrowest))
            spare -= more
            grid.add_column(
                column.head, justify="right", style="cyan" if column.published else "", width=column.narrowest + more
            )
        for group, members in grouped(table.lines):
            if group:
                grid.add_row(Text(plain(group), style="bold"))
            for member in members:
                grid.add_row(Text(plain(member.label)), *(column.entry(member) for column in columns))
        if table.anchors:
            grid.add_section()
        for anchor in table.anchors:
            grid.add_row(Text(anchor.label), *(column.entry(anchor) for column in columns), style="dim")
        return grid


def below(summaries: Sequence[Summary]) -> list[Text]:
    """What stands below the tables: verdicts of comparable numbers, and the source's claims."""
    verdicts = [line for summary in summaries for line in verdict_lines(summary)]
    parts = []
    for heading, lines in (
        ("Against the published numbers", verdicts),
        ("The source's claims", claim_lines(summaries)),
    ):
        if lines:
            parts += [Text(heading, style="bold"), *(Text(f"- {line}") for line in lines), Text("")]
    return parts


class _TableColumn:
    """A column of a table as the terminal shows it: `narrowest` cuts no word, `widest` breaks no entry."""

    def __init__(self, table: ResultsTable, index: int) -> None:
        self.index, metric = index, METRICS.get(table.columns[index])
        self.minor = metric is not None and metric.minor
        self.published = index >= len(table.columns) - table.published
        self.head = Text("publ. " if self.published else "").append_text(_terminal_field(table.heads[index]))
        entries = [self.entry(line).plain for line in (*table.lines, *table.anchors)]
        self.narrowest = max(cell_len(word) for text in (self.head.plain, *entries) for word in text.split())
        self.widest = max(self.narrowest, *map(cell_len, entries))

    def entry(self, line: Line) -> Text:
        return _terminal_field(line.fields[self.index])


def _terminal_field(f: Field) -> Text:
    # Without a space after it, a line breaks before the ± and never inside.
    style = "dim" if f.failed else "bold" if f.bold else ""
    return Text((f.brief or f.text).replace("± ", "±") + f.note.translate(SUPERSCRIPT), style=style)
