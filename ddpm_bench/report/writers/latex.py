"""The results table as LaTeX (booktabs), by the template `table.tex`, and a document that shows it."""

import re
from collections.abc import Sequence
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from ddpm_bench.report import labels
from ddpm_bench.report.results_table import ANCHORS, MEASURED_HERE, PUBLISHED, Field, ResultsTable, grouped

ENDS = ("brackets are", "sub- and superscripts are the ends of")
"""How a remark speaks of intervals, and how in LaTeX."""


def to_latex(tables: Sequence[ResultsTable], label: str, full: bool = False) -> str:
    r"""Float(s) for \input in any document that loads what their first line names; one for each selection of checkpoints.

    Compact tables fit a column of 5.5 inches. With all metrics, `full`, a table takes a page of its own, on its side.
    """
    return _environment().get_template("table.tex").render(tables=tables, label=label, full=full)


def latex_document(full: bool = False) -> str:
    r"""A document of its own around table.tex, or table-full.tex, as wide as a page of NeurIPS."""
    return _environment().get_template("table-document.tex").render(full=full)


def _entry(field: Field) -> str:
    """A heading or an entry. It has to be narrow: what follows a ± becomes a subscript, the ends of intervals sub- and
    superscript, "2 of 3" "2/3"."""
    text = labels.escape_tex(field.brief if re.fullmatch(r"\d+ of \d+", field.text) else field.text)
    text = re.sub(r" \[(-?[0-9.]+), (-?[0-9.]+)\]", r"$_{\1}^{\2}$" + r"\," * bool(field.note), text)
    text = re.sub(r"^-(?=[0-9])", "$-$", re.sub(r" \$\\pm\$ ([0-9.]+)", r"$_{\\pm \1}$", text))
    text = rf"\textbf{{{text}}}" if field.bold else text
    text += rf"\textsuperscript{{{field.note}}}" if field.note else ""
    return rf"\textcolor{{gray}}{{{text}}}" if field.failed else text


def _first(text: str) -> str:
    r"""What follows a \\, which would take a bracket or a star for an option of its own."""
    return f"{{}}{text}" if text.startswith(("[", "*")) else text


def _stacked(text: str) -> str:
    r"""A heading's words, one below the other; an arrow stays beside the last of them."""
    return r"\\".join(map(_first, text.replace(r" $\up", r"~$\up").replace(r" $\down", r"~$\down").split(" ")))


def _intervals(table: ResultsTable) -> bool:
    return any("[" in field.text for line in table.lines for field in line.fields)


@cache
def _environment() -> Environment:
    # Braces and percent signs are LaTeX's own. Escaping is LaTeX's too: every text passes a filter.
    made = Environment(
        loader=PackageLoader("ddpm_bench.report"), autoescape=False, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
        block_start_string="<%", block_end_string="%>", variable_start_string="<<", variable_end_string=">>",
        comment_start_string="<#", comment_end_string="#>",
    )  # fmt: skip
    made.filters |= {
        "tex": labels.escape_tex,
        "label": labels.latex,
        "first": _first,
        "stacked": _stacked,
        "remark": lambda text: labels.escape_tex(text.replace(*ENDS)),
        "entry": _entry,
    }
    made.tests |= {"tall": _intervals}
    made.globals |= {"ANCHORS": ANCHORS, "MEASURED_HERE": MEASURED_HERE, "PUBLISHED": PUBLISHED, "groups": grouped}
    return made
