"""The table laid out as Markdown, as LaTeX (booktabs), for the terminal (rich), and as numbers (pandas, CSV)."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import pandas as pd
from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from ddpm_bench.report import labels
from ddpm_bench.report.summary import Row, Summary
from ddpm_bench.report.table import EMPTY, Field, Line, Table

ANCHORS = "Anchors: known images, scored in the same way"
MEASURED_HERE, PUBLISHED = "Measured here", "Published"
MINOR = ("precision", "recall")
"""The columns that a narrow terminal goes without."""
GAP = 2
SUPERSCRIPT = str.maketrans("abcdefghijklmnoprstuvwxyz", "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ")


def _grouped(lines: Iterable[Line]) -> Iterable[tuple[str, list[Line]]]:
    return ((group, list(members)) for group, members in groupby(lines, key=lambda line: line.group))


def to_markdown(table: Table) -> str:
    """A GitHub table, its footnotes, and a list of what holds for the whole table."""

    def field(f: Field) -> str:
        return labels.escape_markdown(f.text) + (f"<sup>{f.note}</sup>" if f.note else "")

    def line(first: str, rest: Iterable[str]) -> str:
        return f"| {' | '.join([first, *rest])} |"

    heads = [field(head) for head in table.heads]
    for index in range(len(heads) - table.published, len(heads)):
        heads[index] = f"{PUBLISHED.lower()} {heads[index]}"
    empty = [EMPTY] * len(heads)
    out = [line("Objective", heads), line("---", ["---:"] * len(heads))]
    for group, members in _grouped(table.lines):
        out += [line(f"**{labels.markdown(group)}**", empty)] if group else []
        out += [line(labels.markdown(member.label), map(field, member.fields)) for member in members]
    if table.anchors:
        out.append(line(f"**{ANCHORS}**", empty))
        out += [line(labels.escape_markdown(member.label), map(field, member.fields)) for member in table.anchors]
    notes = [f"<sup>{letter}</sup> {labels.escape_markdown(text)}" for letter, text in table.notes]
    remarks = [f"- {labels.escape_markdown(remark)}" for remark in table.remarks]
    verdict = f"> **{labels.escape_markdown(table.verdict)}**" if table.verdict else ""
    return "\n\n".join(part for part in (verdict, "\n".join(out), "<br>\n".join(notes), "\n".join(remarks)) if part)


def to_latex(tables: Sequence[Table], label: str) -> str:
    r"""Float(s) for \input in any document that loads booktabs; one for each selection of checkpoints."""
    head = "% Needs \\usepackage{booktabs}. table-document.tex beside this file is a document of its own.\n"
    return head + "\n".join(_float(table, f"tab:{label}" + (f"-{i}" if i else "")) for i, table in enumerate(tables))


def _float(table: Table, label: str) -> str:
    def field(f: Field) -> str:
        # The spread as a subscript: the table has to fit a page.
        text = re.sub(r" \$\\pm\$ ([0-9.]+)", r"$_{\\pm \1}$", labels.escape_tex(f.text))
        return text + (rf"\textsuperscript{{{f.note}}}" if f.note else "")

    def line(first: str, rest: Iterable[str]) -> str:
        return rf"    {' & '.join([first, *rest])} \\"

    def stacked(f: Field) -> str:
        # Long headings would set the width of their column.
        lines = field(f).replace(", ", r",\\")
        return rf"\shortstack{{{lines}}}"

    columns, measured = len(table.heads), len(table.heads) - table.published
    spans = rf"\multicolumn{{{measured}}}{{c}}{{{MEASURED_HERE}}}"
    rules = rf"    \cmidrule(lr){{2-{measured + 1}}}"
    if table.published:
        spans += rf" & \multicolumn{{{table.published}}}{{c}}{{{PUBLISHED}}}"
        rules += rf" \cmidrule(lr){{{measured + 2}-{columns + 1}}}"
    body = [line("", [spans]), rules, line("Objective", map(stacked, table.heads))]
    for group, members in _grouped(table.lines):
        body.append(r"    \midrule")
        body += [rf"    \multicolumn{{{columns + 1}}}{{l}}{{\textbf{{{labels.latex(group)}}}}} \\"] if group else []
        body += [line(labels.latex(member.label), map(field, member.fields)) for member in members]
    if table.anchors:
        body += [r"    \midrule", rf"    \multicolumn{{{columns + 1}}}{{l}}{{\textbf{{{ANCHORS}}}}} \\"]
        body += [line(labels.escape_tex(member.label), map(field, member.fields)) for member in table.anchors]
    below = [rf"\textbf{{{labels.escape_tex(table.verdict)}}}"] if table.verdict else []
    below += [rf"\textsuperscript{{{letter}}}~{labels.escape_tex(text)}" for letter, text in table.notes]
    below += map(labels.escape_tex, table.remarks)
    return "\n".join([
        r"\begin{table}",
        r"  \centering\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"  \caption{{{labels.escape_tex(table.title)}.}}",
        rf"  \label{{{label}}}",
        rf"  \begin{{tabular}}{{@{{}}l{'r' * columns}@{{}}}}",
        r"    \toprule",
        *body,
        r"    \bottomrule",
        r"  \end{tabular}",
        r"",
        r"  \smallskip",
        r"  \begin{minipage}{\linewidth}\raggedright",
        *(rf"    {text}\par" for text in below),
        r"  \end{minipage}",
        r"\end{table}",
        "",
    ])  # fmt: skip


DOCUMENT = r"""\documentclass{article}
\usepackage[utf8]{inputenc}
\usepackage[margin=2cm]{geometry}
\usepackage{booktabs}
\begin{document}
\input{table}
\end{document}
"""


@dataclass(frozen=True)
class TerminalTable:
    """A rich renderable; nothing of the user's text is read as markup. A narrow terminal gets the columns that matter most."""

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._grid(options.max_width)
        if self.table.verdict:
            yield Text(self.table.verdict, style="bold")
        yield from (Text(f"{letter}: {text}") for letter, text in self.table.notes)
        yield from (Text(f"- {remark}") for remark in self.table.remarks)
        yield ""

    def _grid(self, width: int) -> RichTable:
        table = self.table
        names = [labels.plain(text) for line in table.lines for text in (line.group, line.label)]
        first = min(26, max(map(cell_len, names)))
        columns = [_Column(table, index) for index in range(len(table.columns))]
        if first + sum(column.narrowest + GAP for column in columns) > width:
            columns = [column for column in columns if column.name not in MINOR]
        grid = RichTable(title=Text(table.title), box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
        grid.add_column("Objective", min_width=first)
        for column in columns:
            grid.add_column(column.head, justify="right", style="cyan" if column.published else "", min_width=column.narrowest)
        for group, members in _grouped(table.lines):
            if group:
                grid.add_row(Text(labels.plain(group), style="bold"))
            for member in members:
                grid.add_row(Text(labels.plain(member.label)), *(column.entry(member) for column in columns))
        if table.anchors:
            grid.add_section()
        for anchor in table.anchors:
            grid.add_row(Text(anchor.label), *(column.entry(anchor) for column in columns), style="dim")
        return grid


class _Column:
    """A column of a table as the terminal shows it; `narrowest` is the width at which no word is cut."""

    def __init__(self, table: Table, index: int) -> None:
        self.index, self.name = index, table.columns[index]
        self.published = index >= len(table.columns) - table.published
        self.head = Text("publ. " if self.published else "").append_text(_terminal_field(table.heads[index]))
        texts = [self.head, *(self.entry(line) for line in (*table.lines, *table.anchors))]
        self.narrowest = max(cell_len(word) for text in texts for word in text.plain.split())

    def entry(self, line: Line) -> Text:
        return _terminal_field(line.fields[self.index])


def _terminal_field(f: Field) -> Text:
    # Without a space after it, a line breaks before the ± and never inside.
    return Text((f.brief or f.text).replace("± ", "±") + f.note.translate(SUPERSCRIPT))


def to_frame(tables: Sequence[Summary]) -> pd.DataFrame:
    """One line a cell and selection of checkpoints: every metric with its standard deviation over seeds, beside the published numbers."""
    lines = [_numbers(summary, row) for summary in tables for row in summary.rows]
    keys = sorted({key for summary in tables for row in summary.rows for key in row.estimates})
    metrics = [name for key in keys for name in (key, f"{key}_sd_over_seeds")]
    fixed = [name for name in lines[0] if name not in metrics]
    return pd.DataFrame(lines).reindex(columns=fixed + metrics)


def _numbers(summary: Summary, row: Row) -> dict[str, object]:
    extractor, published = summary.first.extractor, row.cell.published
    line: dict[str, object] = {
        "grid": summary.grid.name,
        "preset": summary.first.preset,
        "cell": row.cell.name,
        "group": row.cell.group,
        "label": row.cell.label,
        "checkpoint": summary.selection,
        "steps": " ".join(map(str, row.steps)),
        "status": row.status,
        "n": len(row.done),
        "n_diverged": len(row.diverged),
        "distance": extractor.labels[0],
        "score": extractor.labels[1],
        "extractor_verified": extractor.verified,
        "comparable_with_published": summary.comparable,
        "published_is_mean": published.is_mean,
        "published_is_std_over_splits": published.is_std,
        "published_fid": published.fid,
        "published_blank": published.blank,
    }
    for key, estimate in row.estimates.items():
        line[key] = estimate.mean
        line[f"{key}_sd_over_seeds"] = estimate.spread if estimate.n > 1 else None
    return line
