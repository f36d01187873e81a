"""The table laid out as Markdown, as LaTeX (booktabs), and as numbers (pandas, for CSV)."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from statistics import fmean

import pandas as pd

from ddpm_bench.config.grid import Cell
from ddpm_bench.report import labels
from ddpm_bench.report.against import verdicts
from ddpm_bench.report.summary import Row, Summary
from ddpm_bench.report.table import Field, Line, Table
from ddpm_bench.report.words import EMPTY

ANCHORS = "Anchors: known images, scored in the same way"
MEASURED_HERE, PUBLISHED = "Measured here", "Published"
ENDS = ("brackets are", "sub- and superscripts are the ends of")
"""How a remark speaks of intervals, and how in LaTeX."""


def grouped(lines: Iterable[Line]) -> Iterator[tuple[str, list[Line]]]:
    """The lines by group of the grid, in order."""
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
    for group, members in grouped(table.lines):
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
    columns, measured = len(table.heads), len(table.heads) - table.published
    wide = columns > 9

    def field(f: Field) -> str:
        # The table has to fit a page: spreads as subscripts, the ends of intervals as sub- and superscript, "2/3" for
        # "2 of 3", in a wide one some spreads not at all.
        text = labels.escape_tex(f.brief if f.brief and (wide or re.fullmatch(r"\d+ of \d+", f.text)) else f.text)
        text = re.sub(r" \[(-?[0-9.]+), (-?[0-9.]+)\]", r"$_{\1}^{\2}$", text)
        text = re.sub(r"^-(?=[0-9])", "$-$", re.sub(r" \$\\pm\$ ([0-9.]+)", r"$_{\\pm \1}$", text))
        return text + (rf"\textsuperscript{{{f.note}}}" if f.note else "")

    def line(first: str, rest: Iterable[str]) -> str:
        return rf"    {' & '.join([first, *rest])} \\"

    def stacked(f: Field) -> str:
        # Long headings would set the width of their column.
        lines = field(f).replace(" ", r"\\")
        return rf"\shortstack{{{lines}}}"

    size = r"\footnotesize" if columns <= 8 else r"\scriptsize"
    spans = rf"\multicolumn{{{measured}}}{{c}}{{{MEASURED_HERE}}}"
    rules = rf"    \cmidrule(lr){{2-{measured + 1}}}"
    if table.published:
        spans += rf" & \multicolumn{{{table.published}}}{{c}}{{{PUBLISHED}}}"
        rules += rf" \cmidrule(lr){{{measured + 2}-{columns + 1}}}"
    body = [line("", [spans]), rules, line("Objective", map(stacked, table.heads))]
    for group, members in grouped(table.lines):
        body.append(r"    \midrule")
        body += (
            [rf"    \multicolumn{{{columns + 1}}}{{@{{}}l}}{{\textbf{{{labels.latex(group)}}}}} \\"] if group else []
        )
        body += [line(labels.latex(member.label), map(field, member.fields)) for member in members]
    if table.anchors:
        body += [r"    \midrule", rf"    \multicolumn{{{columns + 1}}}{{@{{}}l}}{{\textbf{{{ANCHORS}}}}} \\"]
        body += [line(labels.escape_tex(member.label), map(field, member.fields)) for member in table.anchors]
    below = [rf"\textbf{{{labels.escape_tex(table.verdict)}}}"] if table.verdict else []
    below += [rf"\textsuperscript{{{letter}}}~{labels.escape_tex(text)}" for letter, text in table.notes]
    below += [labels.escape_tex(remark.replace(*ENDS)) for remark in table.remarks]
    if wide and any(f.brief and len(f.brief) < len(f.text) for line in table.lines for f in line.fields):
        below.append("Spreads and intervals of precision, recall and the bound are left out for want of room.")
    return "\n".join([
        r"\begin{table}",
        rf"  \centering{size}\setlength{{\tabcolsep}}{{2pt}}",
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
\usepackage[margin=1.5cm]{geometry}
\usepackage{booktabs}
\begin{document}
\input{table}
\end{document}
"""


def to_frame(tables: Sequence[Summary]) -> pd.DataFrame:
    """One line a row and selection: every metric with its spread, what was published, and the verdicts.

    The spread is the standard deviation over seeds, or of one seed the 95% interval within the run.
    """
    lines = [line for summary in tables for line in _numbers(summary)]
    keys = sorted({key for summary in tables for row in summary.rows for key in row.estimates})
    beside = ("", "_sd_over_seeds", "_low_within_run", "_high_within_run")
    metrics = [name for key in keys for suffix in beside if any((name := f"{key}{suffix}") in line for line in lines)]
    longest_first = sorted(lines, key=len, reverse=True)
    fixed = [name for name in dict.fromkeys(name for line in longest_first for name in line) if name not in metrics]
    return pd.DataFrame(lines).reindex(columns=fixed + metrics)


def _numbers(summary: Summary) -> Iterator[dict[str, object]]:
    measured = {row.cell.name: row for row in summary.rows}
    for row in summary.grid.rows:
        published = row.published
        found = measured[row.name] if isinstance(row, Cell) else None
        yield {
            "grid": summary.grid.name,
            "preset": summary.first.preset,
            "cell": row.name if isinstance(row, Cell) else "",
            "group": row.group,
            "label": row.label,
            "checkpoint": summary.selection,
            **(_measured(summary, found) if found else {"status": "quoted"}),
            "published_is_mean": published.is_mean,
            "published_is_std_over_splits": published.is_std,
            "published_fid": published.fid,
            "published_nll_test": published.nll_test,
            "published_nll_train": published.nll_train,
            "published_nll_is_upper_bound": published.nll_bound if published.has_nll else None,
            "published_blank": published.blank,
            **(_metrics(found) if found else {}),
        }


def _measured(summary: Summary, row: Row) -> dict[str, object]:
    extractor = summary.first.extractor
    return {
        "steps": " ".join(map(str, row.steps)),
        "status": row.status,
        "n": len(row.done),
        "n_diverged": len(row.diverged),
        "distance": extractor.labels[0],
        "score": extractor.labels[1],
        "extractor_verified": extractor.verified,
        "comparable_with_published": summary.comparable,
        "bounds_comparable_with_published": summary.bounds_comparable,
        **{f"verdict_{one.key}": one.said for one in verdicts(summary) if one.row is row},
    }


def _metrics(row: Row) -> dict[str, object]:
    line: dict[str, object] = {}
    for key, estimate in row.estimates.items():
        line[key] = estimate.mean
        line[f"{key}_sd_over_seeds"] = estimate.spread if estimate.n > 1 else None
        if estimate.interval:
            line[f"{key}_low_within_run"], line[f"{key}_high_within_run"] = estimate.interval
    for split in ("test", "train"):
        if bounds := row.bounds_of(split):
            line[f"bound_{split}_images"] = bounds[0].images
            line[f"bound_{split}_method"] = bounds[0].method
            line[f"bound_{split}_standard_error"] = fmean(bound.standard_error for bound in bounds)
    return line
