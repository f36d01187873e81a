"""The table laid out as Markdown, as LaTeX (booktabs), for the terminal (rich), and as numbers (pandas, CSV)."""

from collections.abc import Iterable, Sequence
from itertools import groupby

import pandas as pd
from rich import box
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from ddpm_bench.report import labels
from ddpm_bench.report.summary import Row, Summary
from ddpm_bench.report.table import EMPTY, Field, Line, Table

ANCHORS = "Anchors: known images, scored in the same way"
MEASURED_HERE, PUBLISHED = "Measured here", "Published"


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
    below = ["\n", "<br>\n".join(notes)] if notes else []
    remarks = [f"- {labels.escape_markdown(remark)}" for remark in table.remarks]
    return "\n".join(out) + "\n".join(below) + "\n\n" + "\n".join(remarks)


def to_latex(tables: Sequence[Table], label: str) -> str:
    r"""Float(s) for \input in any document that loads booktabs; one for each selection of checkpoints."""
    head = "% Needs \\usepackage{booktabs}. table-document.tex beside this file is a document of its own.\n"
    return head + "\n".join(_float(table, f"tab:{label}" + (f"-{i}" if i else "")) for i, table in enumerate(tables))


def _float(table: Table, label: str) -> str:
    def field(f: Field) -> str:
        return labels.escape_tex(f.text) + (rf"\textsuperscript{{{f.note}}}" if f.note else "")

    def line(first: str, rest: Iterable[str]) -> str:
        return rf"    {' & '.join([first, *rest])} \\"

    def stacked(f: Field) -> str:
        # Long headings would set the width of their column.
        return rf"\shortstack{{{field(f).replace(', ', r',\\')}}}"

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
    notes = [rf"\textsuperscript{{{letter}}}~{labels.escape_tex(text)}." for letter, text in table.notes]
    return "\n".join([
        r"\begin{table}",
        r"  \centering\scriptsize\setlength{\tabcolsep}{3pt}",
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
        *(f"    {text}" for text in notes + [labels.escape_tex(remark) for remark in table.remarks]),
        r"  \end{minipage}",
        r"\end{table}",
        "",
    ])  # fmt: skip


DOCUMENT = r"""\documentclass{article}
\usepackage[utf8]{inputenc}
\usepackage[T1]{fontenc}
\usepackage[margin=2cm]{geometry}
\usepackage{booktabs}
\begin{document}
\input{table}
\end{document}
"""


def to_terminal(table: Table) -> Group:
    """A rich renderable; nothing of the user's text is read as markup."""

    def field(f: Field) -> Text:
        return Text.assemble(f.text, (f" {f.note}" if f.note else "", "dim"))

    out = RichTable(title=Text(table.title), box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    out.add_column("Objective", min_width=18, ratio=1)
    for index, head in enumerate(table.heads):
        published = index >= len(table.heads) - table.published
        text = Text("publ. ").append_text(field(head)) if published else field(head)
        out.add_column(text, justify="right", style="cyan" if published else "")
    for group, members in _grouped(table.lines):
        if group:
            out.add_row(Text(labels.plain(group), style="bold"))
        for member in members:
            out.add_row(Text(labels.plain(member.label)), *map(field, member.fields))
    if table.anchors:
        out.add_section()
        for member in table.anchors:
            out.add_row(Text(member.label), *map(field, member.fields), style="dim")
    notes = [Text(f"{letter}: {text}") for letter, text in table.notes]
    return Group(out, *notes, *(Text(f"- {remark}") for remark in table.remarks))


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
